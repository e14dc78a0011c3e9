"""Raw text -> tokenizer, encoded arrays, and an account of every pair. Done again only when something changed.

The text is encoded in shards, by as many processes as there are cores, and a shard that is done stays done: whoever is
killed goes on after it. Whatever the number of processes and the size of the shards, the arrays are the same.
"""

import itertools
import json
import shutil
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sentencepiece

from translate.bar import Bar
from translate.config import Config
from translate.config.reader import load_config
from translate.config.rules import differences
from translate.config.writer import dump_config
from translate.durable import (
    creating,
    digest_bytes,
    durable_json,
    durable_text,
    durable_write,
    remove_leftovers,
    sync_directory,
)
from translate.errors import ConfigError, DataError, TranslateError
from translate.run import RunDirectory
from translate.text.cleaning import Account, Cleaner, pair_key
from translate.text.corpus import corpus_names
from translate.text.encoded import LAYOUT, described_files, intact, read_manifest
from translate.text.fingerprint import Digests, identities, inputs_digest, ready_models, refuse_overlap, split_corpora
from translate.text.joining import Finished, join, share_within
from translate.text.lines import line_bytes
from translate.text.shards import Order, Shard, Shelf
from translate.text.split_text import SplitText
from translate.text.tokenizer import Side, Tokenizer, normalize, train_tokenizer
from translate.text.workers import encode_all, workers_for

MOST_PAIRS = 1_000_000
"""Pairs that pieces are learnt from; of more, every second, third, ... is taken."""
MOST_CHARACTERS = 50_000_000
"""Characters, in the same way: SentencePiece holds all it learns from, in about 30 bytes a character."""
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


def tokenize(config: Config, run: RunDirectory) -> TokenizationReport:
    """Make RUN/tokenizer and RUN/data, unless they are there and nothing they depend on has changed.

    Raises DataError (text that cannot be used), MissingInputError (no text), ConfigError (vocabulary too small).
    """
    refuse_overlap(config)
    digests = Digests(run)
    inputs = inputs_digest(config, run, digests.of)
    manifest = read_manifest(run)
    shelf = Shelf(run.data, digest_bytes(json.dumps([inputs, _versions()], sort_keys=True).encode()))
    if manifest is not None and manifest.get("inputs") == inputs and _is_whole(run, manifest, digests):
        shelf.clear()
        digests.save()
        return TokenizationReport(run.manifest, True, _summary(run, manifest))
    if run.checkpoint_list.exists() and run.config_file.exists():
        refuse_changes(load_config(run.config_file), config, run)
    _clear(run)
    scratch = run.data / "scratch"
    try:
        splits = [SplitText(name, corpora, scratch) for name, corpora in split_corpora(config)]
        made = _make(config, run, splits, shelf, digests)
    except DataError:
        shelf.clear()  # what cannot be used is of no use later
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    manifest = {"layout": LAYOUT, "inputs": inputs, **made}
    if not run.checkpoint_list.exists():  # once there is a model, only training may change the run's settings
        keep_config(run, config)
    durable_json(run.manifest, manifest)
    shelf.clear()
    digests.save()
    return TokenizationReport(run.manifest, False, _summary(run, manifest))


def _versions() -> dict[str, str]:
    return {"sentencepiece": sentencepiece.__version__, "unicode": unicodedata.unidata_version}


def _clear(run: RunDirectory) -> None:
    """From here on there is no data, until the new manifest is written."""
    with creating(run.data):
        run.data.mkdir(parents=True, exist_ok=True)
        for directory in (run.tokenizer, run.data, *run.data.iterdir()):
            remove_leftovers(directory)
        run.manifest.unlink(missing_ok=True)
        sync_directory(run.data)


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


def _is_whole(run: RunDirectory, manifest: dict[str, Any], digests: Digests) -> bool:
    try:
        if Tokenizer.open(run.tokenizer).digest != manifest["tokenizer"]["digest"]:
            return False
    except TranslateError:
        return False
    return all(intact(run, split["files"], digests.of) for split in manifest["splits"].values())


# Making it


def _make(config: Config, run: RunDirectory, splits: list[SplitText], shelf: Shelf, digests: Digests) -> dict[str, Any]:
    """Everything but the manifest, and what goes into it."""
    tokenizer, warnings = _settle(config, run, splits, shelf)
    finished = _encode(config, run, splits, tokenizer, shelf)
    with Bar(sum(sum(split.counts) for split in splits), "arrays", "pairs") as bar:
        made = {split.name: _join(config, run, split, finished[split.name], bar, digests) for split in splits}
    for split in splits[1:]:
        made[split.name]["files"] |= described_files(run, _keep_raw(run, split), digests.settled)
    return {
        "tokenizer": {
            "kind": config.tokenizer.kind if not ready_models(config, run) else "ready-made",
            "digest": tokenizer.digest,
            "joint": tokenizer.joint,
            "src_size": tokenizer.src_size,
            "tgt_size": tokenizer.tgt_size,
        },
        "splits": made,
        "warnings": [*warnings, *_leaks(finished), *_same_text(config)],
        "versions": _versions(),
    }


