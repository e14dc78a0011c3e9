"""What a run's data depend on: the contents of files and the settings of the text."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from translate.config import Config, CorpusConfig
from translate.durable import digest_bytes, digest_file, durable_json
from translate.errors import DataError
from translate.run import RunDirectory
from translate.text.corpus import corpus_names, require_regular, source_files
from translate.text.encoded import LAYOUT
from translate.text.lines import shown
from translate.text.tokenizer import model_files

SPLITS = ("train", "valid", "test")
SETTLED = 3
"""Seconds; the coarsest clock of a file system in use ticks every two."""
WORTHWHILE = 2**24
"""Bytes; a smaller file is read again in no time."""


def split_corpora(config: Config) -> Iterator[tuple[str, list[CorpusConfig]]]:
    """The splits that have text, and their corpora."""
    for split in SPLITS:
        if corpora := getattr(config.data, split):
            yield split, corpora


class Digests:
    """SHA-256 of files; a large one is read again only if it may have changed.

    RUN/data/stamps.json keeps, beside each digest, the file's device, number, size and both its times. A change moves
    the time of the change (ctime), which no program can set. But a second change within one tick of the clock would not
    show: so a file that had changed within SETTLED seconds before it was read is read again the next time.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.path = run.data / "stamps.json"
        self.known = _read_stamps(self.path)
        self.used: dict[str, list[Any]] = {}

    def of(self, path: Path) -> str:
        """The digest of a file's bytes."""
        name, now, stamp = str(path.absolute()), time.time_ns(), _stamp(path)
        if stamp[2] < WORTHWHILE:
            return digest_file(path)
        entry = self.known.get(name)
        if entry is None or entry[:-1] != stamp:
            entry = [*stamp, digest_file(path)]
        if _stamp(path) == stamp and max(stamp[-2:]) < now - SETTLED * 10**9:
            self.used[name] = entry
        return entry[-1]

    def settled(self, path: Path) -> str:
        """`of`, after waiting until the digest can be remembered: seconds once, instead of each time."""
        if path.stat().st_size >= WORTHWHILE:
            age = time.time() - max(path.stat().st_mtime, path.stat().st_ctime)
            time.sleep(min(max(SETTLED + 0.1 - age, 0), SETTLED + 0.1))
        return self.of(path)

    def save(self) -> None:
        """Remember the files that were asked for, and no others."""
        if self.used != self.known:
            durable_json(self.path, self.used)


def _stamp(path: Path) -> list[Any]:
    status = path.stat()
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _read_stamps(path: Path) -> dict[str, list[Any]]:
    try:
        known = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {name: entry for name, entry in known.items() if isinstance(entry, list) and len(entry) == 6}


def inputs_digest(config: Config, run: RunDirectory, digest: Callable[[Path], str] = digest_file) -> str:
    """Digest of all that decides about the data: contents of files, not their paths, and settings of the text."""

    def described(corpus: CorpusConfig) -> dict[str, Any]:
        paths = {"src", "tgt"} if corpus.format == "hub" else {"src", "tgt", "file"}
        return {**corpus.model_dump(exclude=paths), "files": [digest(path) for path in source_files(corpus)]}

    models = [Path(path) for path in ready_models(config, run)]
    for path in models:
        require_regular(path)
    facts = {
        "layout": LAYOUT,
        "data": {split: [described(corpus) for corpus in corpora] for split, corpora in split_corpora(config)},
        "names": {split: corpus_names(corpora) for split, corpora in split_corpora(config)},
        "normalization": config.data.normalization,
        "cleaning": config.data.cleaning.model_dump(),
        "tokenizer": config.tokenizer.model_dump(exclude={"model", "src_model", "tgt_model"}),
        "models": [digest(path) for path in models],
    }
    return digest_bytes(json.dumps(facts, sort_keys=True).encode())


def ready_models(config: Config, run: RunDirectory) -> list[str]:
    """Tokenizer models that are not to be trained: those named, or those of the run whose weights are taken over.

    That run may be gone once this one has begun; then there is a copy of its models here.
    """
    tokenizer = config.tokenizer
    named = [path for path in (tokenizer.model, tokenizer.src_model, tokenizer.tgt_model) if path is not None]
    if named or config.train.init_from is None:
        return named
    origin = RunDirectory(Path(config.train.init_from)).tokenizer
    gone = not origin.exists() and run.tokenizer.exists()
    return [str(path) for path in model_files(run.tokenizer if gone else origin)]


def refuse_overlap(config: Config) -> None:
    """A score on the training file would say nothing."""
    train = {identity for corpus in config.data.train for identity in identities(corpus)}
    for split, corpora in split_corpora(config):
        if split == "train":
            continue
        for corpus in corpora:
            for identity, name in identities(corpus).items():
                if identity in train:
                    raise DataError(f"data.{split} uses the training file {name}; give it text of its own")


def identities(corpus: CorpusConfig) -> dict[tuple[Any, ...], str]:
    """What tells a corpus' files from others, however their paths are spelt -> the name to show."""
    if corpus.format == "hub":
        return {(corpus.file, corpus.subset, corpus.split, corpus.revision): f"{corpus.file} ({corpus.split})"}
    found = [(path, path.stat()) for path in source_files(corpus)]
    return {(status.st_dev, status.st_ino): shown(path) for path, status in found}
