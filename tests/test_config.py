"""Configs: reading, inheriting, overriding, every kind of problem, and what may change when a run goes on."""

from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from translate.config import (
    Config,
    ConvAttentionConfig,
    ConvDecoderConfig,
    ConvEncoderConfig,
    CorpusConfig,
    RnnAttentionConfig,
    RnnDecoderConfig,
    RnnEncoderConfig,
    TransformerEncoderConfig,
)
from translate.config.fields import all_keys, expected
from translate.config.reader import load_config, run_path
from translate.config.rules import CHANGES, change_kind, conflicts, differences, flatten
from translate.config.strict_yaml import Source, parse, resolve
from translate.config.writer import as_schema, dump_config, reference_text, scalar_text
from translate.errors import ConfigError, MissingInputError, UsageError

CONFIGS = Path(__file__).parent.parent / "configs"
DATA = """\
data:
  train:
    - src: train.de
      tgt: train.en
  valid:
    - src: valid.de
      tgt: valid.en
"""
STOP = "train:\n  max_steps: 10\n"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def load(directory: Path, text: str, *overrides: str, data: str = DATA) -> Config:
    return load_config(write(directory / "c.yaml", data + text), overrides)


def problems(directory: Path, text: str, *overrides: str, data: str = DATA) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(directory, text, *overrides, data=data)
    return str(caught.value).replace(f"{directory}/", "").split("\n")


def test_defaults_are_those_of_the_classes(tmp_path: Path) -> None:
    config = load(tmp_path, STOP)
    assert config.train.lr == 1e-3
    assert config.model.encoder == TransformerEncoderConfig()
    assert config.data.test == []


def test_every_committed_config_is_sound() -> None:
    for path in CONFIGS.glob("*.yaml"):
        config = load_config(path)
        assert load_config(path) == config
        for corpus in [*config.data.train, *config.data.valid, *config.data.test]:
            assert corpus.src is None or Path(corpus.src).is_absolute()


def test_reference_is_in_step_with_the_classes() -> None:
    text = reference_text()
    assert (CONFIGS / "reference.yaml").read_text(encoding="utf-8") == text, "run scripts/reference_config.py"
    words = {line.replace("#", " ").replace("- ", "  ").split(":")[0].strip() for line in text.split("\n")}
    assert {key.rpartition(".")[2] for key in all_keys()} <= words
    assert all(field.description for field in all_keys().values())


def test_reference_holds_the_defaults() -> None:
    reference = load_config(CONFIGS / "reference.yaml")
    plain = Config.model_validate({"data": reference.data.model_dump(), "train": {"max_steps": 10000}})
    assert reference == plain


OTHER_KINDS = {
    "encoder": [RnnEncoderConfig(), ConvEncoderConfig()],
    "decoder": [RnnDecoderConfig(), ConvDecoderConfig()],
}


@pytest.mark.parametrize(("side", "number"), [("encoder", 0), ("encoder", 1), ("decoder", 0), ("decoder", 1)])
def test_other_kinds_in_the_reference_can_be_uncommented(side: str, number: int, tmp_path: Path) -> None:
    """Each block of comments that begins with a side and goes on with what is indented under it."""
    lines = reference_text().split("\n")
    start = [at for at, line in enumerate(lines) if line == f"  # {side}:"][number]
    end = next(at for at in range(start + 1, len(lines)) if not lines[at].startswith("  #   "))
    block = "\n".join(line.replace("# ", "", 1) for line in lines[start:end])
    config = load(tmp_path, f"{STOP}model:\n  tie: none\n{block}\n")
    assert getattr(config.model, side) == OTHER_KINDS[side][number]


# --- where files are


def test_paths_start_from_the_file_they_are_written_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "base" / "data.yaml", DATA)
    write(
        tmp_path / "recipes" / "c.yaml",
        "extends: ../base/data.yaml\ntokenizer: {model: m/joint.model}\n"
        "data:\n  test: [{src: /abs/t.de, tgt: ../t.en}]\n" + STOP,
    )
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    config = load_config(Path("../recipes/c.yaml"), ["data.valid.0.src=v.de", "train.init_from=../runs/other"])
    assert config.data.train[0].src == str(tmp_path / "base" / "train.de")
    assert config.data.test[0].src == "/abs/t.de"
    assert config.data.test[0].tgt == str(tmp_path / "t.en")
    assert config.tokenizer.model == str(tmp_path / "recipes" / "m" / "joint.model")
    assert config.data.valid[0].src == str(tmp_path / "here" / "v.de")
    assert config.train.init_from == str(tmp_path / "runs" / "other")


