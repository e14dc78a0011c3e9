"""TensorBoard files: what a reader of them sees is what the event log has, also after a kill."""

import json
import sys
import time
from pathlib import Path

import pytest

from tests.test_resume import at_call, die
from tests.tiny import tiny_config, tiny_corpus, train_in_child
from translate.errors import ConfigError
from translate.run import RunDirectory
from translate.training.curves import Curves
from translate.training.loop import Loop

POINTS = {"update": ("loss", "lr", "grad_norm", "tokens_per_second"), "validation": ("loss", "bleu")}


def drawn(root: Path) -> dict[str, list[tuple[int, float]]]:
    """Every curve as a reader that hides purged points sees it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(root / "tensorboard"))
    reader.Reload()
    return {tag: [(point.step, point.value) for point in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def logged(root: Path) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for line in (root / "log.jsonl").read_text(encoding="utf-8").split("\n")[:-1]:
        event = json.loads(line)
        for key in POINTS.get(event["event"], ()):
            name = f"validation_{key}" if event["event"] == "validation" else key
            found.setdefault(name, []).append((event["step"], event[key]))
    return found


def assert_same(root: Path) -> None:
    points, expected = drawn(root), logged(root)
    assert points.keys() == expected.keys()
    for name, curve in expected.items():
        assert [step for step, _ in points[name]] == [step for step, _ in curve], name
        assert [value for _, value in points[name]] == pytest.approx([value for _, value in curve], rel=1e-6), name


def slow_disk() -> None:
    """Let each point take longer to be written than to be drawn."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    write = RecordWriter.write

    def late(self: RecordWriter, data: bytes) -> None:
        time.sleep(0.02)
        write(self, data)

    RecordWriter.write = late


def test_curves_are_those_of_the_log_also_after_a_kill(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    config = tiny_config(tiny_corpus(tmp_path / "corpus"), tensorboard=True, log_every=1)
    root = tmp_path / "run"

    def prepare() -> None:
        slow_disk()
        at_call(Loop, "update", 12, die)()

    assert train_in_child(config, root, prepare) == -9
    assert train_in_child(config, root) == 0, (tmp_path / "run.log").read_text(encoding="utf-8")
    assert len(logged(root)["loss"]) == 14
    assert_same(root)


def test_switched_off_nothing_is_written(tmp_path: Path) -> None:
    curves = Curves(RunDirectory(tmp_path), False, 0)
    curves.draw(1, loss=2.0)
    curves.flush()
    curves.close()
    assert list(tmp_path.iterdir()) == []


def test_a_value_that_is_not_there_is_not_drawn(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    curves = Curves(RunDirectory(tmp_path), True, 0)
    curves.draw(1, loss=2.0, bleu=None)
    curves.draw(3, loss=0.0, bleu=0.0)
    curves.close()
    assert drawn(tmp_path) == {"loss": [(1, 2.0), (3, 0.0)], "bleu": [(3, 0.0)]}


def test_without_tensorboard_the_setting_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"train\.tensorboard: found true, .* or set it to false"):
        Curves(RunDirectory(tmp_path), True, 0)
