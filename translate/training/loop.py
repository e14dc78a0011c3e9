"""The training loop: validate, save, stop or update, in an order one can see.

Data order, dropout and learning rate are functions of (seed, step) and the recorded history, so a run that was killed
anywhere and started again ends with the same bits as one that never was.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from translate.bar import Bar, duration
from translate.config import Config
from translate.device import Machine
from translate.errors import DataError, Interrupted, TryAgainError, is_out_of_memory
from translate.run import EventLog, RunDirectory
from translate.training.checkpoint import Learner, save_checkpoint
from translate.training.curves import Curves
from translate.training.distributed import Ranks, whole
from translate.training.feed import Fed, Feed
from translate.training.guard import LEAST, Guard
from translate.training.micro_batches import MicroBatches
from translate.training.optimizer import set_lr
from translate.training.progress import Validation
from translate.training.schedule import lr_at
from translate.training.signals import Signals

Validate = Callable[[Learner, Callable[[], None]], Validation]
"""Looks at the validation text; calls its second argument often, which raises when a signal has come."""
READ_TOGETHER = {"cpu": 1, "cuda": 20}
"""Updates whose losses are read from the device together: reading one waits until the device has nothing left to do."""


@dataclass(frozen=True)
class Reading:
    """What the device knows of an update, not read yet."""

    step: int
    tokens: int
    loss: Tensor
    """Summed over this rank's tokens."""
    norm: Tensor
    """Of the gradient."""


