"""How far is a forecast from the training that follows it? `translate train --dry-run` against the real thing.

    python scripts/bench/forecast.py configs/quickstart.yaml [--probe 60] [--set train.max_steps=1500 ...]

The text is tokenized first. Then one process forecasts, and another one trains to the end. Printed for each: peak
memory of the process, training time, largest size of its checkpoints, and how far the forecast is off. The time is
worth something on an otherwise idle machine only.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def probe(config: Path, run: Path, sets: list[str], seconds: float) -> None:
    """Print a forecast as JSON."""
    from translate.config.reader import load_config
    from translate.run import RunDirectory
    from translate.stages.forecast import forecast

    print(json.dumps(dataclasses.asdict(forecast(load_config(config, sets), RunDirectory(run), seconds))))


def started(command: list[str]) -> subprocess.Popen[str]:
    """A process that imports the package from this working tree."""
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True)


def largest(run: Path, child: subprocess.Popen[str], found: list[int]) -> None:
    """Look at the checkpoints until the process ends, and note the most bytes that lay there."""
    done = threading.Event()

    def wait() -> None:
        child.wait()
        done.set()

    watcher = threading.Thread(target=wait)
    watcher.start()
    while not done.wait(0.02):
        sizes = 0
        for path in (run / "checkpoints").glob("*"):
            try:
                sizes += path.stat().st_size
            except FileNotFoundError:
                continue
        found[0] = max(found[0], sizes)


def main() -> None:
    """Tokenize, forecast, train, compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--probe", type=float, default=60.0, help="seconds")
    parser.add_argument("--set", action="append", default=[], dest="sets", metavar="KEY=VALUE")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker is not None:
        probe(given.config, given.worker, given.sets, given.probe)
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(given.config, Path(folder) / "run", given.sets, given.probe)


def compare(config: Path, run: Path, sets: list[str], seconds: float) -> None:
    """Print one line for memory, time and disk each."""
    chosen = [word for value in sets for word in ("--set", value)]
    command = [sys.executable, "-m", "translate"]
    place = ["--config", str(config), "--run", str(run), *chosen]
    subprocess.run([*command, "tokenize", *place], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    this = [sys.executable, __file__, str(config), "--worker", str(run), "--probe", str(seconds), *chosen]
    with started(this) as worker:
        told = worker.stdout.read() if worker.stdout is not None else ""
    foretold = json.loads(told)
    print(f"forecast by {foretold['probed']} updates: {foretold['updates']} updates to {foretold['end']}", flush=True)
    peak, seconds_taken, disk = trained([*command, "train", *place], run)
    files = foretold["checkpoints"] * foretold["checkpoint_bytes"]
    for what, expected, real, unit, scale in (
        ("peak memory", foretold["memory"], peak, "MB", 1e6),
        ("training time", foretold["seconds"], seconds_taken, "s", 1.0),
        ("checkpoints", files, disk, "MB", 1e6),
    ):
        error = expected / real - 1
        print(f"{what}: forecast {expected / scale:,.1f} {unit}, real {real / scale:,.1f} {unit}, off by {error:+.1%}")


def trained(command: list[str], run: Path) -> tuple[int, float, int]:
    """Peak memory in bytes, training time in seconds, and the most bytes of checkpoints, of a training to the end."""
    from translate.run import RunDirectory
    from translate.training.checkpoint import newest_sound

    disk, peak = [0], [0]
    child = started(command)
    watch = threading.Thread(target=largest, args=(run, child, disk))
    watch.start()
    while child.poll() is None:
        peak[0] = max(peak[0], high_water_mark(child.pid))
        watch.join(0.2)
    watch.join()
    if child.returncode:
        raise SystemExit(f"the training ended with {child.returncode}")
    saved, _ = newest_sound(RunDirectory(run))
    assert saved is not None
    return peak[0], json.loads(saved.metadata["progress"])["seconds"], disk[0]


def high_water_mark(process: int) -> int:
    """Most bytes of a process that were in memory, while it runs; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").split("\n")
    except OSError:
        return 0
    return 1024 * next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


if __name__ == "__main__":
    main()
