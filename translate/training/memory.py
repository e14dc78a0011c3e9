"""How much memory a process may still take, and how much it took at most.

On Linux the system tells in /proc, and the control groups of a container or a batch job in /sys/fs/cgroup. Elsewhere
nothing is known, and whoever asks must go without.
"""

import contextlib
import ctypes
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

PROC, GROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def available(proc: Path = PROC, groups: Path = GROUPS) -> int | None:
    """Bytes that this process may still take: what the system has, within the limits of its groups and its own."""
    rooms = [room for room in (_field(proc / "meminfo", "MemAvailable"), _address_space(proc)) if room is not None]
    for group in _groups_of(proc, groups):
        for limit, usage, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            most, used = _number(group / limit), _number(group / usage)
            if most is not None and used is not None:
                # Pages of files that nobody used lately count as used, and are given up when memory is short.
                rooms.append(max(0, most - used + (_entry(group / "memory.stat", cache) or 0)))
    return min(rooms, default=None)


def resident(proc: Path = PROC) -> int | None:
    """Bytes of this process that are in memory now."""
    return _field(proc / "self/status", "VmRSS")


def peak(proc: Path = PROC) -> int | None:
    """The most bytes of this process that were in memory since its start, or since `forget_peak`."""
    return _field(proc / "self/status", "VmHWM")


def forget_peak() -> None:
    """Give freed memory back to the system, and let `peak` begin anew, where the system can."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with contextlib.suppress(OSError):
        (PROC / "self/clear_refs").write_text("5", encoding="ascii")


def peak_of(work: Callable[[], object], device: torch.device) -> int:
    """The most bytes that were in use while `work` was done, everything else in the process included; 0 if unknown."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device)
    forget_peak()
    work()
    return peak() or 0


def limit(device: torch.device, sharing: int = 1) -> int | None:
    """What `peak_of` may come to: a share of what is there, the rest being for whatever no probe finds.

    On a CPU freed memory lies in pieces that later batches do not fit into, and other programs come and go; `sharing`
    processes take from it at once. On a GPU only the pieces count.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(0.9 * (free + torch.cuda.memory_reserved(device)))
    room, now = available(), resident()
    return None if room is None or now is None else now + int(0.75 * room) // sharing


def _groups_of(proc: Path, groups: Path) -> Iterator[Path]:
    """The directories of this process's control groups that can limit memory, versions 1 and 2, with those above."""
    try:
        lines = (proc / "self/cgroup").read_text(encoding="utf-8").split("\n")
    except OSError:
        return
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if controllers not in ("", "memory"):
            continue
        top = groups / controllers
        group = top / path.lstrip("/")
        yield from (above for above in (group, *group.parents) if above.is_relative_to(top))


def _address_space(proc: Path) -> int | None:
    """Room under `ulimit -v`."""
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    used = _field(proc / "self/status", "VmSize")
    return None if most == resource.RLIM_INFINITY or used is None else max(0, most - used)


def _field(path: Path, name: str) -> int | None:
    """`Name:   123 kB` of a file in bytes."""
    kilobytes = _entry(path, f"{name}:")
    return None if kilobytes is None else 1024 * kilobytes


def _entry(path: Path, name: str) -> int | None:
    """The number that follows a name at the start of a line."""
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="utf-8").split("\n"):
            words = line.split()
            if len(words) > 1 and words[0] == name:
                return int(words[1])
    return None


def _number(path: Path) -> int | None:
    """A file with one number; None where it is not there, or says `max`."""
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text(encoding="ascii"))
    return None
