"""Raw text -> tokenizer, encoded arrays, and an account of every pair. Done again only when something changed."""

import itertools
import shutil
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from translate.bar import Bar
from translate.config import Config, CorpusConfig
from translate.config.reader import load_config
from translate.config.rules import differences
from translate.config.writer import dump_config
from translate.durable import creating, durable_json, durable_text, durable_write, remove_leftovers, sync_directory
from translate.errors import ConfigError, DataError, TranslateError
from translate.run import RunDirectory
from translate.text.cleaning import Account, Cleaner, pair_key
from translate.text.corpus import Pair, corpus_names, read_pairs
from translate.text.encoded import (
    LAYOUT,
    LINES_AT_ONCE,
    SplitWriter,
    described_files,
    encode_pairs,
    intact,
    read_manifest,
)
from translate.text.fingerprint import identities, inputs_digest, ready_models, refuse_overlap, split_corpora
from translate.text.lines import line_bytes, shown
from translate.text.tokenizer import Side, Tokenizer, normalize, train_tokenizer

MOST_PAIRS = 5_000_000
"""Pairs that pieces are learnt from; of more, every second, third, ... is taken."""
LONGEST_PIECE = 16
"""Characters of the longest piece that training makes: a text with more than this for each piece allowed is dropped
later on for sure, and would only slow the learning of pieces down."""
LEAK = 0.01
"""Share of validation or test pairs in the training text from which on the report warns."""


@dataclass
class TokenizationReport:
    """What the stage made, or found made."""

    manifest: Path
    skipped: bool
    """Nothing had changed, so nothing was done."""
    lines: list[str] = field(default_factory=list)
    """The account and the places, for the user."""

    def summary(self) -> list[str]:
        """A few lines for the user."""
        state = ["text and tokenizer: unchanged since the last time"] if self.skipped else []
        run = self.manifest.parent.parent
        return [*state, *self.lines, f"next: translate train --run {run}"]


@dataclass
class _Split:
    """The text of one split, read several times."""

    name: str
    corpora: list[CorpusConfig]
    scratch: Path
    counts: list[int] = field(default_factory=list)
    """Pairs of each corpus, found by the first reading."""

    def count(self) -> None:
        """Read everything once, so that whatever is wrong with the text is found before any work is done."""
        for name, corpus in zip(corpus_names(self.corpora), self.corpora, strict=True):
            blank = count = 0
            for pair in read_pairs(corpus, self.scratch):
                count += 1
                blank += not pair.tgt.strip()
            where = f"data.{self.name}: corpus {name} ({shown(Path(corpus.src or corpus.file or ''))})"
            if count == 0:
                raise DataError(f"{where} is empty; expected at least one pair")
            if blank == count:
                raise DataError(f"{where} has only blank lines on its target side; expected translations")
            self.counts.append(count)

    def read(self, k: int) -> Iterator[Pair]:
        """The pairs of corpus k. Raises DataError when they are not as many as the first time."""
        number = 0
        for pair in read_pairs(self.corpora[k], self.scratch):
            number += 1
            yield pair
        if number != self.counts[k]:
            name = corpus_names(self.corpora)[k]
            raise DataError(f"data.{self.name}: corpus {name} changed while it was read; run the same command again")

    def read_all(self) -> Iterator[Pair]:
        """The pairs of all corpora, one after the other."""
        for k in range(len(self.corpora)):
            yield from self.read(k)


def tokenize(config: Config, run: RunDirectory) -> TokenizationReport:
    """Make RUN/tokenizer and RUN/data, unless they are there and nothing they depend on has changed.

    Raises DataError (text that cannot be used), MissingInputError (no text), ConfigError (vocabulary too small).
    """
    refuse_overlap(config)
    inputs = inputs_digest(config, run)
    manifest = read_manifest(run)
    if manifest is not None and manifest.get("inputs") == inputs and _is_whole(run, manifest):
        return TokenizationReport(run.manifest, True, _summary(run, manifest))
    if run.checkpoint_list.exists() and run.config_file.exists():
        refuse_changes(load_config(run.config_file), config, run)
    with creating(run.data):
        run.data.mkdir(parents=True, exist_ok=True)
        remove_leftovers(run.data)
        run.manifest.unlink(missing_ok=True)  # from here on there is no data, until the new manifest is written
        sync_directory(run.data)
    scratch = run.data / "scratch"
    try:
        made = _make(config, run, [_Split(name, corpora, scratch) for name, corpora in split_corpora(config)])
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    manifest = {"layout": LAYOUT, "inputs": inputs, **made}
    durable_json(run.manifest, manifest)
    if not run.checkpoint_list.exists():  # once there is a model, only training may change the run's settings
        keep_config(run, config)
    return TokenizationReport(run.manifest, False, _summary(run, manifest))


