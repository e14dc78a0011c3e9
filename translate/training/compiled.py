"""torch.compile for GPUs: without it a small model waits for the host to launch its kernels.

A model whose forward pass is one graph is compiled as a whole; of one that the host leads from step to step, the steps.
What cannot be compiled runs as it stands, after one sentence. Compiled kernels are kept in a folder of the run, so that
going on is quick; a process that was killed may leave half a kernel there, and torch would stumble over it at every
later start, so a folder that was not left in order is emptied first.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, ParamSpec, TypeVar

import torch

from translate.bar import note
from translate.errors import is_out_of_memory

Given = ParamSpec("Given")
Result = TypeVar("Result")

IN_USE = "in-use"
"""While this file is there, a process is at work in the folder, or was when it ended."""
VARIABLES = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}


class Compiled(Generic[Given, Result]):
    """A function of tensors, compiled for whatever lengths come; plain from the first failure on."""

    def __init__(self, plain: Callable[Given, Result]) -> None:
        _configure()
        self._plain = plain
        self._call = torch.compile(plain, dynamic=True)

    def __call__(self, *given: Given.args, **named: Given.kwargs) -> Result:
        """As the function."""
        if self._call is self._plain:
            return self._plain(*given, **named)
        if torch.fx.experimental._config.use_duck_shape:  # a thread of autograd's, which has settings of its own
            _configure()
        try:
            return self._call(*given, **named)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            result = self._plain(*given, **named)  # raises what the compiler is not to blame for
            self.give_up(error)
            return result

    def give_up(self, error: Exception) -> bool:
        """Run plainly from now on, and say why; false if it was so already."""
        if self._call is self._plain:
            return False
        reason = " ".join(str(error).partition("\n")[0].split())
        note(f"warning: torch.compile failed ({type(error).__name__}: {reason}); training goes on without it")
        self._call = self._plain
        return True


def _configure() -> None:
    """Settings of the compiler, for this thread."""
    torch.fx.experimental._config.use_duck_shape = False  # lengths that are once equal need not stay so
    torch._dynamo.config.optimize_ddp = False  # the graph that was proved is the one that is used
    torch._dynamo.config.recompile_limit = 32  # a length of one, or a batch of one, makes another graph


@contextlib.contextmanager
def kernels_in(directory: Path) -> Iterator[None]:
    """Keep compiled kernels in `directory`, which no other process uses; whoever set a place knows better.

    To be entered before anything is compiled: torch then chooses a place and sets it, as somebody would who knows.
    """
    if any(name in os.environ for name in VARIABLES):
        yield
        return
    if (directory / IN_USE).exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / IN_USE).touch()
    os.environ.update({name: str(directory / folder) for name, folder in VARIABLES.items()})
    try:
        yield
    finally:  # whatever Python can still do something about left no half-written file
        for name in VARIABLES:
            os.environ.pop(name, None)
        (directory / IN_USE).unlink(missing_ok=True)
