"""TensorBoard files beside the event log, for those who want curves; needs the `tensorboard` extra."""

from typing import Any

from translate.errors import ConfigError
from translate.run import RunDirectory


class Curves:
    """Scalars by step. Switched off, it does nothing; going on from a step hides what a killed run drew after it."""

    def __init__(self, run: RunDirectory, enabled: bool, step: int) -> None:
        self.writer: Any = None
        if not enabled:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "train.tensorboard: found true, but TensorBoard is not installed; "
                "pip install 'translate-seq2seq[tensorboard]', or set it to false"
            ) from error
        self.writer = SummaryWriter(str(run.tensorboard), purge_step=step + 1)

    def draw(self, step: int, **scalars: float | None) -> None:
        """Add one point to each curve."""
        if self.writer is not None:
            for name, value in scalars.items():
                if value is not None:
                    self.writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """Put on disk what was drawn so far; a killed run does not draw again what lies before its checkpoint."""
        if self.writer is not None:
            self.writer.flush()

    def close(self) -> None:
        """Write out what is pending."""
        if self.writer is not None:
            self.writer.close()