def keep_config(run: RunDirectory, config: Config) -> None:
    """Write the run's settings down, every default filled in, unless they stand there already."""
    text = dump_config(config)
    if not run.config_file.exists() or run.config_file.read_text(encoding="utf-8") != text:
        durable_text(run.config_file, text)


def refuse_changes(before: Config, now: Config, run: RunDirectory) -> None:
    """Raise ConfigError if settings differ that a run with checkpoints must keep."""
    refused = differences(before, now).refused
    if refused:
        raise ConfigError(
            "\n".join(
                [
                    f"run {run.root}: was trained with other settings:",
                    *(f"  {line}" for line in refused),
                    "take them back, choose another --run, or start a new run from these weights with "
                    f"train.init_from: {run.root}",
                ]
            )
        )


def _is_whole(run: RunDirectory, manifest: dict[str, Any]) -> bool:
    try:
        if Tokenizer.open(run.tokenizer).digest != manifest["tokenizer"]["digest"]:
            return False
    except TranslateError:
        return False
    return all(intact(run, split["files"]) for split in manifest["splits"].values())


# Making it


def _make(config: Config, run: RunDirectory, splits: list[_Split]) -> dict[str, Any]:
    """Everything but the manifest, and what goes into it."""
    form = config.data.normalization
    for split in splits:
        split.count()
    train, scored = splits[0], splits[1:]
    tokenizer, warnings = _obtain_tokenizer(config, run, train)
    tokenizer.save(run.tokenizer)
    keys = {
        split.name: {pair_key(normalize(p.src, form), normalize(p.tgt, form)) for p in split.read_all()}
        for split in scored
    }
    cleaner = Cleaner(config.data.cleaning, watched=set().union(*keys.values()))
    with Bar(sum(sum(split.counts) for split in splits), "tokenize", "pairs") as bar:
        made = {"train": _encode(run, train, tokenizer, cleaner, config.tokenizer.sampling, bar)}
        for split in scored:
            made[split.name] = _encode(run, split, tokenizer, None, 0.0, bar)
            made[split.name]["files"] |= _keep_raw(run, split)
    return {
        "tokenizer": {
            "kind": config.tokenizer.kind if not ready_models(config, run) else "ready-made",
            "digest": tokenizer.digest,
            "joint": tokenizer.joint,
            "src_size": tokenizer.src_size,
            "tgt_size": tokenizer.tgt_size,
        },
        "splits": made,
        "warnings": [*warnings, *_leaks(keys, cleaner.found), *_same_text(config)],
        "versions": {"sentencepiece": sentencepiece.__version__, "unicode": unicodedata.unidata_version},
    }


def _leaks(keys: dict[str, set[bytes]], found: set[bytes]) -> Iterator[str]:
    for name, known in keys.items():
        share = len(known & found) / len(known)
        if share > LEAK:
            yield f"{share:.1%} of the pairs of data.{name} are in the training text too: its scores will flatter"


def _same_text(config: Config) -> Iterator[str]:
    for split, corpora in split_corpora(config):
        for corpus in corpora:
            if corpus.format == "text" and len(identities(corpus)) == 1:
                yield f"data.{split}: source and target are one file, {corpus.src}"