@dataclass
class Loop:
    """A run in training: what it learns with, and where it is written."""

    run: RunDirectory
    config: Config
    machine: Machine
    learner: Learner
    objective: nn.Module
    """The `Objective` of the learner's model, as all ranks train it."""
    feed: Feed
    micro_batches: MicroBatches
    validate: Validate
    log: EventLog
    facts: dict[str, str]
    """Further metadata of checkpoints: data digest."""
    curves: Curves
    signals: Signals
    bar: Bar
    ranks: Ranks = Ranks()  # noqa: RUF009 - a constant
    heard: int | None = None
    """The signal that any rank had got when the clocks were last compared."""
    unread: list[Reading] = field(default_factory=list)
    saved: tuple[int, int] = (0, 0)
    """Step and number of validations of the newest checkpoint."""
    rate: float = 0.0
    """Target tokens a second, lately."""
    unrated: list[tuple[int, float]] = field(default_factory=list)
    """Tokens and seconds of updates that the device may still be at work on."""
    mean: float = math.nan
    """Loss a token, of the updates since the last line of the log that were read, or of those before it."""
    norm: float = 0.0
    """Of the last gradient that was read."""
    taken: bool = False
    """Whether the present update has begun to change the weights."""
    clock: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.progress = self.learner.progress
        self.saved = self.position()
        self.saved_at = self.progress.seconds
        self.guard = Guard(self.learner.optimizer, self.learner.scale)

    def train(self) -> str:
        """Go on until there is a reason to stop, and return it. Raises Interrupted after saving, on a signal."""
        try:
            while True:
                reason = self.progress.stop_reason(self.config.train)
                if self.validation_due(reason):
                    self.catch_up()
                    self.note_validation(self.validate(self.learner, self.signals.check))
                    reason = reason or self.progress.stop_reason(self.config.train)
                if self.save_due(reason):
                    self.save(scheduled=reason is not None or self.progress.step % self.config.train.save_every == 0)
                if reason is not None:
                    self.log.append("finished", step=self.progress.step, reason=reason)
                    return reason
                self.signals.raise_for(self.heard)
                self.next_update()
        except Interrupted:
            if self.saved != self.position():
                self.save(scheduled=False)
            raise

    def position(self) -> tuple[int, int]:
        """What `saved` is compared with."""
        return self.progress.step, len(self.progress.validations)

    def validation_due(self, reason: str | None) -> bool:
        """Every `validate_every` updates and at the end, once a step."""
        due = self.progress.step % self.config.train.validate_every == 0 or reason is not None
        return due and self.progress.step > 0 and not self.progress.validated()

    def save_due(self, reason: str | None) -> bool:
        """Every `save_every` updates, at a new best, at the end, and when `save_minutes` have passed."""
        train, step = self.config.train, self.progress.step
        if self.saved == self.position() or step == 0:
            return False
        new_best = self.progress.validated() and self.progress.best_step(train.best) == step
        waited = self.progress.seconds - self.saved_at >= 60 * train.save_minutes
        return step % train.save_every == 0 or new_best or reason is not None or waited

    def save(self, *, scheduled: bool) -> None:
        """Write a checkpoint that remembers how far the log had come."""
        self.catch_up()
        self.tick()
        self.curves.flush()
        facts = {**self.facts, "log": json.dumps(self.log.position()), "ranks": str(self.ranks.count)}
        save_checkpoint(self.run, self.learner, self.config, facts, scheduled=scheduled, write=self.ranks.first)
        self.ranks.wait()  # a rank that went on, or left, would have the first one end before it has written
        self.saved = self.position()
        self.saved_at = self.progress.seconds

    def tick(self) -> None:
        """Count the time since the last tick as training time; all ranks agree on it, and on whether to stop."""
        now = time.monotonic()
        seconds = self.progress.seconds + now - self.clock
        self.clock = now
        self.progress.seconds, heard = self.ranks.most(seconds, self.signals.received or 0)
        self.heard = int(heard) or None

    def check(self) -> None:
        """Leave an update at once on a signal, unless other ranks would wait for this one: then where all agree."""
        if self.ranks.count == 1:
            self.signals.check()

    def note_validation(self, validation: Validation) -> None:
        """Record what the validation text said."""
        self.progress.validations.append(validation)
        best = self.progress.best_step(self.config.train.best) == validation.step
        bleu = None if validation.bleu is None else round(validation.bleu, 4)
        self.log.append("validation", step=validation.step, loss=validation.loss, bleu=bleu, best=best)
        self.curves.draw(validation.step, validation_loss=validation.loss, validation_bleu=bleu)
        shown = "" if bleu is None else f", BLEU {bleu:.2f}"
        self.tick()
        self.bar.note(
            f"step {validation.step}: validation loss {validation.loss:.4f} (perplexity "
            f"{math.exp(min(validation.loss, 50)):.2f}){shown}{', the best so far' if best else ''} "
            f"[{duration(self.progress.seconds)}]"
        )

    def next_update(self) -> None:
        """One update, or none if memory runs out: then the same one comes again, in smaller micro-batches."""
        step = self.progress.step + 1
        tokens = self.micro_batches.at(step)
        fed = self.feed.update(self.progress.turn, tokens)
        try:
            self.update(fed)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        else:
            if self.micro_batches.changes(step):
                self.log.append("memory", step=step, batch_tokens=tokens)
            return
        self.halve(step, fed)  # here, where the error no longer holds on to what filled the memory

    def halve(self, step: int, fed: Fed) -> None:
        """Take smaller micro-batches from this update on; ends the run where the update cannot be done again."""
        self.learner.optimizer.zero_grad(set_to_none=True)
        if self.machine.device == "cuda":
            torch.cuda.empty_cache()
        if fed.pairs <= 1:
            raise TryAgainError(
                f"step {step}: out of memory with one pair at a time; make room, or set train.recompute to true, or "
                "choose a smaller model"
            )
        tokens = self.micro_batches.halve(step, fed.largest)
        if self.taken or self.ranks.count > 1:  # the weights may be new already; the others wait for our gradients
            raise TryAgainError(
                f"step {step}: out of memory; the same command goes on from the last checkpoint, from this step on "
                f"with micro-batches of {tokens} target tokens"
            )
        self.bar.note(
            f"step {step}: out of memory; from here on micro-batches of {tokens} target tokens, in updates as large as "
            "ever"
        )

    def update(self, fed: Fed) -> None:
        """One optimizer step on the micro-batches of an update. A signal or a bad loss leaves the weights alone."""
        learner, step, started = self.learner, self.progress.step + 1, time.monotonic()
        self.taken = False
        self.objective.train()
        learner.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), dtype=torch.float64, device=self.machine.device)
        for place, batch in fed.parts:
            self.check()
            learner.model.key_randomness(self.config.seed, step, place)
            with self.machine.autocast(), self.ranks.exchange(self.objective, now=place == fed.parts[-1][0]):
                loss, _ = self.objective(batch)
                # Ranks take the mean of their gradients.
                (self.guard.scaled(loss) * self.ranks.count / fed.tokens).backward()
            total += loss.detach()
            del loss  # and what its backward pass kept
        norm = self.gradient_norm()
        self.unread.append(Reading(step, fed.tokens, total, norm))
        if len(self.unread) >= READ_TOGETHER[self.machine.device] or step % self.config.train.log_every == 0:
            self.read()
        lr = lr_at(step, self.config.train, learner.model.decoder.width, self.progress.scores(self.config.train.best))
        set_lr(learner.optimizer, lr)
        self.taken = True
        self.guard.stop(total, norm)
        learner.optimizer.step()
        if learner.ema is not None:
            learner.ema.update(learner.model, step)
        self.advance(fed, lr, time.monotonic() - started)

    def gradient_norm(self) -> Tensor:
        """Clip the gradient, and return the norm it had."""
        parameters = list(self.learner.model.parameters())
        if self.guard.scale is not None:
            self.guard.scale.divide(p.grad for p in parameters if p.grad is not None)
        return whole(nn.utils.clip_grad_norm_(parameters, self.config.train.clip or math.inf, foreach=True))

    def read(self) -> None:
        """Take in what the device knows of the updates since the last time. Raises DataError if one was not made."""
        if not self.unread:
            return
        losses = self.ranks.total(*(float(reading.loss) for reading in self.unread))
        for reading, loss in zip(self.unread, losses, strict=True):
            norm = float(reading.norm)
            self.refuse_nonfinite(reading.step, loss / reading.tokens, norm)
            if math.isfinite(norm):
                self.norm = norm
            self.progress.logged_loss += loss
            self.progress.logged_tokens += reading.tokens
        self.unread.clear()

    def catch_up(self) -> None:
        """Read between two updates; what the device still had to do belongs to them."""
        if self.unread:
            started = time.monotonic()
            self.read()
            self.unrated.append((0, time.monotonic() - started))

    def refuse_nonfinite(self, step: int, loss: float, norm: float) -> None:
        """Stop before the update when the loss or the gradient is not a number.

        In fp16 a gradient may be too large for the scale of the loss: then the update was left out, and all goes on.
        """
        scale = self.guard.scale
        if math.isfinite(loss) and (math.isfinite(norm) or (scale is not None and float(scale.scale) >= LEAST)):
            return
        newest = f"the newest checkpoint is of step {self.saved[0]}" if self.saved[0] else "there is no checkpoint yet"
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the norm of the gradient is {norm}"
        self.log.append("nonfinite", step=step, loss=str(loss), grad_norm=str(norm))
        raise DataError(
            f"step {step}: {what}, so the update was not made; {newest}. Try a lower train.lr, a longer train.warmup, "
            "a smaller train.clip, or train.precision=fp32"
        )

    def advance(self, fed: Fed, lr: float, seconds: float) -> None:
        """Move on to the next update of the plan and tell about this one."""
        progress = self.progress
        step = progress.step = progress.step + 1
        progress.tokens += fed.tokens
        progress.turn = fed.after
        self.tick()
        self.unrated.append((fed.tokens, seconds))
        if not self.unread:
            self.note_rate()
        if progress.logged_tokens:
            self.mean = progress.logged_loss / progress.logged_tokens
        shown = {
            "loss": "-" if math.isnan(self.mean) else f"{self.mean:.3f}",
            "lr": f"{lr:.2e}",
            "tokens_per_second": f"{self.rate:,.0f}",
        }
        if self.config.train.max_minutes is not None:
            shown["training_ends_in"] = duration(max(0.0, 60 * self.config.train.max_minutes - progress.seconds))
        self.bar.advance(1, **shown)
        if step % self.config.train.log_every == 0:
            figures = {"loss": self.mean, "lr": lr, "grad_norm": self.norm, "tokens_per_second": round(self.rate)}
            self.log.append("update", step=step, epoch=progress.turn.epoch, tokens=progress.tokens, **figures)
            self.curves.draw(step, **figures)
            progress.logged_loss, progress.logged_tokens = 0.0, 0

    def note_rate(self) -> None:
        """Let the updates up to the last reading move the running average of the speed."""
        tokens, seconds = map(sum, zip(*self.unrated, strict=True))
        kept = 0.95 ** len(self.unrated) if self.rate else 0.0
        self.rate = kept * self.rate + (1 - kept) * tokens / seconds
        self.unrated.clear()