def test_name_of_a_hub_dataset_is_no_path(tmp_path: Path) -> None:
    corpus = "  test: [{file: owner/set, format: hub, split: test, src_field: de, tgt_field: en}]\n"
    assert load(tmp_path, corpus + STOP).data.test[0].file == "owner/set"


@pytest.mark.parametrize("name", ["${HOME}/x", "$HOME", "~/x", "{env}", "%(x)s", "$(touch canary)", "`touch canary`"])
def test_values_are_data(name: str, tmp_path: Path) -> None:
    config = load(tmp_path, STOP, f"data.train.0.src={tmp_path}/{name}")
    assert config.data.train[0].src == f"{tmp_path}/{name}"
    assert not list(tmp_path.glob("**/canary"))


@pytest.mark.parametrize(
    ("name", "option", "path"),
    [(None, None, "runs/c"), ("mine", None, "runs/mine"), ("mine", Path("/else/where"), "/else/where")],
)
def test_run_path(name: str | None, option: Path | None, path: str, tmp_path: Path) -> None:
    config = load(tmp_path, f"name: {name}\n{STOP}" if name else STOP)
    assert run_path(config, tmp_path / "c.yaml", option) == Path(path)


# --- inheriting


def test_extends_merges_mappings_and_replaces_lists(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", DATA + "train: {lr: 0.1, max_steps: 5, warmup: 7}\nseed: 3\n")
    write(tmp_path / "b.yaml", "extends: a.yaml\ntrain: {lr: 0.2}\n")
    write(tmp_path / "c.yaml", "extends: b.yaml\ntrain: {warmup: 9}\ndata: {train: [{src: xx, tgt: yy}]}\n")
    config = load_config(tmp_path / "c.yaml")
    assert (config.train.lr, config.train.max_steps, config.train.warmup, config.seed) == (0.2, 5, 9, 3)
    assert [corpus.src for corpus in config.data.train] == [str(tmp_path / "xx")]
    assert config.data.valid[0].src == str(tmp_path / "valid.de")


def test_extends_must_end(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "extends: b.yaml\n")
    write(tmp_path / "b.yaml", "seed: 1\nextends: ./a.yaml\n")
    with pytest.raises(ConfigError, match=r"b\.yaml:2: extends: \./a\.yaml leads back"):
        load_config(tmp_path / "a.yaml")


@pytest.mark.parametrize("base", ["missing.yaml", ".", "[a.yaml]", "3", "''"])
def test_extends_names_a_file(base: str, tmp_path: Path) -> None:
    assert problems(tmp_path, f"extends: {base}\n")[0].startswith("c.yaml:8: extends: ")


def test_problem_in_the_extended_file_names_that_file(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "train:\n  lr: fast\n")
    assert problems(tmp_path, "extends: a.yaml\n")[0].startswith("a.yaml:2: train.lr: found fast")


def test_another_kind_in_an_extending_file_is_described_anew(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", DATA + STOP + "model: {encoder: {kind: transformer, heads: 8, width: 64}, tie: none}\n")
    write(tmp_path / "c.yaml", "extends: a.yaml\nmodel: {encoder: {kind: rnn, layers: 2}}\n")
    config = load_config(tmp_path / "c.yaml")
    assert config.model.encoder == RnnEncoderConfig(layers=2)
    assert config.model.tie == "none"


def test_the_same_kind_in_an_extending_file_is_merged(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", DATA + STOP + "model: {encoder: {heads: 8}}\ntokenizer: {kind: unigram, joint: true}\n")
    write(
        tmp_path / "c.yaml",
        "extends: a.yaml\nmodel: {encoder: {kind: transformer, layers: 2}}\ntokenizer: {kind: bpe, vocab_size: 99}\n",
    )
    config = load_config(tmp_path / "c.yaml")
    assert config.model.encoder == TransformerEncoderConfig(heads=8, layers=2)
    assert (config.tokenizer.kind, config.tokenizer.joint) == ("bpe", True)


def test_another_kind_by_override_says_what_is_left_hanging(tmp_path: Path) -> None:
    found = problems(tmp_path, STOP + "model:\n  encoder:\n    heads: 8\n", "model.encoder.kind=rnn", "model.tie=none")
    assert found == [
        "c.yaml:12: model.encoder.heads: a setting of kind transformer, but the kind is rnn (--set "
        "model.encoder.kind=rnn): remove it, or describe this part anew in a file that extends this one"
    ]


def test_another_kind_by_override_keeps_what_both_kinds_know(tmp_path: Path) -> None:
    text = STOP + "model: {encoder: {layers: 2, width: 64}, tie: none}\n"
    assert load(tmp_path, text, "model.encoder.kind=rnn").model.encoder == RnnEncoderConfig(layers=2, width=64)


# --- values


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("train.lr", "1e-4", 1e-4), ("train.lr", "1E+5", 1e5), ("train.lr", "1.e-4", 1e-4), ("train.lr", "2", 2.0),
        ("train.max_steps", "1e5", 100_000), ("train.max_steps", "10.0", 10), ("train.max_steps", "null", None),
        ("train.max_minutes", "20", 20.0), ("train.threads", "auto", "auto"), ("train.threads", "2", 2),
        ("train.tensorboard", "true", True), ("name", "'no'", "no"), ("name", '"2024"', "2024"), ("name", "x", "x"),
        ("model.tie", "none", "none"), ("evaluate.tokenize", "13a", "13a"), ("decode.length_penalty", "-0.0", 0.0),
    ],
)  # fmt: skip
def test_values_that_are_taken(key: str, text: str, value: object, tmp_path: Path) -> None:
    section, _, name = key.rpartition(".")
    written = f"{section}:\n  {name}: {text}\n" if section else f"{name}: {text}\n"
    found = flatten(load(tmp_path, written + ("" if section == "train" else STOP), "train.max_epochs=1"))[key]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("train.lr", '"1e-4"', "found the text '1e-4', expected a number, above 0"),
        ("train.lr", "fast", "found fast, expected a number, above 0"),
        ("train.lr", "true", "found true, expected a number"),
        ("train.lr", "", "found nothing, expected a number"),
        ("train.lr", "~", "found ~, expected a number"),
        ("train.lr", "0", "found 0, expected a number, above 0"),
        ("train.lr", "-1", "found -1, expected a number, above 0"),
        ("train.lr", ".nan", "found .nan, expected a number"),
        ("train.lr", ".inf", "found .inf, expected a number"),
        ("train.lr", "1e400", "found 1e400, expected a number"),
        ("train.lr", "[1]", "found a list, expected a number"),
        ("train.lr", "{a: 1}", "found a mapping, expected a number"),
        ("train.max_steps", "1.5", "found 1.5, expected a whole number, at least 1, or null"),
        ("train.max_steps", "010", "found 010, expected a whole number"),
        ("train.max_steps", "0x10", "found 0x10, expected a whole number"),
        ("train.max_steps", "1_000", "found 1_000, expected a whole number"),
        ("train.max_steps", "1:30", "found 1:30, expected a whole number"),
        ("train.max_steps", "1e300", "found 1e300, expected a whole number"),
        ("train.save_every", "0", "found 0, expected a whole number, at least 1"),
        ("train.keep_last", "0", "found 0, expected a whole number, at least 1"),
        ("train.label_smoothing", "1", "found 1, expected a number, at least 0, below 1"),
        ("train.threads", "some", "found some, expected a whole number, at least 1, at most 1024, or auto"),
        ("train.tensorboard", "yes", "found yes, expected true or false"),
        ("train.tensorboard", "True", "found True, expected true or false"),
        ("train.tensorboard", "1", "found 1, expected true or false"),
        ("train.tensorboard", "'true'", "found the text 'true', expected true or false"),
        ("train.schedule", "noma", "found noma, expected one of constant, inverse_sqrt, noam, cosine"),
        ("seed", "-1", "found -1, expected a whole number, at least 0"),
        ("name", "no", "found no, expected text: quote it, as in 'no'"),
        ("name", "2024-01-01", "found 2024-01-01, expected text: quote it"),
        ("name", "1.10", "found 1.10, expected text: quote it"),
        ("name", "true", "found true, expected text: quote it"),
        ("name", "[a]", "found a list, expected text"),
        ("name", "a/b", "found 'a/b', expected a plain directory name"),
        ("name", "'..'", "found '..', expected a plain directory name"),
        ("name", "''", "found '', expected a plain directory name"),
        (
            "tokenizer.vocab_size",
            "1000000000",
            "found 1000000000, expected a whole number, at least 8, at most 1000000",
        ),
        ("tokenizer.model", "''", "found an empty name"),
        ("model.encoder", "rnn", "found rnn, expected a mapping with its own keys"),
        ("model", "[]", "found a list, expected a mapping with its own keys"),
    ],
)
def test_values_that_are_refused(key: str, text: str, message: str, tmp_path: Path) -> None:
    section, _, name = key.rpartition(".")
    written = f"{section}:\n  {name}: {text}\n" if section else f"{name}: {text}\n"
    found = problems(tmp_path, written, "train.max_epochs=1")
    assert len(found) == 1
    assert found[0].startswith(f"c.yaml:{9 if section else 8}: {key}: {message}")


