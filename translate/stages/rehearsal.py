"""A training that is begun only to be looked at: its forecast, or its profile. It leaves the run as it was."""

from translate.bar import Bar
from translate.config import Config
from translate.device import resolve_for_training
from translate.run import EventLog, RunDirectory
from translate.stages.tokenization import tokenize
from translate.stages.training import announce, build_learner, compare, feed_of, restore
from translate.text.encoded import data_digest
from translate.text.tokenizer import Tokenizer
from translate.training.checkpoint import Learner, newest_sound
from translate.training.curves import Curves
from translate.training.distributed import Ranks
from translate.training.loop import Loop
from translate.training.micro_batches import MicroBatches, Trial, fitting
from translate.training.progress import Validation
from translate.training.signals import Signals


def rehearsal(config: Config, run: RunDirectory) -> Loop:
    """The loop as `translate train` would begin or go on with it, but for everything that would be written.

    Tokenizes first if need be, which is all that stays.
    """
    saved, _ = newest_sound(run)
    if saved is not None:
        compare(saved, config, run, Ranks())
    tokenize(config, run)
    machine = resolve_for_training(config, run, 1, remember=False)
    learner, objective = build_learner(config, Tokenizer.open(run.tokenizer), machine, Ranks(), fresh=saved is None)
    log = EventLog(run.log_file, mute=True)
    restore(learner, log, saved, run)
    announce(learner, machine, saved, Ranks())
    feed = feed_of(config, run, learner, machine, Ranks())
    micro_batches, trial = MicroBatches(machine, None), Trial(learner, objective, machine)
    first = learner.progress.step + 1
    trial.prove(feed.plan)
    micro_batches.settle(config.train.batch_tokens, first, lambda: fitting(trial, feed.plan, Ranks()))
    facts = {"data_digest": data_digest(run)}
    curves, bar = Curves(run, False, 0), Bar(None, "", "", mute=True)
    parts = (learner, objective, feed, micro_batches, _no_validation, log, facts, curves, Signals(), bar)
    return Loop(run, config, machine, *parts)


def _no_validation(learner: Learner, check: object) -> Validation:
    raise AssertionError("a rehearsal makes updates only")
