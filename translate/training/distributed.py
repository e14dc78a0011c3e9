"""Several processes that train one model: who I am, how all of us agree, and how the model is spread over us.

`torchrun -m translate train …` starts the processes and says in the environment what each is. A process that was
started by itself is the only one: everything here then does nothing, at no cost.

Gradients go over the default process group (NCCL between GPUs, gloo between CPUs). What is agreed upon goes over a
group of its own, always gloo: it needs no GPU to wait, and it may wait long, because the first process tokenizes and
measures while the others stand by. If a process ends, the calls of the others fail at once.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.distributed_c10d import _abort_process_group
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from translate.errors import Interrupted, TryAgainError
from translate.models.seq2seq import Block

PATIENCE = timedelta(days=30)
"""For what is agreed upon."""
TIMEOUT = timedelta(minutes=10)
"""For gradients."""

Spread = Literal["ddp", "fsdp"]


@dataclass(frozen=True)
class Ranks:
    """The processes of one training, of which this is `number`."""

    number: int = 0
    count: int = 1
    on_this_machine: int = 1
    group: dist.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        """The first writes: checkpoints, log, messages."""
        return self.number == 0

    def most(self, *values: float) -> list[float]:
        """The largest of each value that any process has."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def any(self, mine: bool) -> bool:
        """Whether it is so in any process."""
        return self.most(float(mine))[0] > 0

    def total(self, *values: float) -> list[float]:
        """The sum of each value over all processes."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def wait(self) -> None:
        """Until all are here."""
        self.most(0.0)

    def in_turn(self, lines: Sequence[str]) -> list[str]:
        """Lines that were dealt out in turn, line i to process i modulo count, put together again."""
        if self.group is None:
            return list(lines)
        data = torch.tensor(bytearray("\n".join(lines).encode()), dtype=torch.uint8)
        rows, size = (int(most) for most in self.most(len(lines), len(data)))
        padded = torch.zeros(size, dtype=torch.uint8)
        padded[: len(data)] = data
        everyone = [torch.zeros(size, dtype=torch.uint8) for _ in range(self.count)]
        counts = [torch.zeros(2, dtype=torch.int64) for _ in range(self.count)]
        dist.all_gather(everyone, padded, group=self.group)
        dist.all_gather(counts, torch.tensor([len(lines), len(data)]), group=self.group)
        texts: list[list[str]] = []
        for got, (count, length) in zip(everyone, (pair.tolist() for pair in counts), strict=True):
            texts.append(got[:length].numpy().tobytes().decode().split("\n") if count else [])
        return [text[row] for row in range(rows) for text in texts if row < len(text)]

    def spread(self, objective: nn.Module, how: Spread) -> nn.Module:
        """The objective as all processes train it; with `fsdp` the weights in it are replaced by shards of them."""
        if self.group is None:
            return objective
        if how == "ddp":
            return DistributedDataParallel(objective, gradient_as_bucket_view=True)
        mesh = init_device_mesh(next(objective.parameters()).device.type, (self.count,))
        for block in [module for module in objective.modules() if isinstance(module, Block)]:
            fully_shard(block, mesh=mesh)
        fully_shard(objective, mesh=mesh)
        return objective

    def exchange(self, objective: nn.Module, now: bool) -> contextlib.AbstractContextManager[object]:
        """Context of a micro-batch: gradients are exchanged in the backward pass `now`, or wait for a later one."""
        if isinstance(objective, FSDPModule):
            objective.set_requires_gradient_sync(now)
        if isinstance(objective, DistributedDataParallel) and not now:
            return objective.no_sync()
        return contextlib.nullcontext()

    def _reduced(self, values: Sequence[float], how: dist.ReduceOp.RedOpType) -> list[float]:
        if self.group is None:
            return list(values)
        numbers = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(numbers, how, group=self.group)
        found: list[float] = numbers.tolist()
        return found


@contextlib.contextmanager
def in_contact(ranks: Ranks, way_on: str) -> Iterator[None]:
    """What fails because another process is gone raises TryAgainError, which says the way on."""
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, dist.DistError) or any(name in str(error).lower() for name in ("gloo", "nccl"))
        if ranks.count == 1 or not lost:
            raise
        first_line = str(error).partition("\n")[0]
        raise TryAgainError(f"lost contact with another process: {first_line}; {way_on}") from error


@contextlib.contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Find the other processes that torchrun started, if it did, and part from them at the end."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Ranks()
        return
    cuda = device != "cpu" and torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=TIMEOUT)
    try:
        group = dist.new_group(backend="gloo", timeout=PATIENCE)
        yield Ranks(dist.get_rank(), count, int(os.environ["LOCAL_WORLD_SIZE"]), group)
    except Interrupted:  # where all had agreed to stop
        dist.destroy_process_group()
        raise
    except BaseException:
        _abort_process_group()  # destroying would wait for kernels of NCCL that wait for the others
        raise
    dist.destroy_process_group()


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor of which each process may hold a shard; then all must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """What this process holds of a whole tensor, if `like` is held in shards."""
    if not isinstance(like, DTensor):
        return tensor.to(like.device)
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
