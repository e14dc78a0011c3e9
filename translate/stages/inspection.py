"""translate inspect attention: what each piece of a translation looked at, as pictures and as numbers."""

import json
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch

from translate.config import Config, TransformerDecoderConfig, TransformerEncoderConfig
from translate.config.reader import load_config
from translate.decoding.translator import padded
from translate.durable import digest_bytes, durable_text, durable_write
from translate.errors import DataError, OutputError, UsageError
from translate.models.seq2seq import Record
from translate.report.head_grid import draw_heads
from translate.report.heatmap import draw
from translate.report.page import Grid, Picture, write_page
from translate.report.words import Weights, by_words, word_spans, word_texts
from translate.run import RunDirectory
from translate.stages.inspected_pair import Inspected, Pair, refuse_without_attention
from translate.text.tokenizer import BOS

DIGITS = 6
"""Of a weight in the JSON."""
NAME_LENGTH = 40
ENDINGS = (".png", ".html", ".json")
Which = Literal["cross", "encoder", "decoder", "all"]
"""Attention of the decoder to the source, of the encoder to itself, of the decoder to itself, or all there is."""


@dataclass(frozen=True)
class View:
    """Attention of one sort: weights (H, T, S) of each layer by the path it was recorded under, and their labels."""

    name: str
    caption: str
    layers: dict[str, npt.NDArray[np.float32]]
    src: list[str]
    """What is looked at (S)."""
    tgt: list[str]
    """Who looks (T)."""

    @property
    def by_layer(self) -> dict[str, Weights]:
        """The weights by a name for people: decoder.layers.0.cross_attention is layer 1."""
        return {_layer_name(path): heads for path, heads in self.layers.items()}


@dataclass
class AttentionReport:
    """The weights of one translated sentence; both sides end in </s>, row t is what predicted tgt[t] looked at."""

    sentence: str
    translation: str
    step: int
    src: list[str]
    tgt: list[str]
    tgt_in: list[str]
    """What the decoder reads: <s>, then tgt without its end."""
    weights: Weights | None
    """(T, S), by pieces: the model's own alignment, the mean over layers and heads; None if it was not asked for."""
    views: list[View]
    """Where weights are known by head: each sort that was asked for."""
    paths: dict[str, Path] = field(default_factory=dict)

    @property
    def words(self) -> tuple[list[str], list[str], Weights]:
        """Source words, target words, and weights summed over source and averaged over target pieces."""
        assert self.weights is not None
        src, tgt = word_spans(self.src), word_spans(self.tgt)
        return word_texts(self.src, src), word_texts(self.tgt, tgt), by_words(self.weights, tgt, src)

    def to_json(self) -> dict[str, Any]:
        """The numbers: `pieces` and `words`, each with src (S), tgt (T) and weights (T, S); `heads` by layer.

        Under `heads` are weights (H, T, S) of the decoder to the source, (H, S, S) of the encoder to itself, and
        (H, T, T) of the decoder to itself, whose columns are `tgt_in`. Without the first, `pieces` have no weights
        and there are no `words`.
        """
        pieces: dict[str, Any] = {"src": self.src, "tgt": self.tgt, "tgt_in": self.tgt_in}
        found = {"sentence": self.sentence, "translation": self.translation, "step": self.step, "pieces": pieces}
        if self.weights is not None:
            pieces["weights"] = _rounded(self.weights)
            src, tgt, weights = self.words
            found["words"] = {"src": src, "tgt": tgt, "weights": _rounded(weights)}
        heads = {path: _rounded(weights) for view in self.views for path, weights in view.layers.items()}
        return {**found, "heads": heads}

    def summary(self) -> list[str]:
        """A few lines for the user."""
        return [f"{self.sentence} → {self.translation}", *(f"{name}: {path}" for name, path in self.paths.items())]


def inspect_attention(
    run: RunDirectory,
    sentence: str,
    target: str | None = None,
    output: Path | None = None,
    config: Config | None = None,
    which: str = "cross",
) -> AttentionReport:
    """`inspect_sentences` of one sentence."""
    return next(inspect_sentences(run, [sentence], target, output, config, which))


def inspect_sentences(
    run: RunDirectory,
    sentences: Sequence[str],
    target: str | None = None,
    output: Path | None = None,
    config: Config | None = None,
    which: str = "cross",
) -> Iterator[AttentionReport]:
    """Translate sentences (or take `target` as the translation of the only one), and write what the model looked at.

    `which` says where to look: `cross`, `encoder`, `decoder` or `all` (see `Which`). Written are `output` as PNG, with
    the endings .html and .json, and where there are heads a PNG of all of them; without `output` they are named after
    the sentence and lie in the run's `inspect/`. `config` says which weights and which search to use, by default as
    the run does. Raises UsageError for what does not go together, and DataError for a model without such attention
    and for a blank text, before anything is written.
    """
    if len(sentences) != 1 and (target is not None or output is not None):
        option = "--target" if target is not None else "--output"
        raise UsageError(f"{option} goes with one sentence, found {len(sentences)}: give one, or leave {option} out")
    chosen = _chosen(which)
    config = config or load_config(run.config_file, [])
    stems = [_stem(run, sentence, target, output, chosen) for sentence in sentences]
    inspected = Inspected.open(run, config)
    _refuse(inspected.loaded.config, chosen)
    pairs = [inspected.read(sentence, target) for sentence in sentences]
    for pair, stem in zip(pairs, stems, strict=True):
        report = _look(inspected, pair, chosen)
        _write(report, stem)
        yield report