def test_every_key_that_is_no_text_says_what_it_expects(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", DATA + STOP)
    for key, field in all_keys().items():
        if expected(field).startswith("text") or key.startswith(("data.test", "model")):
            continue
        for value in ("wrong words", "1:30", "[1]"):
            override = f"{key.replace('.N.', '.0.')}={value}"
            with pytest.raises(ConfigError) as caught:
                load_config(path, [override])
            line = str(caught.value).split("\n")[0]
            assert line.startswith(f"--set {override}: {override.partition('=')[0]}: found {value}, expected "), line


# --- keys


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:\n  label_smothing: 0.2\n", "train.label_smothing: unknown key (did you mean label_smoothing?)"),
        ("train:\n  lerning_rate: 1\n", "c.yaml:9: train.lerning_rate: unknown key"),
        ("lr: 1\n", "c.yaml:8: lr: unknown key (did you mean train.lr?)"),
        ("train:\n  beam: 1\n", "c.yaml:9: train.beam: unknown key (did you mean decode.beam?)"),
        ("decode:\n  label_smothing: 1\n", "decode.label_smothing: unknown key (did you mean train.label_smoothing?)"),
        ("modle: {}\n", "modle: unknown key (did you mean model?)"),
        ("_target_: os.system\n", "_target_: unknown key; the keys here are name, seed, device, data"),
        ("defaults: [a]\n", "defaults: unknown key"),
        ("include: a.yaml\n", "include: unknown key"),
        ("model: {decoder: {kind: rnn, attention: {scop: local_m}}}\n",
         "model.decoder.attention.scop: unknown key (did you mean scope?)"),
        ("model: {decoder: {kind: rnn, attention: {scope: all}}}\n",
         "model.decoder.attention.scope: found all, expected one of global, local_m, local_p"),
        ("model: {encoder: {kind: cnn}}\n", "model.encoder.kind: found cnn, expected one of rnn, conv, transformer"),
        ("model: {encoder: {kind: rnn, heads: 2}}\n", "model.encoder.heads: a setting of kind transformer, but the"),
        ("model: {decoder: {kind: rnn, kernel: 2}}\n", "model.decoder.kernel: a setting of kind conv, but the kind"),
        ("model: {decoder: {kind: conv, attention: {placement: before}}}\n",
         "model.decoder.attention.placement: a setting of kind rnn, but the kind is conv: remove it, or describe"),
        ("model: {decoder: {attention: {heads: 2}}}\n",
         "model.decoder.attention.heads: a setting of kind rnn, but the kind is transformer: remove it"),
    ],
)  # fmt: skip
def test_unknown_keys(text: str, message: str, tmp_path: Path) -> None:
    assert any(message in line for line in problems(tmp_path, text, "train.max_epochs=1"))


