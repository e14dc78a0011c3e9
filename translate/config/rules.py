"""What settings must agree on with each other, and which ones may change when a run goes on."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from translate.config.architectures import (
    ConvAttentionConfig,
    ConvEncoderConfig,
    RnnAttentionConfig,
    RnnDecoderConfig,
    RnnEncoderConfig,
    TransformerDecoderConfig,
    TransformerEncoderConfig,
    embedding_width,
)
from translate.config.settings import Config, CorpusConfig, TokenizerConfig, TrainConfig

ChangeKind = Literal["free", "warned", "refused"]

# By the longest prefix that matches. A key that matches none is a mistake of ours, and a test finds it.
CHANGES: dict[ChangeKind, tuple[str, ...]] = {
    "free": (
        *("name", "decode", "evaluate", "data.test"),
        # Where the files lie. What is in them is compared by digests.
        *("data.train.N.src", "data.train.N.tgt", "data.train.N.file", "data.train.N.name"),
        *("data.valid.N.src", "data.valid.N.tgt", "data.valid.N.file", "data.valid.N.name"),
        *("tokenizer.model", "tokenizer.src_model", "tokenizer.tgt_model"),
        *("train.max_steps", "train.max_epochs", "train.max_minutes", "train.patience"),
        *("train.validate_every", "train.validate_sentences", "train.save_every", "train.save_minutes"),
        *("train.keep_last", "train.average", "train.log_every", "train.tensorboard", "train.recompute"),
    ),
    "warned": (
        *("device", "train.threads", "train.precision", "train.matmul", "train.batch_tokens", "train.deterministic"),
        "train.distributed",
    ),
    "refused": (
        *("seed", "data.train", "data.valid", "data.normalization", "data.cleaning", "tokenizer", "model"),
        *("train.lr", "train.schedule", "train.warmup", "train.min_lr", "train.plateau_factor"),
        *("train.plateau_patience", "train.label_smoothing", "train.beta1", "train.beta2", "train.weight_decay"),
        *("train.clip", "train.update_tokens", "train.best", "train.ema", "train.init_from"),
    ),
}


@dataclass(frozen=True)
class Conflict:
    """Settings that make no sense together; the first of `keys` is where it is reported."""

    keys: tuple[str, ...]
    problem: str


@dataclass
class Differences:
    """What differs between two configs, each as `key: old → new`, by what it means for a run that goes on."""

    free: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def differences(old: Config, new: Config) -> Differences:
    """Compare the settings of a run with those it is asked to go on with."""
    before, after = flatten(old), flatten(new)
    found = Differences()
    for key in [*before, *(key for key in after if key not in before)]:
        was, now = before.get(key), after.get(key)
        parent = key.rpartition(".")[0]
        if was == now or (not key.endswith(".kind") and before.get(f"{parent}.kind") != after.get(f"{parent}.kind")):
            continue  # of a part that became another kind, only the kind is worth a line
        kind = change_kind(key)
        if key == "train.max_steps" and new.train.schedule in ("cosine", "linear"):
            kind = "warned"  # these schedules end at max_steps: the rate is another from here on
        getattr(found, kind).append(f"{key}: {_shown(was)} → {_shown(now)}")
    return found


def change_kind(key: str) -> ChangeKind:
    """Whether a setting may change when a run goes on: freely, with a warning, or not at all."""
    key = ".".join("N" if part.isdigit() else part for part in key.split("."))
    matches = [
        (len(prefix), kind)
        for kind, prefixes in CHANGES.items()
        for prefix in prefixes
        if f"{key}.".startswith(f"{prefix}.")
    ]
    assert matches, f"{key} is in no class of CHANGES"
    return max(matches)[1]


def flatten(config: Config) -> dict[str, Any]:
    """All settings of a config by dotted key, lists by index: `data.train.0.src`."""

    def walk(value: Any, key: str) -> Iterator[tuple[str, Any]]:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
        if items is None:
            yield key, value
        else:
            for name, child in items:
                yield from walk(child, f"{key}.{name}" if key else str(name))

    return dict(walk(config.model_dump(), ""))


def _shown(value: Any) -> str:
    return "not set" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def conflicts(config: Config) -> Iterator[Conflict]:
    """Yield each combination of settings that makes no sense."""
    name = config.name
    if name is not None and (name in ("", ".", "..") or "/" in name or "\\" in name or not name.isprintable()):
        yield Conflict(("name",), f"found {name!r}, expected a plain directory name")
    for split in ("train", "valid", "test"):
        for index, corpus in enumerate(getattr(config.data, split)):
            for problem in _corpus_conflicts(corpus):
                yield Conflict((f"data.{split}.{index}",), problem)
    yield from _tokenizer_conflicts(config.tokenizer)
    yield from _model_conflicts(config)
    yield from _attention_conflicts(config)
    yield from _position_conflicts(config)
    yield from _tie_conflicts(config)
    yield from _train_conflicts(config.train)
    yield from _recompute_conflicts(config)
    yield from _weights_conflicts(config)
    beam, n_best = config.decode.beam, config.decode.n_best
    if n_best > beam:
        yield Conflict(("decode.n_best", "decode.beam"), f"found {n_best}, expected at most decode.beam ({beam})")


def _corpus_conflicts(corpus: CorpusConfig) -> Iterator[str]:
    if corpus.format == "text":
        if corpus.file is not None:
            yield "found 'file', which needs a 'format' other than text (tsv, jsonl, parquet, arrow, hub)"
        elif corpus.src is None or corpus.tgt is None:
            yield "a corpus of format text needs both 'src' and 'tgt'"
    else:
        if corpus.file is None:
            yield f"a corpus of format {corpus.format} needs 'file'"
        if corpus.src is not None or corpus.tgt is not None:
            yield f"a corpus of format {corpus.format} has one 'file', not 'src' and 'tgt'"
    if corpus.format != "hub":
        for key in ("subset", "split", "revision"):
            if getattr(corpus, key) is not None:
                yield f"'{key}' belongs to format hub, but the format is {corpus.format}"


def _tokenizer_conflicts(tokenizer: TokenizerConfig) -> Iterator[Conflict]:
    keys = ("tokenizer.src_model", "tokenizer.tgt_model", "tokenizer.model")
    if (tokenizer.src_model is None) != (tokenizer.tgt_model is None):
        yield Conflict(keys[:2], "'src_model' and 'tgt_model' go together: give both, or 'model' for both sides")
    if tokenizer.model is not None and (tokenizer.src_model is not None or tokenizer.tgt_model is not None):
        yield Conflict(keys[::-1], "one model for both sides excludes 'src_model' and 'tgt_model'")


def _model_conflicts(config: Config) -> Iterator[Conflict]:
    for side, part in (("encoder", config.model.encoder), ("decoder", config.model.decoder)):
        key, width = f"model.{side}", f"model.{side}.width"
        if isinstance(part, TransformerEncoderConfig) and part.width % part.heads:
            problem = f"found {part.heads}, expected a divisor of width {part.width}"
            yield Conflict((f"{key}.heads", width), problem)
        if not isinstance(part, RnnEncoderConfig | RnnDecoderConfig):
            size = embedding_width(part)
            if part.positions == "sinusoidal" and size % 2:
                named = (
                    width
                    if isinstance(part, TransformerEncoderConfig) or part.embedding is None
                    else f"{key}.embedding"
                )
                problem = f"found {size}, expected an even width for sinusoidal positions"
                yield Conflict((named, f"{key}.positions"), problem)
    encoder = config.model.encoder
    if isinstance(encoder, RnnEncoderConfig) and encoder.bidirectional and encoder.width % 2:
        problem = f"found {encoder.width}, expected an even width, half for each direction"
        yield Conflict(("model.encoder.width", "model.encoder.bidirectional"), problem)
    if isinstance(encoder, ConvEncoderConfig) and encoder.kernel % 2 == 0:
        problem = f"found {encoder.kernel}, expected an odd number: as many pieces before as after"
        yield Conflict(("model.encoder.kernel",), problem)


def _attention_conflicts(config: Config) -> Iterator[Conflict]:
    decoder = config.model.decoder
    attention, key = decoder.attention, "model.decoder.attention"
    if isinstance(attention, RnnAttentionConfig | ConvAttentionConfig) and decoder.width % attention.heads:
        problem = f"found {attention.heads}, expected a divisor of width {decoder.width}"
        yield Conflict((f"{key}.heads", "model.decoder.width"), problem)
    if attention.score == "none":
        if isinstance(decoder, TransformerDecoderConfig):
            problem = "found none, but a Transformer decoder knows the source by attention only: choose another score"
            yield Conflict((f"{key}.score",), problem)
        for name, value in attention:
            if name != "score" and value != type(attention).model_fields[name].default:
                problem = f"found {_shown(value)}, but {key}.score is none: there is no attention to shape"
                yield Conflict((f"{key}.{name}", f"{key}.score"), problem)
    if attention.selection != "soft" and attention.features == "multi_dimensional":
        problem = f"found {attention.selection}, which chooses one state, but multi_dimensional features share them all"
        yield Conflict((f"{key}.selection", f"{key}.features"), problem)


def _position_conflicts(config: Config) -> Iterator[Conflict]:
    """What has a vector for each position must reach one further than the longest text: there is BOS or EOS besides."""
    text, encoder, decoder = config.data.cleaning.max_length, config.model.encoder, config.model.decoder
    limits: list[tuple[str, int, str, int, str]] = []  # key and value of the text, key and value of the limit, reason
    for side, part in (("encoder", encoder), ("decoder", decoder)):
        if not isinstance(part, RnnEncoderConfig | RnnDecoderConfig) and part.positions == "learned":
            limit = (f"model.{side}.max_positions", part.max_positions, "positions are learned")
            limits.append(("data.cleaning.max_length", text, *limit))
            if side == "decoder":
                limits.append(("decode.max_length", config.decode.max_length, *limit))
    if decoder.attention.score == "location":
        limit = ("model.decoder.attention.max_positions", decoder.attention.max_positions, "the score is location")
        limits.append(("data.cleaning.max_length", text, *limit))
    for key, length, name, most, reason in limits:
        if length >= most:
            yield Conflict((key, name), f"found {length}, expected less than {name} ({most}): {reason}")


def _recompute_conflicts(config: Config) -> Iterator[Conflict]:
    encoder, decoder = config.model.encoder, config.model.decoder
    if config.train.recompute and isinstance(encoder, RnnEncoderConfig) and isinstance(decoder, RnnDecoderConfig):
        problem = "found true, which does nothing for rnn: it needs a transformer or conv encoder or decoder"
        yield Conflict(("train.recompute", "model.encoder", "model.decoder"), problem)


def _weights_conflicts(config: Config) -> Iterator[Conflict]:
    wanted = config.decode.weights
    if (wanted == "ema" and not config.train.ema) or (wanted == "average" and not config.train.average):
        problem = f"found {wanted}, which needs train.{wanted} above 0"
        yield Conflict(("decode.weights", f"train.{wanted}"), problem)


def _tie_conflicts(config: Config) -> Iterator[Conflict]:
    tie, tokenizer = config.model.tie, config.tokenizer
    encoder, decoder = embedding_width(config.model.encoder), embedding_width(config.model.decoder)
    widths = ("model.tie", "model.encoder", "model.decoder")
    if tie != "none" and decoder != config.model.decoder.width:
        problem = f"found {tie}, which needs model.decoder.embedding equal to its width {config.model.decoder.width}"
        yield Conflict(widths, problem)
    if tie == "all" and encoder != decoder:
        needs = f"word vectors of one width (encoder {encoder}, decoder {decoder})"
        yield Conflict(widths, f"found all, which needs {needs}; use decoder or none")
    if tie == "all" and (not tokenizer.joint or tokenizer.src_model is not None):
        problem = "found all, which needs one tokenizer for both sides; use decoder or none"
        yield Conflict(("model.tie", "tokenizer.joint", "tokenizer.src_model"), problem)


def _train_conflicts(train: TrainConfig) -> Iterator[Conflict]:
    stops = ("max_steps", "max_epochs", "max_minutes", "patience")
    if all(getattr(train, key) is None for key in stops):
        problem = "nothing says when to stop: set max_steps, max_epochs, max_minutes or patience"
        yield Conflict(("train", *(f"train.{key}" for key in stops)), problem)
    if train.schedule in ("cosine", "linear") and train.max_steps is None:
        problem = f"found {train.schedule}, which ends at train.max_steps: set it"
        yield Conflict(("train.schedule", "train.max_steps"), problem)
    if train.average > train.keep_last:
        problem = f"found {train.average}, expected at most train.keep_last ({train.keep_last})"
        yield Conflict(("train.average", "train.keep_last"), problem)
    if train.best == "bleu" and train.validate_sentences == 0:
        problem = "found bleu, but train.validate_sentences is 0: choose loss"
        yield Conflict(("train.best", "train.validate_sentences"), problem)
    if train.batch_tokens != "auto" and train.batch_tokens > train.update_tokens:
        problem = f"found {train.batch_tokens}, expected at most train.update_tokens ({train.update_tokens})"
        yield Conflict(("train.batch_tokens", "train.update_tokens"), problem)
