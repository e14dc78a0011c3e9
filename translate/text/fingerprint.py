"""What a run's data depend on: the contents of files and the settings of the text."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from translate.config import Config, CorpusConfig
from translate.durable import digest_bytes, digest_file
from translate.errors import DataError
from translate.run import RunDirectory
from translate.text.corpus import corpus_names, require_regular, source_files
from translate.text.encoded import LAYOUT
from translate.text.lines import shown
from translate.text.tokenizer import model_files

SPLITS = ("train", "valid", "test")


def split_corpora(config: Config) -> Iterator[tuple[str, list[CorpusConfig]]]:
    """The splits that have text, and their corpora."""
    for split in SPLITS:
        if corpora := getattr(config.data, split):
            yield split, corpora


def inputs_digest(config: Config, run: RunDirectory) -> str:
    """Digest of all that decides about the data: contents of files, not their paths, and settings of the text."""

    def described(corpus: CorpusConfig) -> dict[str, Any]:
        paths = {"src", "tgt"} if corpus.format == "hub" else {"src", "tgt", "file"}
        return {**corpus.model_dump(exclude=paths), "files": [digest_file(path) for path in source_files(corpus)]}

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
        "models": [digest_file(path) for path in models],
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
