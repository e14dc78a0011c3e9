"""The batch job files, run by a shell with a scheduler that only writes down what it is asked."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tiny import tiny_config, tiny_corpus
from translate.config.writer import dump_config

ROOT = Path(__file__).parent.parent
SLURM = ROOT / "scripts" / "slurm"

spec = importlib.util.spec_from_file_location("why_ended", SLURM / "why_ended.py")
assert spec is not None
assert spec.loader is not None
why_ended = importlib.util.module_from_spec(spec)
spec.loader.exec_module(why_ended)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([0, 0], 0),
        ([143, 143], 143),
        ([130, 130], 130),
        ([75, 137], 75),  # one was killed, the others lost contact
        ([143, 137], 75),
        ([None, None], 75),  # the machine went away
        ([0, 75], 75),
        ([65, 75], 65),
        ([143, 65, None], 65),
        ([70, 137], 70),
        ([], 75),
    ],
)
def test_the_verdict_on_a_training_that_ended(codes: list[int | None], expected: int) -> None:
    assert why_ended.verdict(codes) == expected


def submit(job: str, bin_: Path, config: Path, run: Path) -> subprocess.Popen[str]:
    """Start a job file as Slurm would."""
    environment = {
        **os.environ,
        "PATH": f"{bin_}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "7",
        "SLURM_GPUS_ON_NODE": "2",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_JOB_NODELIST": "localhost",
        "OMP_NUM_THREADS": "1",
    }
    command = ["bash", str(SLURM / job), str(config), str(run), "--set", "train.log_every=1"]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


@pytest.fixture
def scheduler(tmp_path: Path) -> Path:
    """A folder with the commands that job files call."""
    found = tmp_path / "bin"
    found.mkdir()
    script = f'#!/bin/sh\n[ "$1" = show ] && echo localhost || echo "$@" >> {tmp_path}/asked\n'
    for name, text in {"scontrol": script, "srun": '#!/bin/sh\nshift\nexec "$@"\n'}.items():
        (found / name).write_text(text)
        (found / name).chmod(0o755)
    python = found / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    torchrun = found / "torchrun"
    torchrun.write_text(f'#!/bin/sh\nexec {sys.executable} -m torch.distributed.run "$@"\n')
    torchrun.chmod(0o755)
    return found


@pytest.mark.parametrize("job", ["one_gpu.sbatch", "one_node.sbatch", "several_nodes.sbatch"])
def test_a_preempted_job_saves_and_is_queued_again(job: str, scheduler: Path, tmp_path: Path) -> None:
    file, run = tmp_path / "tiny.yaml", tmp_path / "run"
    corpus = tiny_corpus(tmp_path / "corpus")
    file.write_text(dump_config(tiny_config(corpus, max_steps=100_000, save_every=100_000)), encoding="utf-8")
    started = submit(job, scheduler, file, run)
    while not (run / "log.jsonl").exists():
        assert started.poll() is None, started.communicate()[0]
        time.sleep(0.1)
    started.send_signal(signal.SIGTERM)
    out, _ = started.communicate(timeout=120)
    assert started.returncode == 143, out
    assert (tmp_path / "asked").read_text() == "requeue 7\n", out
    assert json.loads((run / "checkpoints.json").read_text())["last"] > 0
    file.write_text(dump_config(tiny_config(corpus, max_steps=1)), encoding="utf-8")
    again = submit(job, scheduler, file, run)
    out, _ = again.communicate(timeout=120)
    assert again.returncode == 0, out
    assert (tmp_path / "asked").read_text() == "requeue 7\n", out
