"""Wrong inputs as a table: each row is what is wrong, a command, its exit code and what its message must say.

Every row also asserts that there is no traceback, that the message is one `error:`, that no file that was there before
has changed, and that nothing new was left behind but the run directory a command had begun to make.
"""

import gzip
import io
import json
import os
import pickle
import shlex
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from tests.tiny import tiny_corpus
from translate.__main__ import main
from translate.durable import digest_file
from translate.run import RunDirectory

CONFIG = """\
device: cpu
data:
  train:
    - src: corpus/train.src
      tgt: corpus/train.tgt
  valid:
    - src: corpus/valid.src
      tgt: corpus/valid.tgt
  test:
    - src: corpus/test.src
      tgt: corpus/test.tgt
tokenizer:
  vocab_size: 60
  kind: bpe
  byte_fallback: false
model:
  encoder: {kind: transformer, layers: 1, width: 16, heads: 2, feed_forward: 32}
  decoder: {kind: rnn, layers: 1, width: 16}
train:
  update_tokens: 120
  threads: 1
  precision: fp32
  max_steps: 4
  validate_every: 2
  save_every: 2
  validate_sentences: 4
decode:
  beam: 2
  max_length: 12
"""
MINIMAL = "data: {train: [{src: corpus/train.src, tgt: corpus/train.tgt}], valid: [{src: a.de, tgt: a.en}]}\n"
STOP = "train: {max_steps: 4}\n"
CHECK = "config check --config bad.yaml"
TRAIN = "train --config c.yaml"
GO_ON = f"{TRAIN} --set train.max_steps=9"
DECODE = "decode --run runs/c --input corpus/test.src --output out.txt"
GOLD = "eval --run runs/c --gold-alignments gold"
LINK = "inspect alignments --run runs/c --source corpus/test.src"

Damage = Callable[[Path], object]