def test_every_misspelt_key_is_reported_with_the_right_one(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", DATA + STOP)
    for key in all_keys():
        section, _, name = key.replace(".N.", ".0.").rpartition(".")
        if len(name) < 4 or key.startswith(("data.test", "model")):
            continue
        wrong = f"{name[:-2]}{name[-1]}{name[-2]}" if name[-1] != name[-2] else name[:-1]
        with pytest.raises(ConfigError) as caught:
            load_config(path, [f"{section}.{wrong}=1".lstrip(".")])
        assert "unknown key (did you mean" in str(caught.value), key
        if name[-1] not in "12":  # beta1 and beta2 are equally near
            assert name in str(caught.value), key


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", "data: missing"),
        ("data:\n  valid: [{src: a, tgt: b}]\n", "c.yaml:1: data.train: missing: expected a list"),
        ("data:\n  train: [{src: a, tgt: b}]\n", "c.yaml:1: data.valid: missing: expected a list"),
        ("data:\n  train: []\n  valid: [{src: a, tgt: b}]\n", "c.yaml:2: data.train: found an empty list"),
        ("data:\n  train: {src: a, tgt: b}\n  valid: [{src: a, tgt: b}]\n", "c.yaml:2: data.train: found a mapping"),
        ("data:\n  train: [a.de]\n  valid: [{src: a, tgt: b}]\n", "c.yaml:2: data.train.0: found a.de, expected a map"),
        ("data: 3\n", "c.yaml:1: data: found 3, expected a mapping"),
    ],
)
def test_required_keys(data: str, message: str, tmp_path: Path) -> None:
    assert any(message in line for line in problems(tmp_path, STOP, data=data))


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_empty_config(text: str, tmp_path: Path) -> None:
    assert problems(tmp_path, text, data="") == ["c.yaml: no settings; data.train and data.valid are required"]


