"""How far a run has come: everything with a history that is not a tensor."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from translate.config import TrainConfig
from translate.text.batches import Turn


@dataclass
class Validation:
    """One look at the validation text."""

    step: int
    loss: float
    """Negative log-likelihood in nats a target token."""
    bleu: float | None
    """sacreBLEU of greedy translations, if any were made."""

    def score(self, best: str) -> float:
        """What `train.best` compares, higher is better. NaN never wins."""
        value = -self.loss if best == "loss" or self.bleu is None else self.bleu
        return -math.inf if math.isnan(value) else value


@dataclass
class Progress:
    """Where the run stands after `step` updates."""

    step: int = 0
    turn: Turn = Turn()  # noqa: RUF009 - a constant
    """The next update of the data's plan."""
    tokens: int = 0
    """Real target tokens learnt from so far."""
    seconds: float = 0.0
    """Training time so far, interruptions not counted."""
    logged_loss: float = 0.0
    """Loss summed since the last log line."""
    logged_tokens: int = 0
    """Tokens since the last log line."""
    validations: list[Validation] = field(default_factory=list)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Undo `to_json`."""
        validations = [Validation(**entry) for entry in value["validations"]]
        return cls(**{**value, "turn": Turn(*value["turn"]), "validations": validations})

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def scores(self, best: str) -> list[tuple[int, float]]:
        """(step, score) of every validation, higher is better."""
        return [(validation.step, validation.score(best)) for validation in self.validations]

    def best_step(self, best: str) -> int | None:
        """The step of the best validation; of equals the one with the lower loss, then the earlier one."""
        ranked = sorted(self.validations, key=lambda one: (-one.score(best), -one.score("loss"), one.step))
        return ranked[0].step if ranked else None

    def validated(self) -> bool:
        """Whether this very step has been validated."""
        return bool(self.validations) and self.validations[-1].step == self.step

    def waited(self, best: str) -> int:
        """Validations in a row without a new best."""
        best_step = self.best_step(best)
        return sum(validation.step > best_step for validation in self.validations) if best_step is not None else 0

    def stop_reason(self, train: TrainConfig) -> str | None:
        """Why training is over at this point, or None."""
        if train.max_steps is not None and self.step >= train.max_steps:
            return f"train.max_steps ({train.max_steps}) reached"
        if train.max_epochs is not None and self.turn.epoch >= train.max_epochs:
            return f"train.max_epochs ({train.max_epochs}) reached"
        if train.max_minutes is not None and self.seconds >= 60 * train.max_minutes:
            return f"train.max_minutes ({train.max_minutes:g}) reached"
        if train.patience is not None and self.waited(train.best) >= train.patience:
            return f"{train.patience} validations without a better one (train.patience)"
        return None