class Canary:
    """What a checkpoint that runs code would do."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("canary"),)  # type: ignore[return-value]


@dataclass(frozen=True)
class Case:
    """One wrong input. `damage` gets the working directory, with a trained run in runs/c where `trained` says so."""

    wrong: str
    command: str
    code: int
    message: str
    files: dict[str, str | bytes] = field(default_factory=dict)
    damage: Damage | None = None
    trained: bool = False
    leaves: tuple[str, ...] = ()
    """Begun work that the same command, put right, goes on with or makes anew."""


def bad(wrong: str, text: str | bytes, message: str, code: int = 78) -> Case:
    """A config that is not sound, in the file bad.yaml."""
    return Case(wrong, CHECK, code, message, {"bad.yaml": text})


def text(
    wrong: str,
    files: dict[str, str | bytes],
    message: str,
    code: int = 65,
    extra: str = "",
    leaves: tuple[str, ...] = (),
) -> Case:
    """Text that cannot be learnt from."""
    return Case(wrong, f"{TRAIN} {extra}".strip(), code, message, files, leaves=leaves)


def damaged(
    wrong: str, damage: Damage, message: str, code: int = 65, command: str = DECODE, leaves: tuple[str, ...] = ()
) -> Case:
    """A run that was trained, and then something happened to it."""
    return Case(wrong, command, code, message, damage=damage, trained=True, leaves=leaves)


def checkpoints(here: Path) -> list[Path]:
    return sorted((here / "runs/c/checkpoints").iterdir())


def each_checkpoint(change: Callable[[bytes], bytes]) -> Damage:
    def damage(here: Path) -> None:
        for path in checkpoints(here):
            path.write_bytes(change(path.read_bytes()))

    return damage


def flipped(at: float) -> Damage:
    """One bit turned over, `at` this share of the file."""

    def change(data: bytes) -> bytes:
        place = int(at * (len(data) - 1))
        return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]

    return each_checkpoint(change)


def replaced(name: str, data: str | bytes) -> Damage:
    def damage(here: Path) -> None:
        path = here / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())

    return damage


def removed(*names: str) -> Damage:
    def damage(here: Path) -> None:
        for path in (here / name for name in names):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def as_directory(name: str) -> Damage:
    def damage(here: Path) -> None:
        (here / name).unlink(missing_ok=True)
        (here / name).mkdir()

    return damage


def intact(here: Path) -> None:
    """Nothing happened to the run: the command is what is wrong."""


def as_torch_file() -> bytes:
    stream = io.BytesIO()
    torch.save({"a": torch.ones(3)}, stream)
    return stream.getvalue()


def header_of(size: int) -> Callable[[bytes], bytes]:
    return lambda data: struct.pack("<Q", size) + data[8:]


CONFIG_CASES = [
    bad("misspelt key", "train:\n  label_smothing: 0.1\n" + MINIMAL,
        "error: bad.yaml:2: train.label_smothing: unknown key (did you mean label_smoothing?)"),
    bad("duplicate key", MINIMAL + STOP + "seed: 1\nname: a\nseed: 2\n",
        "bad.yaml:5: the key 'seed' is given twice (first in line 3)"),
    bad("duplicate key inside a section", "train:\n  lr: 1\n  lr: 2\n", "bad.yaml:3: the key 'lr' is given twice"),
    bad("key of another section", MINIMAL + "train: {max_steps: 4, beam: 3}\n",
        "train.beam: unknown key (did you mean decode.beam?)"),
    bad("key without its section", MINIMAL + STOP + "lr: 1\n", "bad.yaml:3: lr: unknown key (did you mean train.lr?)"),
    bad("no validation text", "data: {train: [{src: a, tgt: b}]}\n" + STOP, "bad.yaml:1: data.valid: missing"),
    bad("no data", STOP, "data: missing"),
    bad("empty file", "", "bad.yaml: no settings; data.train and data.valid are required"),
    bad("list at the top", "- a\n", "bad.yaml:1: found a list at the top"),
    bad("two documents", MINIMAL + "---\n" + STOP, "bad.yaml:2: found a second document"),
    bad("anchor", "seed: &a 1\n" + MINIMAL, "bad.yaml:1: anchors (&) and aliases (*) are not accepted"),
    bad("merge key", MINIMAL + "<<: {seed: 1}\n", "bad.yaml:2: merge keys (<<) are not accepted"),
    bad("tag that would run a command", "name: !!python/object/apply:os.system ['touch canary']\n",
        "bad.yaml:1: tags (!) are not accepted"),
    bad("import path", MINIMAL + STOP + "_target_: os.system\n", "_target_: unknown key; the keys here are name, seed"),
    bad("tab", "train:\n\tlr: 1\n", "bad.yaml:2: found a tab in column 1"),
    bad("not UTF-8", "name: ä\n".encode("latin-1"), "bad.yaml:1: byte 0xe4 at offset 6 is not UTF-8"),
    bad("line separator in a value", "name: a\u2028seed: 3\n", "bad.yaml:1: found the character U+2028"),
    bad("nested without end", b"[" * 100_000, "bad.yaml:1: nested deeper than 20 levels"),
    bad("ten megabytes", b"a: 1\n" * 2_000_000, "bad.yaml: larger than 1048576 bytes"),
    bad("unclosed bracket", "data: {train: [\n", "not YAML"),
    bad("Norwegian", MINIMAL + STOP + "name: no\n", "bad.yaml:3: name: found no, expected text: quote it, as in 'no'"),
    bad("octal", MINIMAL + STOP + "seed: 010\n", "bad.yaml:3: seed: found 010, expected a whole number, at least 0"),
    bad("number in quotes", MINIMAL + "train: {max_steps: '4'}\n", "train.max_steps: found the text '4', expected"),
    bad("yes", MINIMAL + "train: {max_steps: 4, tensorboard: yes}\n", "found yes, expected true or false"),
    bad("null", MINIMAL + "train: {max_steps: 4, lr: }\n", "train.lr: found nothing, expected a number, above 0"),
    bad("threads enough to kill a process", MINIMAL + "train: {max_steps: 4, threads: 100000}\n",
        "train.threads: found 100000, expected a whole number, at least 1, at most 1024, or auto"),
    bad("zero rate", MINIMAL + "train: {max_steps: 4, lr: 0}\n", "train.lr: found 0, expected a number, above 0"),
    bad("not a number", MINIMAL + "train: {max_steps: 4, lr: .nan}\n", "train.lr: found .nan, expected a number"),
    bad("dropout of one", MINIMAL + STOP + "model: {encoder: {dropout: 1}}\n",
        "model.encoder.dropout: found 1, expected a number, at least 0, below 1"),
    bad("heads that do not divide", MINIMAL + STOP + "model: {encoder: {heads: 3}}\n",
        "model.encoder.heads: found 3, expected a divisor of width 256"),
    bad("unknown kind", MINIMAL + STOP + "model: {encoder: {kind: cnn}}\n", "found cnn, expected one of rnn, conv, t"),
    bad("unknown score", MINIMAL + STOP + "model: {decoder: {attention: {score: bilinear}}}\n",
        "bad.yaml:3: model.decoder.attention.score: found bilinear, expected one of none, dot, scaled_dot, general"),
    bad("way to attend of another kind", MINIMAL + STOP + "model: {decoder: {attention: {placement: before}}}\n",
        "model.decoder.attention.placement: a setting of kind rnn, but the kind is transformer"),
    bad("Transformer without attention", MINIMAL + STOP + "model: {decoder: {attention: {score: none}}}\n",
        "bad.yaml:3: model.decoder.attention.score: found none, but a Transformer decoder knows the source by"),
    bad("shape of no attention",
        MINIMAL + STOP + "model: {decoder: {kind: rnn, attention: {score: none, coverage: true}}, tie: none}\n",
        "model.decoder.attention.coverage: found true, but model.decoder.attention.score is none: there is no atten"),
    bad("choice of one state for every feature",
        MINIMAL + STOP + "model: {decoder: {attention: {selection: hard, features: multi_dimensional}}}\n",
        "model.decoder.attention.selection: found hard, which chooses one state, but multi_dimensional features"),
    bad("attention heads that do not divide",
        MINIMAL + STOP + "model: {decoder: {kind: conv, attention: {heads: 3}}}\n",
        "model.decoder.attention.heads: found 3, expected a divisor of width 256"),
    bad("window without a middle", MINIMAL + STOP + "model: {encoder: {kind: conv, kernel: 4}}\n",
        "model.encoder.kernel: found 4, expected an odd number"),
    bad("more pieces than locations",
        MINIMAL + STOP + "model: {decoder: {attention: {score: location, max_positions: 99}}}\n",
        "found 256, expected less than model.decoder.attention.max_positions (99): the score is location"),
    bad("no temperature", MINIMAL + STOP + "model: {decoder: {attention: {selection: gumbel, temperature: 0}}}\n",
        "model.decoder.attention.temperature: found 0, expected a number, above 0"),
    bad("setting of another kind", MINIMAL + STOP + "model: {encoder: {kind: rnn, heads: 2}, tie: none}\n",
        "model.encoder.heads: a setting of kind transformer, but the kind is rnn"),
    bad("two vocabularies in one matrix", MINIMAL + STOP + "tokenizer: {joint: false}\n",
        "model.tie: found all, which needs one tokenizer for both sides"),
    bad("more answers than hypotheses", MINIMAL + STOP + "decode: {n_best: 9}\n",
        "decode.n_best: found 9, expected at most decode.beam (5)"),
    bad("no end", MINIMAL, "train: nothing says when to stop"),
    bad("schedule without its end", MINIMAL + "train: {max_epochs: 4, schedule: cosine}\n",
        "train.schedule: found cosine, which ends at train.max_steps: set it"),
    bad("a billion pieces", MINIMAL + STOP + "tokenizer: {vocab_size: 1000000000}\n", "at least 8, at most 1000000"),
    bad("name that leaves the directory", MINIMAL + STOP + "name: ../x\n", "expected a plain directory name"),
    bad("extends nothing", "extends: missing.yaml\n" + MINIMAL,
        "bad.yaml:1: extends: missing.yaml: no such config file"),
    bad("extends itself", "extends: bad.yaml\n", "bad.yaml:1: extends: bad.yaml leads back"),
    bad("corpus without its target", "data: {train: [{src: a}], valid: [{src: a, tgt: b}]}\n" + STOP,
        "data.train.0: a corpus of format text needs both 'src' and 'tgt'"),
    bad("one source model", MINIMAL + STOP + "tokenizer: {src_model: a.model}\n",
        "'src_model' and 'tgt_model' go together"),
    bad("binary file", b"\x80\x02]q\x00.", "bad.yaml:1: byte 0x80 at offset 0 is not UTF-8"),
    Case("config is a directory", "train --config corpus", 66, "corpus: is a directory, expected a YAML file"),
    Case("config is not there", "train --config missing.yaml", 66, "missing.yaml: no such config file"),
    Case("config is a device", "train --config /dev/null", 66, "/dev/null: is not a regular file"),
]  # fmt: skip

COMMAND_LINE_CASES = [
    Case("override with a word for a number", f"{TRAIN} --set train.lr=fast", 78,
         "error: --set train.lr=fast: train.lr: found fast, expected a number, above 0"),
    Case("override without a value", f"{TRAIN} --set train.lr", 64, "--set train.lr: expected section.key=value"),
    Case("override of nothing", f"{TRAIN} --set train.lrr=1", 78, "train.lrr: unknown key (did you mean lr?)"),
    Case("override of a corpus that is not there", f"{TRAIN} --set data.train.3.weight=2", 78,
         "data.train is a list of 1, counted from 0"),
    Case("override of a kind", f"{TRAIN} --set model.encoder.kind=rnn", 78,
         "model.encoder.heads: a setting of kind transformer, but the kind is rnn (--set model.encoder.kind=rnn)"),
    Case("unknown option", f"{TRAIN} --sett a=1", 64, "No such option: --sett"),
    Case("option without a value", "train --config", 64, "Option '--config' requires an argument"),
    Case("option twice", f"{TRAIN} --config d.yaml", 64, "--config is given twice"),
    Case("unset variable", "decode --run ''", 64, "--run: is empty"),
    Case("unknown command", "trian --config c.yaml", 64, "No such command 'trian'"),
    Case("nothing to train", "train", 64, "--config FILE is missing"),
    Case("nothing to decode with", "decode", 64, "--run DIR is missing"),
    Case("source without reference", "eval --run runs/c --source corpus/test.src", 64, "go together"),
    Case("no sentence", "inspect attention --run runs/c", 64, "Missing argument 'SENTENCE'"),
    Case("no file to align", "inspect alignments --run runs/c", 64, "Missing option '--source'"),
    Case("override of what was trained", f"{DECODE} --set model.encoder.layers=3", 78,
         "model.encoder.layers belongs to the trained model", trained=True),
    Case("no hypothesis", f"{DECODE} --beam 0", 78,
         "--beam 0: decode.beam: found 0, expected a whole number", trained=True),
    Case("more answers than the beam", f"{DECODE} --n-best 9", 78,
         "--n-best 9: decode.n_best: found 9, expected at most decode.beam (2)", trained=True),
    Case("length penalty is no number", f"{DECODE} --length-penalty nan", 78,
         "--length-penalty nan: decode.length_penalty: found nan, expected a number", trained=True),
    Case("unknown weights", f"{DECODE} --weights newest", 78, "found newest, expected one of best, last", trained=True),
    Case("unknown tokenization", "eval --run runs/c --tokenize moses", 78,
         "found moses, expected one of 13a", trained=True),
]  # fmt: skip


def with_corpus(settings: str) -> dict[str, str | bytes]:
    """The config with another description of the training text."""
    return {"c.yaml": CONFIG.replace("- src: corpus/train.src\n      tgt: corpus/train.tgt", f"- {{{settings}}}")}


TEXT_CASES = [
    text("source is not there", with_corpus("src: corpus/no.src, tgt: corpus/train.tgt"), "corpus/no.src: ", 66),
    text("source is a directory", with_corpus("src: corpus, tgt: corpus/train.tgt"), "corpus: ", 66),
    text("sides of different length", {"corpus/train.tgt": "one\ntwo\n"}, "train.src has 90 lines"),
    text("sides of different length in validation", {"corpus/valid.src": "one\n"}, "valid.src has 1 line"),
    text("bytes that are not UTF-8", {"corpus/train.src": b"ab\n" * 10 + b"x \xff y\n" + b"ab\n" * 79},
         "corpus/train.src:11: byte 3: not UTF-8 (0xFF)"),
    text("bytes that are not UTF-8 in the last line", {"corpus/test.tgt": b"ab\n" * 8 + b"\xe2\x82"},
         "corpus/test.tgt:9: byte 1: not UTF-8"),
    text("UTF-16", {"corpus/train.src": ("ab\n" * 90).encode("utf-16")},
         "corpus/train.src: found UTF-16 text, expected UTF-8"),
    text("empty corpus", {"corpus/train.src": "", "corpus/train.tgt": ""}, "is empty"),
    text("empty validation corpus", {"corpus/valid.src": "", "corpus/valid.tgt": ""}, "is empty"),
    text("references without a word", {"corpus/valid.tgt": "\n" * 12},
         "corpus/valid.src) has only blank lines on its target side"),
    text("gzip cut short", {"corpus/train.src": gzip.compress(b"word\n" * 20000)[:-30]}, "corpus/train.src"),
    text("gzip damaged", {"corpus/train.src": gzip.compress(b"word\n" * 90)[:20] + b"\x00" * 40}, "corpus/train.src"),
    text("every pair dropped", {}, "no pair is left after cleaning", extra="--set data.cleaning.max_length=1",
         leaves=("runs/c/tokenizer", "runs/c/data/train")),
    text("TSV without a second column", {**with_corpus("file: t.tsv, format: tsv, src_field: '1', tgt_field: '2'"),
         "t.tsv": "a\tb\nalone\n"}, "t.tsv:2"),
    text("JSON Lines that are no JSON", {**with_corpus("file: t.jsonl, format: jsonl, src_field: a, tgt_field: b"),
         "t.jsonl": '{"a": "x", "b": "y"}\n{"a": \n'}, "t.jsonl:2"),
    text("JSON Lines without the field", {**with_corpus("file: t.jsonl, format: jsonl, src_field: a, tgt_field: b"),
         "t.jsonl": '{"a": "x"}\n'}, "t.jsonl:1"),
    text("Parquet that is no Parquet", {**with_corpus("file: t.parquet, format: parquet, src_field: a, tgt_field: b"),
         "t.parquet": b"nothing of the kind"}, "t.parquet"),
]  # fmt: skip

TOKENIZER_CASES = [
    text("tokenizer model is not there", {}, "missing.model", 66, "--set tokenizer.model=missing.model"),
    text("tokenizer model is text", {"t.model": "hello\n"}, "t.model", 65, "--set tokenizer.model=t.model"),
    text("tokenizer model is empty", {"t.model": b""}, "t.model", 65, "--set tokenizer.model=t.model"),
    text("tokenizer model is a directory", {}, "corpus: ", 66, "--set tokenizer.model=corpus"),
    text("vocabulary too small for the characters", {}, "tokenizer.vocab_size", 78, "--set tokenizer.vocab_size=9"),
]

RUN_CASES = [
    Case("run is not there", "decode --run missing", 66, "error: run missing: does not exist; train one with"),
    Case("run is a file", "decode --run c.yaml", 66, "run c.yaml: is no run directory"),
    Case("run is some directory", "eval --run corpus", 66, "run corpus: is no run directory (it has no config.yaml)"),
    Case("place of the run is a file", f"{TRAIN} --run c.yaml", 73, "c.yaml"),
    Case("place of the run is inside a file", f"{TRAIN} --run c.yaml/run", 73, "c.yaml/run"),
    damaged("settings of the run damaged", replaced("runs/c/config.yaml", "seed: [\n"),
            "runs/c/config.yaml:2: not YAML", 78),
    damaged("run without checkpoints", removed("runs/c/checkpoints", "runs/c/checkpoints.json"),
            "run runs/c: has no checkpoint yet", 66),
    damaged("list of checkpoints damaged", replaced("runs/c/checkpoints.json", "{"),
            "runs/c/checkpoints.json: not readable"),
    damaged("list of checkpoints of wrong types", replaced("runs/c/checkpoints.json", "[1]"), "checkpoints.json: "),
    damaged("list of checkpoints lost", removed("runs/c/checkpoints.json"), "checkpoints.json: is not there", 65,
            GO_ON),
    damaged("other vocabulary, tokenizing", intact, "tokenizer.vocab_size: 60 → 50", 78,
            "tokenize --config c.yaml --set tokenizer.vocab_size=50"),
    damaged("other vocabulary, the whole way", intact, "tokenizer.vocab_size: 60 → 50", 78,
            "run --config c.yaml --set tokenizer.vocab_size=50"),
    damaged("other learning rate", intact, "train.lr: 0.001 → 0.5", 78, f"{TRAIN} --set train.lr=0.5"),
    damaged("other model", intact, "model.decoder.layers: 1 → 2", 78, f"{TRAIN} --set model.decoder.layers=2"),
    damaged("other seed", intact, "seed: 1 → 2", 78, f"{TRAIN} --set seed=2 --set train.max_steps=9"),
    damaged("manifest of the data emptied", replaced("runs/c/data/manifest.json", '{"layout": 1}'),
            "manifest.json: is not there or damaged", 66, "eval --run runs/c"),
    damaged("log edited", replaced("runs/c/log.jsonl", "{}\n"), "runs/c/log.jsonl: does not match", 65, GO_ON,
            leaves=("runs/c/config.yaml",)),
    damaged("average of nothing", intact, "found average, which needs train.average above 0", 78,
            f"{DECODE} --weights average"),
    damaged("no running average", intact, "found ema, which needs train.ema above 0", 78, f"{DECODE} --weights ema"),
    damaged("start from a run that is not there", intact, "run", 66,
            f"{TRAIN} --run runs/new --set train.init_from=runs/none", leaves=("runs/new",)),
]  # fmt: skip

CHECKPOINT_CASES = [
    damaged("bit flipped in the length", flipped(0.0), "checkpoints/step-"),
    damaged("bit flipped in the header", flipped(0.02), "checkpoints/step-"),
    damaged("bit flipped in a weight", flipped(0.3), "checkpoints/step-"),
    damaged("bit flipped, going on", flipped(0.6), "none of its checkpoints can be used", 65, GO_ON),
    damaged("cut in the header", each_checkpoint(lambda data: data[:100]), "checkpoints/step-"),
    damaged("cut in the middle", each_checkpoint(lambda data: data[: len(data) // 2]), "checkpoints/step-"),
    damaged("last byte missing", each_checkpoint(lambda data: data[:-1]), "checkpoints/step-"),
    damaged("byte too many", each_checkpoint(lambda data: data + b"\0"), "checkpoints/step-"),
    damaged("empty checkpoint", each_checkpoint(lambda data: b""), "checkpoints/step-"),
    damaged("second half zeros", each_checkpoint(lambda data: data[: len(data) // 2].ljust(len(data), b"\0")),
            "checkpoints/step-"),
    damaged("pickle that runs code", each_checkpoint(lambda data: pickle.dumps(Canary())), "checkpoints/step-"),
    damaged("torch file", each_checkpoint(lambda data: as_torch_file()), "checkpoints/step-"),
    damaged("web page", each_checkpoint(lambda data: b"<!DOCTYPE html><html>404</html>"), "checkpoints/step-"),
    damaged("pointer instead of the file", each_checkpoint(lambda data: b"version https://git-lfs.github.com/spec/v1\n"),
            "checkpoints/step-"),
    damaged("compressed", each_checkpoint(gzip.compress), "checkpoints/step-"),
    damaged("header of a terabyte", each_checkpoint(header_of(1 << 40)), "checkpoints/step-"),
    damaged("header of nothing", each_checkpoint(header_of(0)), "checkpoints/step-"),
    damaged("checkpoint removed", removed("runs/c/checkpoints"), "checkpoints/step-", 66),
    damaged("checkpoint is a directory",
            lambda here: [as_directory(str(path.relative_to(here)))(here) for path in checkpoints(here)],
            "checkpoints/step-"),
]  # fmt: skip

OUTPUT_CASES = [
    damaged("input is not there", intact, "missing.txt", 66, "decode --run runs/c --input missing.txt"),
    damaged("input is a directory", intact, "corpus: ", 66, "decode --run runs/c --input corpus"),
    damaged("input is not UTF-8", replaced("in.txt", b"a\nb\n\xff\n"), "in.txt:3: byte 1: not UTF-8", 65,
            "decode --run runs/c --input in.txt --output out.txt"),
    damaged("output is the input", intact, "is the input as well", 64,
            "decode --run runs/c --input corpus/test.src --output corpus/../corpus/test.src"),
    damaged("output is a directory", intact, "corpus: is a directory", 73, f"{DECODE[:-8]} corpus"),
    damaged("output inside a file", intact, "c.yaml/out.txt", 73, f"{DECODE[:-8]} c.yaml/out.txt"),
    damaged("unknown split", intact, "tset", 64, "eval --run runs/c --split tset"),
    damaged("reference too short", replaced("ref.txt", "one\n"), "ref.txt", 65,
            "eval --run runs/c --source corpus/test.src --reference ref.txt"),
    damaged("reference is not there", intact, "none.txt", 66,
            "eval --run runs/c --source corpus/test.src --reference none.txt"),
    damaged("empty sentence", intact, "the sentence is blank", 65, "inspect attention --run runs/c ' '"),
    damaged("gold links for fewer sentences", replaced("gold", "0-0\n"),
            "gold: has 1 lines for 9 sentence pairs, expected a line for each", 65, GOLD),
    damaged("gold links in another format", replaced("gold", "0-0\n1:1\n" + 7 * "\n"),
            "gold:2: found '1:1', expected links such as 0-1", 65, GOLD),
    damaged("gold links to words that are not there", replaced("gold", "0-0\n\n9-0\n" + 6 * "\n"),
            "gold:3: the link 9-0 goes beyond the source", 65, GOLD),
    damaged("gold links that are all possible", replaced("gold", "0?0\n" + 8 * "\n"), "has no sure link", 65, GOLD),
    damaged("gold links that are not there", intact, "gold: cannot be read", 66, GOLD),
    damaged("alignments over the input", intact, "is the input as well; give --alignments another name", 64,
            f"{DECODE} --alignments corpus/test.src"),
    damaged("alignments over the output", intact, "is the output as well", 64, f"{DECODE} --alignments out.txt"),
    damaged("alignments into a directory", intact, "corpus: is a directory", 73, f"{DECODE} --alignments corpus"),
    damaged("alignments into a pipe", lambda here: os.mkfifo(here / "pipe"), "pipe: is no regular file", 73,
            f"{DECODE} --alignments pipe"),
    damaged("nothing to align", intact, "none.txt: cannot be read", 66,
            "inspect alignments --run runs/c --source none.txt"),
    damaged("files of different length to align", intact, "corpus/test.src has 9 lines and corpus/valid.tgt has 12", 65,
            f"{LINK} --target corpus/valid.tgt --output out.txt"),
    damaged("links over their source", intact, "corpus/test.src: is the input as well", 64,
            f"{LINK} --output corpus/test.src"),
    damaged("links over their target", intact, "corpus/test.tgt: is the input as well", 64,
            f"{LINK} --target corpus/test.tgt --output corpus/test.tgt"),
]  # fmt: skip

CASES = {
    "config": CONFIG_CASES,
    "command line": COMMAND_LINE_CASES,
    "text": TEXT_CASES,
    "tokenizer": TOKENIZER_CASES,
    "run directory": RUN_CASES,
    "checkpoint": CHECKPOINT_CASES,
    "input and output": OUTPUT_CASES,
}
BEGUN = {"runs", "runs/c", "runs/c/lock", "runs/c/data", "runs/c/config.yaml", "runs/c/machine.json", "runs/new"}
BEGUN |= {"runs/new/lock", "runs/c/eval"}
"""What a command that fails half-way may leave: the place of the run, and its lock."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_corpus(tmp_path_factory.mktemp("bad") / "corpus")