# --- everything at once


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    text = (
        "train:\n  lr: 0\n  warmup: 010\n  label_smothing: 1\n  average: 9\n  batch_tokens: 9999\n  max_steps: 3\n"
        "model:\n  encoder: {dropout: 1, heads: 3}\n  decoder: {layers: 0, width: 63}\n"
        "decode: {n_best: 9}\nname: no\n"
    )
    found = problems(tmp_path, text, "seed=x")
    keys = [line.split(": ")[1] for line in found]
    assert keys == [
        *("train.lr", "train.warmup", "train.label_smothing"),
        *("model.encoder.dropout", "model.decoder.layers", "name", "seed"),
        *("model.encoder.heads", "model.decoder.heads", "model.decoder.width"),
        *("train.average", "train.batch_tokens", "decode.n_best"),
    ]
    assert found[0].startswith("c.yaml:9: ")
    assert found[6] == "--set seed=x: seed: found x, expected a whole number, at least 0"


def test_a_page_of_problems_is_cut(tmp_path: Path) -> None:
    found = problems(tmp_path, "".join(f"zz{number}: 1\n" for number in range(50)) + STOP)
    assert len(found) == 21
    assert found[-1] == "and 30 more problems"


@pytest.mark.parametrize(
    ("overrides", "key", "message"),
    [
        ("data.train.0.tgt=null", "data.train.0", "a corpus of format text needs both 'src' and 'tgt'"),
        ("data.train.0.file=x", "data.train.0", "found 'file', which needs a 'format' other than text"),
        ("data.valid.0.format=tsv", "data.valid.0", "a corpus of format tsv needs 'file'"),
        ("data.valid.0.format=tsv data.valid.0.file=x", "data.valid.0", "has one 'file', not 'src' and 'tgt'"),
        ("data.train.0.split=test", "data.train.0", "'split' belongs to format hub"),
        ("tokenizer.src_model=x", "tokenizer.src_model", "'src_model' and 'tgt_model' go together"),
        ("tokenizer.model=x tokenizer.src_model=x tokenizer.tgt_model=x", "tokenizer.model", "one model for both"),
        ("model.encoder.heads=3", "model.encoder.heads", "found 3, expected a divisor of width 256"),
        ("model.decoder.width=63 model.decoder.heads=3", "model.decoder.width", "an even width for sinusoidal"),
        ("model.encoder.kind=rnn model.encoder.width=255", "model.encoder.width", "an even width, half for each"),
        ("model.tie=decoder model.decoder.kind=rnn model.decoder.embedding=64", "model.tie", "equal to its width"),
        ("model.tie=all model.decoder.width=128", "model.tie", "of one width (encoder 256, decoder 128)"),
        ("model.tie=all tokenizer.joint=false", "model.tie", "found all, which needs one tokenizer for both sides"),
        ("train.max_steps=null", "train", "nothing says when to stop"),
        ("train.max_steps=null train.max_epochs=1 train.schedule=cosine", "train.schedule", "found cosine, which ends"),
        ("train.average=4", "train.average", "found 4, expected at most train.keep_last (3)"),
        ("train.validate_sentences=0", "train.best", "found bleu, but train.validate_sentences is 0"),
        ("train.batch_tokens=5000", "train.batch_tokens", "found 5000, expected at most train.update_tokens (4096)"),
        (
            "train.recompute=true model.encoder.kind=rnn model.decoder.kind=rnn",
            "train.recompute",
            "found true, which does nothing for rnn: it needs a transformer or conv encoder or decoder",
        ),
        (
            "model.encoder.positions=learned model.encoder.max_positions=256",
            "data.cleaning.max_length",
            "found 256, expected less than model.encoder.max_positions (256)",
        ),
        (
            "model.decoder.positions=learned decode.max_length=2000",
            "decode.max_length",
            "found 2000, expected less than model.decoder.max_positions (1024)",
        ),
        (
            "model.encoder.kind=conv model.encoder.kernel=4",
            "model.encoder.kernel",
            "found 4, expected an odd number: as many pieces before as after",
        ),
        (
            "model.encoder.kind=conv model.encoder.embedding=63",
            "model.encoder.embedding",
            "found 63, expected an even width for sinusoidal positions",
        ),
        (
            "model.decoder.kind=conv model.decoder.width=63",
            "model.decoder.width",
            "found 63, expected an even width for sinusoidal positions",
        ),
        (
            "model.encoder.kind=conv model.encoder.positions=learned model.encoder.max_positions=256",
            "data.cleaning.max_length",
            "found 256, expected less than model.encoder.max_positions (256): positions are learned",
        ),
        (
            "model.decoder.kind=rnn model.decoder.attention.heads=3",
            "model.decoder.attention.heads",
            "found 3, expected a divisor of width 512",
        ),
        (
            "model.decoder.kind=conv model.decoder.attention.heads=3",
            "model.decoder.attention.heads",
            "found 3, expected a divisor of width 256",
        ),
        (
            "model.decoder.attention.score=none",
            "model.decoder.attention.score",
            "found none, but a Transformer decoder knows the source by attention only: choose another score",
        ),
        (
            "model.decoder.kind=conv model.decoder.attention.score=none model.decoder.attention.coverage=true",
            "model.decoder.attention.coverage",
            "found true, but model.decoder.attention.score is none: there is no attention to shape",
        ),
        (
            "model.decoder.kind=rnn model.decoder.attention.score=none model.decoder.attention.placement=before",
            "model.decoder.attention.placement",
            "found before, but model.decoder.attention.score is none: there is no attention to shape",
        ),
        (
            "model.decoder.attention.selection=hard model.decoder.attention.features=multi_dimensional",
            "model.decoder.attention.selection",
            "found hard, which chooses one state, but multi_dimensional features share them all",
        ),
        (
            "model.decoder.kind=rnn model.decoder.attention.selection=gumbel "
            "model.decoder.attention.features=multi_dimensional",
            "model.decoder.attention.selection",
            "found gumbel, which chooses one state, but multi_dimensional features share them all",
        ),
        (
            "model.decoder.attention.score=location model.decoder.attention.max_positions=256",
            "data.cleaning.max_length",
            "found 256, expected less than model.decoder.attention.max_positions (256): the score is location",
        ),
        ("decode.weights=ema", "decode.weights", "found ema, which needs train.ema above 0"),
        ("decode.weights=average", "decode.weights", "found average, which needs train.average above 0"),
        ("decode.n_best=6", "decode.n_best", "found 6, expected at most decode.beam (5)"),
    ],
)
def test_settings_that_do_not_go_together(overrides: str, key: str, message: str, tmp_path: Path) -> None:
    found = problems(tmp_path, STOP, "model.tie=none", *overrides.split())
    assert len(found) == 1
    assert f": {key}: " in found[0]
    assert message in found[0]


