"""The parts of scripts/bench/growth.py: the text it makes, and what it reads off processes."""

import os
import random
import subprocess
import sys
from pathlib import Path

import growth
import pytest
from growth import CHANGED, VALID, WARM_UP, Growth, family, grown, perturbed, resident, table, write_config, write_text

from translate.config.reader import load_config
from translate.text.lines import read_lines

PAIRS = [(f"나는 {i} 집에 간다", f"I go home {i}") for i in range(40)]


def test_text_is_repeated_and_perturbed() -> None:
    made = list(grown(PAIRS, 500, 1))
    assert made[:40] == PAIRS
    assert len(set(made)) > 490
    for i, pair in enumerate(made[40:], 40):
        for side, before in zip(pair, PAIRS[i % 40], strict=True):
            words, others = side.split(), before.split()
            assert len(words) == len(others)
            assert sum(word != other for word, other in zip(words, others, strict=True)) <= CHANGED
    assert made == list(grown(PAIRS, 500, 1)) != list(grown(PAIRS, 500, 2))
    assert made[:123] == list(grown(PAIRS, 123, 1))  # less is the beginning of more


def test_short_lines_are_perturbed_as_far_as_they_go() -> None:
    assert perturbed("one", ["x"], random.Random(1)) == "x"
    assert perturbed("", ["x"], random.Random(1)) == ""


def test_each_size_gets_its_text(tmp_path: Path) -> None:
    lines = [*PAIRS, PAIRS[0], ("", "blank"), ("leer", " ")]
    for k, side in enumerate(("src", "tgt")):
        (tmp_path / side).write_text("".join(f"{pair[k]}\n" for pair in lines), encoding="utf-8")
    sizes = [Growth(count, tmp_path / "work" / str(count)) for count in (10, 100)]
    write_text(tmp_path / "src", tmp_path / "tgt", sizes, seed=1)
    small, large = (list(read_lines(size.folder / "train.src")) for size in sizes)
    assert (len(small), len(large), large[:10]) == (10, 100, small)
    valid = list(read_lines(sizes[1].folder / "valid.tgt"))
    assert valid == [tgt for _, tgt in PAIRS[: min(VALID, 4)]]
    assert not set(valid) & set(read_lines(sizes[1].folder / "train.tgt"))


def test_all_sizes_are_cut_by_one_tokenizer(tmp_path: Path) -> None:
    own, given = (Growth(count, tmp_path / str(count)) for count in (100, 10))
    for one, tokenizer in ((own, None), (given, tmp_path / "joint.model")):
        one.folder.mkdir()
        write_config(one, 1, {}, tokenizer)
    assert load_config(own.config).tokenizer.model is None
    assert load_config(given.config).tokenizer.model == str(tmp_path / "joint.model")


def test_memory_is_that_of_a_process_and_of_what_it_started() -> None:
    code = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'x = bytes(1) * 30_000_000; print(1); input()'])"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        both = family(process.pid)
        assert len(both) == 2
        assert resident(process.pid)[0] < 30_000_000 < sum(resident(one)[0] for one in both) < 90_000_000
        process.communicate(b"\n")
    assert resident(process.pid) == (0, 0)
    assert resident(os.getpid())[1] > 1_000_000


def test_table_has_a_line_for_each_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = {"a": {"bytes": 3_000_000}, "b": {"bytes": 1_000_000}}
    manifest = {"splits": {"train": {"corpora": [{"kept": 9}, {"kept": 1}], "files": files}}}
    monkeypatch.setattr(growth, "read_manifest", lambda run: manifest)
    sizes = [
        Growth(10, tmp_path, 61.0, 40_000_000, 3.21, rates=[100.0, 200.0]),
        Growth(1000, tmp_path, rates=[50.0, 100.0]),
    ]
    for size in sizes:
        size.memory = [(1_000_000 * i, 7_000_000) for i in range(WARM_UP + 3)]
    first, second = (line.split(" | ") for line in table(sizes).split("\n")[2:])
    assert first[:10] == ["| 10", "10", "4", "61", "40", "3.2", str(WARM_UP), str(WARM_UP + 2), "7", "150"]
    assert second[-1] == "0.50 (0.50 to 0.50) |"
