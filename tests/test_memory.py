"""What the system says of memory, from files written for the test and from memory that is really taken."""

import resource
import sys
from pathlib import Path

import pytest
import torch

from tests.tiny import in_child
from translate.training import memory

GIB = 2**30
CPU = torch.device("cpu")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A machine with 8 GiB to spare, and a process in no group."""
    write(tmp_path / "proc/meminfo", f"MemTotal:       99999999 kB\nMemAvailable:   {8 * GIB // 1024} kB\n")
    return tmp_path / "proc"


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    return tmp_path / "cgroup"


def test_without_groups_the_machine_is_the_limit(proc: Path, groups: Path) -> None:
    assert memory.available(proc, groups) == 8 * GIB


def test_where_nothing_is_told_nothing_is_known(tmp_path: Path) -> None:
    assert memory.available(tmp_path, tmp_path) is None


@pytest.mark.parametrize(
    ("limits", "room"),
    [
        ({"job/step": (2 * GIB, GIB, 0)}, GIB),
        ({"job/step": ("max", GIB, 0), "job": (3 * GIB, GIB, 0)}, 2 * GIB),  # the group above has the limit
        ({"job/step": (4 * GIB, GIB, 0), "job": (3 * GIB, 2 * GIB, 0)}, GIB),
        ({"job/step": (2 * GIB, 2 * GIB, GIB // 2)}, GIB // 2),  # pages of files can be given up
        ({"job/step": (GIB, 2 * GIB, 0)}, 0),
        ({"job/step": (99 * GIB, GIB, 0)}, 8 * GIB),
        ({"other": (GIB, 0, 0)}, 8 * GIB),
    ],
)
def test_groups_of_version_2(
    limits: dict[str, tuple[int | str, int, int]], room: int, proc: Path, groups: Path
) -> None:
    write(proc / "self/cgroup", "0::/job/step\n")
    for name, (most, used, cached) in limits.items():
        write(groups / name / "memory.max", f"{most}\n")
        write(groups / name / "memory.current", f"{used}\n")
        write(groups / name / "memory.stat", f"anon 1\ninactive_file {cached}\n")
    assert memory.available(proc, groups) == room


@pytest.mark.parametrize("seen_from", ["host", "container"])
def test_groups_of_version_1(seen_from: str, proc: Path, groups: Path) -> None:
    """In a container the directory of the group is often the top of what it sees."""
    write(proc / "self/cgroup", "9:name=systemd:/\n8:memory:/job\n3:cpu:/\n0::/\n")
    group = groups / "memory" / ("job" if seen_from == "host" else "")
    write(group / "memory.limit_in_bytes", f"{3 * GIB}\n")
    write(group / "memory.usage_in_bytes", f"{2 * GIB}\n")
    write(group / "memory.stat", f"inactive_file 7\ntotal_inactive_file {GIB // 4}\n")
    assert memory.available(proc, groups) == GIB + GIB // 4


@pytest.mark.skipif(sys.platform != "linux", reason="told in /proc")
def test_a_limit_of_the_process_counts(tmp_path: Path) -> None:
    def limited() -> None:
        size = 1024 * next(
            int(line.split()[1]) for line in Path("/proc/self/status").read_text().split("\n") if "VmSize" in line
        )
        resource.setrlimit(resource.RLIMIT_AS, (size + 2**26, resource.RLIM_INFINITY))
        room = memory.available()
        assert room is not None
        assert 0 < room <= 2**26

    assert in_child(limited, tmp_path / "log") == 0, (tmp_path / "log").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="told in /proc")
def test_the_peak_of_a_piece_of_work_is_found_and_forgotten() -> None:
    def take(megabytes: int) -> None:
        torch.ones(megabytes * 2**18).sum()

    large, small = memory.peak_of(lambda: take(160), CPU), memory.peak_of(lambda: take(32), CPU)
    assert large - small == pytest.approx(128 * 2**20, rel=0.1)
    most, now = memory.limit(CPU), memory.resident()
    alone = memory.limit(CPU, sharing=4)
    assert most is not None
    assert now is not None
    assert alone is not None
    assert most > alone > now