@pytest.mark.parametrize("kind", ["rnn", "conv"])
def test_without_attention_every_choice_about_it_is_refused(kind: str, tmp_path: Path) -> None:
    """Whatever there is to choose, and nothing where nothing was chosen."""
    score = [f"model.decoder.kind={kind}", "model.decoder.attention.score=none", "model.tie=none"]
    assert load(tmp_path, STOP, *score).model.decoder.attention.score == "none"
    section: RnnAttentionConfig | ConvAttentionConfig = RnnAttentionConfig() if kind == "rnn" else ConvAttentionConfig()
    for name, default in section:
        if name == "score":
            continue
        choices = get_args(type(section).model_fields[name].annotation)
        match default:
            case bool():
                other = "true"
            case float():
                other = str(default / 2)
            case int():
                other = str(default + 1)
            case _:
                other = choices[1]
        found = problems(tmp_path, STOP, *score, f"model.decoder.attention.{name}={other}")
        assert [line for line in found if f"{name}: found {other}, but model.decoder.attention.score is none" in line]


def test_conflicts_name_keys_that_exist() -> None:
    keys = all_keys()
    bad = Config.model_validate(
        {
            "name": "..",
            "data": {"train": [{}], "valid": [{"format": "tsv", "src": "x"}]},
            "tokenizer": {"model": "a", "src_model": "b"},
            "model": {
                "encoder": {"kind": "rnn", "width": 3, "embedding": 5},
                "decoder": {
                    "kind": "rnn",
                    "embedding": 7,
                    "width": 9,
                    "attention": {"score": "none", "heads": 2, "selection": "hard", "features": "multi_dimensional"},
                },
            },
            "train": {"schedule": "linear", "average": 9, "validate_sentences": 0, "batch_tokens": 9999},
            "decode": {"n_best": 6},
        }
    )
    found = list(conflicts(bad))
    assert len(found) > 16
    for conflict in found:
        for key in conflict.keys:
            assert any(f"{known}.".startswith(f"{key}.".replace(".0.", ".N.")) for known in keys), key


