"""A run small enough to train in a second: a made-up language, a config, and a child process to train in."""

import contextlib
import os
import random
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from translate.config import Config
from translate.errors import TranslateError
from translate.run import RunDirectory
from translate.stages.tokenization import tokenize
from translate.text.batches import BatchPlan
from translate.text.encoded import load_split

WORDS = ["나는", "너는", "학생이다", "의사다", "책을", "물을", "읽는다", "마신다", "오늘", "내일", "집에서", "크게"]
TURNED = ["I", "you", "student", "doctor", "book", "water", "read", "drink", "today", "tomorrow", "home", "loud"]


def write_corpus(directory: Path, split: str, count: int, seed: int) -> None:
    """`count` pairs of two to six words; the translation is word by word, backwards."""
    draw = random.Random(seed)
    rows = [[draw.randrange(len(WORDS)) for _ in range(draw.randint(2, 6))] for _ in range(count)]
    src = "".join(" ".join(WORDS[word] for word in row) + "\n" for row in rows)
    tgt = "".join(" ".join(TURNED[word] for word in reversed(row)) + "\n" for row in rows)
    (directory / f"{split}.src").write_text(src, encoding="utf-8")
    (directory / f"{split}.tgt").write_text(tgt, encoding="utf-8")


def tiny_corpus(directory: Path) -> Path:
    """train, valid and test files in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    for seed, (split, count) in enumerate({"train": 90, "valid": 12, "test": 9}.items()):
        write_corpus(directory, split, count, seed)
    return directory


def tiny_config(corpus: Path, **train: object) -> Config:
    """A Transformer of a few thousand weights with dropout, accumulation, EMA and averaging switched on."""
    part = {"kind": "transformer", "layers": 1, "width": 16, "heads": 2, "feed_forward": 32, "dropout": 0.3}
    settings: dict[str, object] = {
        "lr": 1e-2, "warmup": 4, "update_tokens": 120, "batch_tokens": 50, "precision": "fp32", "threads": 1,
        "matmul": "highest", "max_steps": 14, "validate_every": 3, "save_every": 4, "keep_last": 2,
        "average": 2, "ema": 0.9, "validate_sentences": 12, "log_every": 2,
    }  # fmt: skip
    splits = {
        split: [{"src": str(corpus / f"{split}.src"), "tgt": str(corpus / f"{split}.tgt")}]
        for split in ("train", "valid", "test")
    }
    return Config.model_validate(
        {
            "name": "tiny",
            "device": "cpu",
            "data": splits,
            "tokenizer": {"vocab_size": 60, "kind": "bpe", "byte_fallback": False},
            "model": {"encoder": part, "decoder": part},
            "train": settings | train,
            "decode": {"beam": 2, "max_length": 12, "batch_size": 4},
        }
    )


def tiny_plan(root: Path) -> BatchPlan:
    """The updates of the tiny text, which is made and tokenized in `root`."""
    run = RunDirectory(root / "run").create()
    tokenize(tiny_config(tiny_corpus(root / "text")), run)
    return BatchPlan(load_split(run, "train"), 1, 120)


def in_child(work: Callable[[], object], log: Path) -> int:
    """Run `work` in a forked process and return how it ended."""
    return wait_for(child_of(work, log))


def wait_for(child: int) -> int:
    """How a process ended, as `os.waitstatus_to_exitcode` says it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def child_of(work: Callable[[], object], log: Path) -> int:
    """Start `work` in a forked process, and return its number.

    Forking a process that has torch loaded costs milliseconds where a new one costs seconds.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if child == 0:
        code = 70
        with contextlib.suppress(BaseException), log.open("a", encoding="utf-8") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
            sys.stdout = sys.stderr = out
            try:
                work()
                code = 0
            except TranslateError as error:
                out.write(f"error: {error}\n")
                code = error.exit_code
            except BaseException:
                traceback.print_exc(file=out)
        os._exit(code)
    return child


def train_in_child(config: Config, root: Path, prepare: Callable[[], object] = lambda: None) -> int:
    """Train in a forked process after `prepare` has planted whatever a test wants to happen there."""
    from translate.stages.training import train

    def work() -> None:
        prepare()
        train(config, RunDirectory(root))

    return in_child(work, root.parent / f"{root.name}.log")