def _chosen(which: str) -> Which:
    for name in get_args(Which):
        if which == name:
            return name
    raise UsageError(f"--which {which}: expected {', '.join(get_args(Which)[:-1])} or {get_args(Which)[-1]}")


def _refuse(config: Config, which: Which) -> None:
    """Raise DataError for a model without the attention that is asked for."""
    encoder, decoder = config.model.encoder, config.model.decoder
    parts = {
        "encoder": isinstance(encoder, TransformerEncoderConfig),
        "decoder": isinstance(decoder, TransformerDecoderConfig),
    }
    if which == "cross" or (which == "all" and not any(parts.values())):
        refuse_without_attention(config)
    elif which != "all" and not parts[which]:
        kind = encoder.kind if which == "encoder" else decoder.kind
        raise DataError(
            f"no attention to show: model.{which}.kind is {kind}, and only a Transformer looks at itself; "
            "choose --which cross"
        )


def _look(inspected: Inspected, pair: Pair, which: Which) -> AttentionReport:
    """Run the model over sentence and translation once, keeping the weights."""
    loaded, device = inspected.loaded, inspected.device
    record: Record = {}
    with torch.inference_mode():
        loaded.model(padded([pair.src_ids], device), padded([[BOS, *pair.tgt_ids]], device), record)
    src, tgt, tgt_in = (labels(loaded.tokenizer) for labels in (pair.src, pair.tgt, pair.tgt_in))
    views = [
        View("heads", "Rows are what is written, columns what is looked at in the source.", {}, src, tgt),
        View("encoder", "The source looks at itself: rows are who looks, columns what is looked at.", {}, src, src),
        View("decoder", "Rows are what is written, columns what of the translation is known by then.", {}, tgt_in, tgt),
    ]
    for path, weights in record.items():
        if path != "alignment":
            itself = path.endswith("self_attention")
            views[0 if not itself else 1 if path.startswith("encoder") else 2].layers[path] = _array(weights)
    wanted = {"cross": views[:1], "encoder": views[1:2], "decoder": views[2:], "all": views}[which]
    aligned = which in ("cross", "all") and "alignment" in record
    return AttentionReport(
        pair.sentence,
        pair.translation,
        loaded.step,
        src,
        tgt,
        tgt_in,
        _array(record["alignment"]) if aligned else None,
        [view for view in wanted if view.layers],
    )


def _array(weights: torch.Tensor) -> npt.NDArray[np.float32]:
    """The only sentence of a batch (1, ..., T, S)."""
    array: npt.NDArray[np.float32] = weights[0].float().cpu().numpy()
    return array


def _rounded(weights: npt.NDArray[np.float32]) -> Any:
    return np.round(weights.astype(np.float64), DIGITS).tolist()


def _stem(run: RunDirectory, sentence: str, target: str | None, output: Path | None, which: Which) -> Path:
    """Where the files go, without their ending: `output`, or a name made of the sentence."""
    if output is None:
        text = unicodedata.normalize("NFC", sentence)
        words = "".join(character if character.isalnum() else " " for character in text).split()
        key = digest_bytes("\n".join((sentence, target or "")).encode(errors="replace"))[:8]
        sort = () if which == "cross" else (which,)
        return run.inspect / "-".join((*"-".join(words)[:NAME_LENGTH].split("-"), key, *sort)).lstrip("-")
    if output.is_dir():
        raise OutputError(f"{output}: is a directory, expected the name of a file to write")
    return output.with_suffix("") if output.suffix.lower() in ENDINGS else output


def _write(report: AttentionReport, stem: Path) -> None:
    """Write pictures, page and numbers, each whole or not at all; the first picture has the name without a suffix."""
    title = f"{report.sentence}\n→ {report.translation}"
    drawn: dict[str, bytes] = {}
    if report.weights is not None:
        drawn["picture"] = draw(report.weights, report.src, report.tgt, title)
    for view in report.views:
        name = view.name if drawn else "picture"
        drawn[name] = draw_heads(view.by_layer, view.src, view.tgt, f"{title}\n{view.caption}")
    for name, data in drawn.items():
        report.paths[name] = stem.with_name(stem.name + ("" if name == "picture" else f"-{name}") + ".png")
        durable_write(report.paths[name], data)
    lines = [report.translation, f"Rows are who looks, columns what is looked at. Step {report.step}."]
    if report.views:
        lines.append("A click on a head shows it larger.")
    for name, text in (
        ("page", write_page(report.sentence, lines, _pictures(report))),
        ("numbers", json.dumps(report.to_json(), ensure_ascii=False) + "\n"),
    ):
        report.paths[name] = stem.with_name(stem.name + {"page": ".html", "numbers": ".json"}[name])
        durable_text(report.paths[name], text)


def _pictures(report: AttentionReport) -> list[Picture | Grid]:
    """By pieces, by words, then all heads of each sort together, then each head."""
    pictures: list[Picture | Grid] = []
    if report.weights is not None:
        src, tgt, weights = report.words
        pictures += [
            Picture("by pieces", report.weights, report.src, report.tgt),
            Picture("by words", weights, src, tgt),
        ]
    grids = [Grid(view.name, view.by_layer) for view in report.views]
    pictures += grids
    for view, grid in zip(report.views, grids, strict=True):
        for layer, heads in view.by_layer.items():
            for head, each in enumerate(heads):
                pictures.append(Picture(grid.picture_name(layer, head), each, view.src, view.tgt))
    return pictures


def _layer_name(path: str) -> str:
    """decoder.layers.0.cross_attention -> layer 1; a decoder that looks once has no layers to name."""
    parts = path.split(".")
    return f"layer {int(parts[2]) + 1}" if "layers" in parts else "decoder"