# --- overrides


def test_overrides_reach_everything(tmp_path: Path) -> None:
    config = load(
        tmp_path, STOP, "train.lr=3e-4", "data.train.0.weight=2", "data.test=[{src: /a, tgt: /b}]", "name=no",
        "evaluate.lowercase=true", "train.lr=5e-4",
    )  # fmt: skip
    assert config.train.lr == 5e-4
    assert config.data.train[0].weight == 2.0
    assert config.data.test == [CorpusConfig(src="/a", tgt="/b")]
    assert config.name == "no"
    assert config.evaluate.lowercase


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lr=fast", "--set train.lr=fast: train.lr: found fast, expected a number, above 0"),
        ("train.lr=", "--set train.lr=: train.lr: found nothing, expected a number, above 0"),
        ("train.lr='1e-4'", "--set train.lr='1e-4': train.lr: found 1e-4, expected a number, above 0"),
        ("unknown=1", "--set unknown=1: unknown: unknown key"),
        ("train.lrr=1", "--set train.lrr=1: train.lrr: unknown key (did you mean lr?)"),
        ("lr=1", "--set lr=1: lr: unknown key (did you mean train.lr?)"),
        ("data.train.1.weight=2", "there is no such place: data.train is a list of 1, counted from 0"),
        ("data.train.x.weight=2", "there is no such place: data.train is a list of 1, counted from 0"),
        ("train.max_steps.x=1", "there is no such place: train.max_steps is a single value"),
        ("train=3", "--set train=3: train: found 3, expected a mapping"),
        ("data.test=x", "--set data.test=x: data.test: found x, expected a list"),
        ("data.test=[", "--set data.test=[: not YAML"),
        ("name=a\x1bb\nc", "--set name=a\\x1bb\\nc: name: found"),
    ],
)
def test_overrides_that_are_refused(override: str, message: str, tmp_path: Path) -> None:
    assert any(message in line for line in problems(tmp_path, STOP, override))


@pytest.mark.parametrize("override", ["train.lr", "=3", "train..lr=3", "train.lr.=3", "a b=3", ""])
def test_overrides_that_are_no_overrides(override: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected section\.key=value"):
        load(tmp_path, STOP, override)


def test_a_config_may_come_from_overrides_alone() -> None:
    data = ["data.train=[{src: /a, tgt: /b}]", "data.valid=[{src: /c, tgt: /d}]", "train.max_epochs=1"]
    assert load_config(None, data).data.train[0].tgt == "/b"


# --- writing


def test_dump_reads_back_as_an_equal_object(tmp_path: Path) -> None:
    for path in [*CONFIGS.glob("*.yaml"), write(tmp_path / "c.yaml", DATA + STOP)]:
        config = load_config(path)
        text = dump_config(config)
        again = load_config(write(tmp_path / "elsewhere" / "config.yaml", text))
        assert again == config
        assert dump_config(again) == text


@given(st.text())
@settings(max_examples=300, deadline=None, database=None)
def test_any_text_survives_writing(text: str) -> None:
    source = Source("c.yaml", Path())
    written = f"a: {scalar_text(text)}\n".encode("utf-8", "surrogatepass")
    try:
        node = parse(written, source).entries["a"]
    except ConfigError:
        assert not all(char.isprintable() for char in text)  # control characters are refused when read
    else:
        assert resolve(node) == text  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value", [None, True, False, 0, -7, 10**20, 0.1, 1e-9, 1e22, -2.5e-300, "no", "010", "", "a: b"]
)
def test_scalars_survive_writing(value: bool | int | float | str | None) -> None:
    node = parse(f"a: {scalar_text(value)}\n".encode(), Source("c.yaml", Path())).entries["a"]
    found = resolve(node)  # type: ignore[arg-type]
    assert found == value
    assert type(found) is type(value)