@pytest.fixture(scope="module")
def trained(corpus: Path) -> Path:
    """A small run, trained once, of which each row damages a copy."""
    (corpus.parent / "c.yaml").write_text(CONFIG, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(corpus.parent)
        assert main(["train", "--config", "c.yaml"]) == 0
    return corpus.parent / "runs" / "c"


def listing(here: Path) -> dict[str, str]:
    """Every path below a directory with a digest of what is in it."""
    return {
        str(path.relative_to(here)): digest_file(path) if path.is_file() else "directory" for path in here.rglob("*")
    }


def test_there_are_enough_cases() -> None:
    rows = [case for cases in CASES.values() for case in cases]
    assert len(rows) >= 60
    assert len({case.wrong for case in rows}) == len(rows)


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=f"{category}: {case.wrong}") for category, cases in CASES.items() for case in cases]
)
def test_wrong_input(
    case: Case,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(corpus, tmp_path / "corpus")
    (tmp_path / "c.yaml").write_text(CONFIG, encoding="utf-8")
    if case.trained:
        shutil.copytree(request.getfixturevalue("trained"), tmp_path / "runs" / "c")
        capsys.readouterr()
    for name, content in case.files.items():
        replaced(name, content)(tmp_path)
    monkeypatch.chdir(tmp_path)
    if case.damage is not None:
        case.damage(tmp_path)
    before = listing(tmp_path)

    code = main(shlex.split(case.command))

    out, err = capsys.readouterr()
    after = listing(tmp_path)
    assert case.message in err
    assert code == case.code
    assert out == ""
    assert err.count("error: ") == 1
    assert "Traceback" not in err
    assert "fault of translate" not in err
    new = after.keys() - before.keys() - BEGUN
    changed = {name for name in before if after.get(name) != before[name]} - {"runs/c/lock"}
    assert not [name for name in sorted(new | changed) if not name.startswith(case.leaves or "\0")]


def test_the_canary_would_sing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pickle of the table does run code when something unpickles it."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Canary()))
    assert (tmp_path / "canary").exists()


def test_run_in_use(trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(trained.parent.parent)
    with RunDirectory(trained).locked():
        assert main(["train", "--config", "c.yaml"]) == 75
    err = capsys.readouterr().err
    assert "error: run runs/c is in use by process" in err
    assert "Traceback" not in err


def test_text_that_changed_after_training(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Going on with other text is refused; with the text as it was, the same command goes on."""
    shutil.copytree(trained.parent.parent, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "corpus" / "train.src"
    original = source.read_bytes()
    source.write_bytes(original.replace("오늘".encode(), "내일".encode(), 1))
    assert main(shlex.split(GO_ON)) == 65
    err = capsys.readouterr().err
    assert "was trained with other data" in err
    assert "Traceback" not in err
    source.write_bytes(original)
    assert main(shlex.split(GO_ON)) == 0
    assert "going on from step 4" in capsys.readouterr().err


def test_a_run_outlives_the_one_it_started_from(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained.parent.parent, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(f"{TRAIN} --run runs/new --set train.init_from=runs/c")) == 0
    shutil.rmtree("runs/c")
    assert main(shlex.split("train --run runs/new --set train.max_steps=6")) == 0
    assert "going on from step 4" in capsys.readouterr().err
    assert main(shlex.split(f"{TRAIN} --run runs/other --set train.init_from=runs/c")) == 66


def test_device_that_is_not_there(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained.parent.parent)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["eval", "--run", "runs/c", "--set", "device=cuda"]) == 78
    assert "error: device: found cuda, but PyTorch sees no GPU here" in capsys.readouterr().err


def test_the_newest_checkpoint_is_bad_and_an_older_one_is_not(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training falls back to the older one and says so; it never starts over silently."""
    shutil.copytree(trained, tmp_path / "runs" / "c")
    monkeypatch.chdir(tmp_path)
    newest = checkpoints(tmp_path)[-1]
    newest.write_bytes(newest.read_bytes()[:-1])
    assert main(["train", "--run", "runs/c"]) == 0
    err = capsys.readouterr().err
    assert f"warning: runs/c/checkpoints/{newest.name}" in err
    assert "going on from step 2" in err


def test_a_trained_run_does_what_these_rows_forbid_others(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rows fail for what is wrong in them, not because the run they start from is no good."""
    monkeypatch.chdir(trained.parent.parent)
    assert main(shlex.split(DECODE)) == 0
    assert Path("out.txt").read_bytes().count(b"\n") == 9
    assert main(["eval", "--run", "runs/c"]) == 0
    assert "BLEU = " in capsys.readouterr().out
    Path("gold").write_text("0-0 1?1\n" * 9, encoding="utf-8")
    assert main(shlex.split(GOLD)) == 0
    assert "AER = " in capsys.readouterr().out
    assert main(shlex.split(f"{DECODE} --alignments links")) == 0
    assert Path("links").read_bytes().count(b"\n") == 9
    assert main(shlex.split("inspect alignments --run runs/c --source corpus/test.src --target corpus/test.tgt")) == 0
    assert capsys.readouterr().out.count("\n") == 9
    assert json.loads((trained / "checkpoints.json").read_text())["last"] == 4