def _obtain_tokenizer(config: Config, run: RunDirectory, train: _Split) -> tuple[Tokenizer, list[str]]:
    form = config.data.normalization
    if ready := ready_models(config, run):
        return Tokenizer.from_files(Path(ready[0]), Path(ready[1]) if len(ready) > 1 else None, form), []
    total = sum(train.counts)
    stride = -(-total // MOST_PAIRS)
    longest = LONGEST_PIECE * config.data.cleaning.max_length

    def text(sides: tuple[Side, ...]) -> Iterator[str]:
        cleaner = Cleaner(config.data.cleaning)
        for pair in itertools.islice(train.read_all(), 0, None, stride):
            lines = {"src": normalize(pair.src, form), "tgt": normalize(pair.tgt, form)}
            if max(map(len, lines.values())) <= longest and cleaner.judge_text(lines["src"], lines["tgt"]) is None:
                yield from (lines[side] for side in sides)

    tokenizer, messages = train_tokenizer(text, config.tokenizer, form)
    if stride > 1:
        messages.append(f"pieces were learnt from one pair in {stride} of {total:,}")
    return tokenizer, messages


def _encode(
    run: RunDirectory,
    split: _Split,
    tokenizer: Tokenizer,
    cleaner: Cleaner | None,
    sampling: float,
    bar: Bar,
) -> dict[str, Any]:
    """Write the arrays of a split, cleaned if there is a cleaner -> its part of the manifest."""
    accounts = [Account(name) for name in corpus_names(split.corpora)]
    corpora: list[dict[str, Any]] = []
    with SplitWriter(run.data / split.name, tokenizer, keep_text=sampling > 0) as writer:
        for k, account in enumerate(accounts):
            tokens = np.zeros(2, dtype=np.int64)
            pairs = split.read(k)
            while chunk := list(itertools.islice(pairs, LINES_AT_ONCE)):
                rows = encode_pairs(chunk, tokenizer, cleaner, account)
                tokens += [sum(len(row.src) for row in rows), sum(len(row.tgt) for row in rows)]
                writer.add(rows)
                bar.advance(len(chunk))
            account.close()
            known = {"weight": split.corpora[k].weight, "src_pieces": int(tokens[0]), "tgt_pieces": int(tokens[1])}
            corpora.append({**account.facts(), **known})
        if not any(account.kept for account in accounts):
            table = "; ".join(f"{account.name}: {account.summary()}" for account in accounts)
            raise DataError(f"data.{split.name}: no pair is left after cleaning ({table}); see data.cleaning")
        return {"corpora": corpora, "sampling": sampling, "files": described_files(run, writer.close())}


def _keep_raw(run: RunDirectory, split: _Split) -> dict[str, dict[str, Any]]:
    """Copy the text of a scored split into the run, lines untouched: scores are taken on it."""
    paths = []
    for k in range(len(split.corpora)):
        src, tgt = (run.data / f"{split.name}.{k}.{side}" for side in ("src", "tgt"))
        durable_write(src, line_bytes(pair.src for pair in split.read(k)))
        durable_write(tgt, line_bytes(pair.tgt for pair in split.read(k)))
        paths += [src, tgt]
    return described_files(run, paths)


def _summary(run: RunDirectory, manifest: dict[str, Any]) -> list[str]:
    lines = []
    for split, facts in manifest["splits"].items():
        for corpus in facts["corpora"]:
            label = f"{split} ({corpus['name']})" if len(facts["corpora"]) > 1 else split
            line = f"{label}: {Account.of(corpus).summary()}"
            if kept := corpus["kept"]:
                src, tgt = corpus["src_pieces"] / kept, corpus["tgt_pieces"] / kept
                line += f"; {src:.1f} source and {tgt:.1f} target pieces a sentence"
            lines.append(line)
    tokenizer = manifest["tokenizer"]
    sizes = f"{tokenizer['src_size']:,} pieces for both sides"
    if not tokenizer["joint"]:
        sizes = f"{tokenizer['src_size']:,} source and {tokenizer['tgt_size']:,} target pieces"
    lines.append(f"tokenizer: {tokenizer['kind']}, {sizes}, in {run.tokenizer}")
    lines += [f"warning: {warning}" for warning in manifest["warnings"]]
    lines.append(f"data: {run.data} ({run.manifest.name} has the counts and the first places of each reason)")
    return lines