def test_schema_describes_every_key() -> None:
    schema = as_schema()
    assert {"extends", *Config.model_fields} == set(schema["properties"])
    train = schema["$defs"]["TrainConfig"]["properties"]
    assert train["lr"]["description"].startswith("Peak learning rate")
    for name, section in schema["$defs"].items():
        for key, field in section["properties"].items():
            assert field.get("description"), f"{name}.{key}"


def test_schema_knows_every_way_to_attend_where_it_can_be_chosen() -> None:
    """A Transformer's heads are the decoder's, and only a recurrent decoder attends before or after a step."""
    sections: dict[str, Any] = as_schema()["$defs"]
    of_all = {"score", "scope", "window", "selection", "entropy_weight", "soft_share", "temperature", "normalizer"}
    of_all |= {"features", "coverage", "coverage_weight", "max_positions"}
    assert set(sections["CrossAttentionConfig"]["properties"]) == of_all
    assert set(sections["ConvAttentionConfig"]["properties"]) == of_all | {"heads"}
    assert set(sections["RnnAttentionConfig"]["properties"]) == of_all | {"heads", "placement"}
    assert len(sections["RnnAttentionConfig"]["properties"]["score"]["enum"]) == 10


# --- going on


def test_every_key_is_in_one_class() -> None:
    prefixes = [prefix for group in CHANGES.values() for prefix in group]
    assert len(prefixes) == len(set(prefixes))
    for key in all_keys():
        assert change_kind(key) in CHANGES
    for prefix in prefixes:
        assert any(f"{key}.".startswith(f"{prefix}.") for key in all_keys()), f"{prefix} names no key"


@pytest.mark.parametrize(
    ("override", "kind", "line"),
    [
        ("train.max_steps=20", "free", "train.max_steps: 10 → 20"),
        ("train.patience=2", "free", "train.patience: not set → 2"),
        ("train.tensorboard=true", "free", "train.tensorboard: false → true"),
        ("train.recompute=true", "free", "train.recompute: false → true"),
        ("decode.beam=1", "free", "decode.beam: 5 → 1"),
        ("evaluate.lowercase=true", "free", "evaluate.lowercase: false → true"),
        ("data.test=[{src: /a, tgt: /b}]", "free", "data.test.0.src: not set → /a"),
        ("data.train.0.src=/moved/train.de", "free", "data.train.0.src: /"),
        ("device=cpu", "warned", "device: auto → cpu"),
        ("train.threads=2", "warned", "train.threads: auto → 2"),
        ("train.precision=bf16", "warned", "train.precision: auto → bf16"),
        ("seed=2", "refused", "seed: 1 → 2"),
        ("train.lr=0.5", "refused", "train.lr: 0.001 → 0.5"),
        ("train.update_tokens=5", "refused", "train.update_tokens: 4096 → 5"),
        ("model.encoder.layers=1", "refused", "model.encoder.layers: 3 → 1"),
        ("data.train.0.weight=2", "refused", "data.train.0.weight: 1.0 → 2.0"),
        ("data.normalization=nfkc", "refused", "data.normalization: nfc → nfkc"),
        ("tokenizer.vocab_size=9", "refused", "tokenizer.vocab_size: 8000 → 9"),
    ],
)
def test_what_may_change(override: str, kind: str, line: str, tmp_path: Path) -> None:
    found = differences(load(tmp_path, STOP), load(tmp_path, STOP, override))
    assert getattr(found, kind)[0].startswith(line)
    assert len(found.free + found.warned + found.refused) == len(getattr(found, kind))


def test_nothing_changes_when_nothing_changed(tmp_path: Path) -> None:
    found = differences(load(tmp_path, STOP), load(tmp_path, STOP))
    assert (found.free, found.warned, found.refused) == ([], [], [])


def test_another_kind_is_one_line(tmp_path: Path) -> None:
    text = STOP + "model: {tie: none}\n"
    found = differences(load(tmp_path, text), load(tmp_path, text, "model.encoder.kind=rnn"))
    assert found.refused == ["model.encoder.kind: transformer → rnn"]


def test_more_steps_change_the_rate_of_some_schedules(tmp_path: Path) -> None:
    text = STOP + "  schedule: linear\n"
    found = differences(load(tmp_path, text), load(tmp_path, text, "train.max_steps=20"))
    assert found.warned == ["train.max_steps: 10 → 20"]


def test_config_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no such config file"):
        load_config(tmp_path / "missing.yaml")
