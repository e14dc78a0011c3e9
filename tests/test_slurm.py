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
        ([], 75),  # none came as far as a record
    ],
)
def test_the_verdict_on_a_training_that_ended(codes: list[int | None], expected: int) -> None:
    assert why_ended.verdict(codes) == expected


def test_only_records_of_this_launch_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that was stopped, and that cannot even begin now, must not be taken for stopped again."""
    (tmp_path / "ranks").mkdir()
    for rank, (code, started) in enumerate([(143, 100.5), (None, 90.0)]):
        record = {"rank": rank, "host": "here", "code": code, "cause": "stopped", "started": started}
        (tmp_path / "ranks" / f"{rank}.json").write_text(json.dumps(record))
    script = str(SLURM / "why_ended.py")
    for since, expected, lines in (
        ([], 143, ["rank 0 on here: 143 stopped", "rank 1 on here: it ended without a word"]),
        (["100"], 143, ["rank 0 on here: 143 stopped"]),
        (
            ["106"],
            75,
            [f"no process came as far as a record in {tmp_path}/ranks; what was printed before this says why"],
        ),
    ):
        ended = subprocess.run([sys.executable, script, str(tmp_path), *since], capture_output=True, text=True)
        assert (ended.returncode, ended.stdout.splitlines()) == (expected, lines)


@pytest.fixture
def scheduler(tmp_path: Path) -> Path:
    """A folder with the commands that job files call.

    `srun` kills what it runs when it gets SIGTERM, as the real one does; `scancel` signals the step and not the shell.
    """
    found = tmp_path / "bin"
    found.mkdir()
    step = f"""
while [ "${{1#--}}" != "$1" ]; do shift; done
"$@" &
echo $! > {tmp_path}/step
trap 'kill -KILL "$(cat {tmp_path}/step)"' TERM
wait $!
"""
    asks = f'[ "$1" = show ] && echo localhost || echo "$@" >> {tmp_path}/asked\n'
    commands = {
        "scontrol": asks,
        "srun": step,
        "scancel": f'[ "$*" = "--signal=TERM 7" ] && kill -TERM "$(cat {tmp_path}/step)"\n',
        "squeue": f"cat {tmp_path}/state 2>/dev/null || echo RUNNING\n",
        "python": f'exec {sys.executable} "$@"\n',
        "torchrun": f'exec {sys.executable} -m torch.distributed.run "$@"\n',
    }
    for name, text in commands.items():
        (found / name).write_text(f"#!/bin/sh\n{text}")
        (found / name).chmod(0o755)
    return found


def environment(bin_: Path, gpus: int = 2) -> dict[str, str]:
    """What a job finds."""
    return {
        **os.environ,
        "PATH": f"{bin_}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "7",
        "SLURM_GPUS_ON_NODE": str(gpus),
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_JOB_NODELIST": "localhost",
        "OMP_NUM_THREADS": "1",
    }


def submit(job: str, bin_: Path, config: Path, run: Path, gpus: int = 2) -> subprocess.Popen[str]:
    """Start a job file as Slurm would."""
    command = ["bash", str(SLURM / job), str(config), str(run), "--set", "train.log_every=1"]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment(bin_, gpus), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def tiny_file(tmp_path: Path, **train: object) -> Path:
    """A config file of a tiny training."""
    file, corpus = tmp_path / "tiny.yaml", tmp_path / "corpus"
    corpus = corpus if corpus.exists() else tiny_corpus(corpus)
    file.write_text(dump_config(tiny_config(corpus, **train)), encoding="utf-8")
    return file


@pytest.mark.parametrize(("job", "gpus"), [("one_gpu.sbatch", 1), ("one_node.sbatch", 1), ("several_nodes.sbatch", 2)])
def test_a_preempted_job_saves_and_is_queued_again(job: str, gpus: int, scheduler: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    endless = tiny_file(tmp_path, max_steps=100_000, save_every=100_000, max_minutes=2.0)  # if no signal ends it
    started = submit(job, scheduler, endless, run, gpus)
    while not (run / "log.jsonl").exists():
        assert started.poll() is None, started.communicate()[0]
        time.sleep(0.1)
    started.send_signal(signal.SIGTERM)
    out, _ = started.communicate(timeout=120)
    assert started.returncode == 143, out
    assert (tmp_path / "asked").read_text() == "requeue 7\n", out
    assert json.loads((run / "checkpoints.json").read_text())["last"] > 0
    again = submit(job, scheduler, tiny_file(tmp_path, max_steps=1), run, gpus)
    out, _ = again.communicate(timeout=120)
    assert again.returncode == 0, out
    assert (tmp_path / "asked").read_text() == "requeue 7\n", out


def test_a_job_that_cannot_begin_is_queued_again_once(scheduler: Path, tmp_path: Path) -> None:
    for _ in range(2):
        job = submit("one_node.sbatch", scheduler, tmp_path / "nothing.yaml", tmp_path / "run")
        out, _ = job.communicate(timeout=120)
        assert job.returncode == 75, out
        assert "nothing.yaml" in out
    assert "not queued again: the last try came as far" in out
    assert (tmp_path / "asked").read_text() == "requeue 7\n", out


def test_what_is_queued_again(scheduler: Path, tmp_path: Path) -> None:
    """Stopped: always. Worth another try: unless the last one came as far, or nobody can tell. Cancelled: never."""
    run, asked = tmp_path / "run", tmp_path / "asked"

    def ended(code: int) -> bool:
        """Whether the job goes back into the queue."""
        asked.unlink(missing_ok=True)
        line = f'source "{SLURM}/step.sh"; queued_again {code} "{run}"'
        subprocess.run(["bash", "-uo", "pipefail", "-c", line], env=environment(scheduler), check=False)
        return asked.exists()

    assert [ended(code) for code in (0, 65, 70, 130, 137)] == [False] * 5
    run.write_text("no directory")
    assert not ended(75)
    run.unlink()
    assert [ended(143), ended(143)] == [True, True]
    assert [ended(75), ended(75)] == [True, False]
    (run / "machine.json").write_text("smaller micro-batches")
    assert [ended(75), ended(75)] == [True, False]
    (run / "checkpoints.json").write_text("a new one")
    assert [ended(75), ended(75)] == [True, False]
    (tmp_path / "state").write_text("COMPLETING\n")
    assert not ended(143)
    (tmp_path / "state").write_text("")  # no answer
    assert ended(143)