def _settle(config: Config, run: RunDirectory, splits: list[SplitText], shelf: Shelf) -> tuple[Tokenizer, list[str]]:
    """Count the pairs and get the tokenizer, unless a run that was killed had come further; with warnings."""
    if (begun := shelf.begun()) is not None:
        try:
            tokenizer = Tokenizer.open(run.tokenizer)
        except TranslateError:
            tokenizer = None
        if tokenizer is not None and tokenizer.digest == begun["tokenizer"]:
            for split in splits:
                split.counts = begun["counts"][split.name]
            return tokenizer, begun["warnings"]
    for split in splits:
        split.count()
    tokenizer, warnings = _obtain_tokenizer(config, run, splits[0])
    tokenizer.save(run.tokenizer)
    counts = {split.name: split.counts for split in splits}
    shelf.begin({"counts": counts, "tokenizer": tokenizer.digest, "warnings": warnings})
    return tokenizer, warnings


def _encode(
    config: Config, run: RunDirectory, splits: list[SplitText], tokenizer: Tokenizer, shelf: Shelf
) -> dict[str, list[Finished]]:
    """Put every shard that is not there on the shelf -> the shards of each split, in their order."""
    finished: dict[str, list[Finished]] = {split.name: [] for split in splits}
    total = sum(sum(split.counts) for split in splits)
    made_with = tokenizer.digest

    def missing() -> Iterator[tuple[Shard, Order]]:
        said = False
        for split in splits:
            for k, number, shard in split.shards():
                order = _order(config, split, shelf.path(split.name, k, number), f"{made_with} {shard.digest()}")
                finished[split.name].append(Finished(k, order.path, shard.places))
                if not shelf.holds(order):
                    yield shard, order
                    continue
                bar.skip(shard.count)
                if not said:
                    bar.note("tokenize: going on after the shards that were finished before")
                    said = True

    with Bar(total, "tokenize", "pairs") as bar:
        encode_all(missing(), run.tokenizer, workers_for(total), bar.advance)
    return finished


def _order(config: Config, split: SplitText, path: Path, key: str) -> Order:
    """Only training text is cleaned, and only it may be segmented anew each epoch."""
    training = split.name == "train"
    return Order(path, key, config.data.cleaning if training else None, training and config.tokenizer.sampling > 0)


def _leaks(finished: dict[str, list[Finished]]) -> Iterator[str]:
    for name, shards in finished.items():
        if name != "train" and (share := share_within(shards, finished["train"])) > LEAK:
            yield f"{share:.1%} of the pairs of data.{name} are in the training text too: its scores will flatter"


def _same_text(config: Config) -> Iterator[str]:
    for split, corpora in split_corpora(config):
        for corpus in corpora:
            if corpus.format == "text" and len(identities(corpus)) == 1:
                yield f"data.{split}: source and target are one file, {corpus.src}"


def _obtain_tokenizer(config: Config, run: RunDirectory, train: SplitText) -> tuple[Tokenizer, list[str]]:
    form = config.data.normalization
    if ready := ready_models(config, run):
        return Tokenizer.from_files(Path(ready[0]), Path(ready[1]) if len(ready) > 1 else None, form), []
    total = sum(train.counts)
    stride = max(-(-total // MOST_PAIRS), -(-train.characters // MOST_CHARACTERS))
    longest = LONGEST_PIECE * config.data.cleaning.max_length

    def text(sides: tuple[Side, ...]) -> Iterator[str]:
        cleaner, seen = Cleaner(config.data.cleaning), set[bytes]()
        for pair in itertools.islice(train.read_all(), 0, None, stride):
            src, tgt = normalize(pair.src, form), normalize(pair.tgt, form)
            key = pair_key(src, tgt)
            if max(len(src), len(tgt)) > longest or cleaner.judge_text(src, tgt) is not None or key in seen:
                continue
            if not config.data.cleaning.keep_duplicates:
                seen.add(key)
            lines = {"src": src, "tgt": tgt}
            yield from (lines[side] for side in sides)

    tokenizer, messages = train_tokenizer(text, config.tokenizer, form)
    if stride > 1:
        messages.append(f"pieces were learnt from one pair in {stride} of {total:,}")
    return tokenizer, messages


def _join(
    config: Config, run: RunDirectory, split: SplitText, shards: list[Finished], bar: Bar, digests: Digests
) -> dict[str, Any]:
    """Write the arrays of a split -> its part of the manifest."""
    training = split.name == "train"
    names = corpus_names(split.corpora)
    drop_repeated = training and not config.data.cleaning.keep_duplicates
    joined, paths = join(shards, names, run.data / split.name, bar.advance, drop_repeated=drop_repeated)
    accounts = [corpus.account for corpus in joined]
    if not any(account.kept for account in accounts):
        table = "; ".join(f"{account.name}: {account.summary()}" for account in accounts)
        raise DataError(f"data.{split.name}: no pair is left after cleaning ({table}); see data.cleaning")
    corpora = [made.facts(corpus.weight) for made, corpus in zip(joined, split.corpora, strict=True)]
    sampling = config.tokenizer.sampling if training else 0.0
    return {"corpora": corpora, "sampling": sampling, "files": described_files(run, paths, digests.settled)}


def _keep_raw(run: RunDirectory, split: SplitText) -> list[Path]:
    """Copy the text of a scored split into the run, lines untouched: scores are taken on it."""
    paths = []
    for k in range(len(split.corpora)):
        src, tgt = (run.data / f"{split.name}.{k}.{side}" for side in ("src", "tgt"))
        durable_write(src, line_bytes(pair.src for pair in split.read(k)))
        durable_write(tgt, line_bytes(pair.tgt for pair in split.read(k)))
        paths += [src, tgt]
    return paths


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
