"""translate inspect attention: what each piece of a translation looked at, as pictures and as numbers."""

import json
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from translate.config import Config, RnnDecoderConfig
from translate.config.reader import load_config
from translate.decoding.scorer import Scorer
from translate.decoding.translator import Translator, padded
from translate.device import resolve
from translate.errors import DataError, OutputError
from translate.models.seq2seq import Record
from translate.report.heatmap import draw, draw_heads
from translate.report.page import Picture, write_page
from translate.report.words import Weights, by_words, word_spans, word_texts
from translate.run import RunDirectory, digest_bytes, durable_text, durable_write
from translate.text.tokenizer import BOS, EOS
from translate.training.checkpoint import LoadedModel, load_model

DIGITS = 6
"""Of a weight in the JSON."""
NAME_LENGTH = 40
ENDINGS = (".png", ".html", ".json")


@dataclass
class AttentionReport:
    """The weights of one translated sentence; both sides end in </s>, row t is what predicted tgt[t] looked at."""

    sentence: str
    translation: str
    step: int
    src: list[str]
    tgt: list[str]
    weights: Weights
    """(T, S), by pieces: the model's own alignment, for a Transformer the mean over layers and heads."""
    layers: dict[str, npt.NDArray[np.float32]]
    """Of a Transformer: each decoder layer's cross-attention (H, T, S)."""
    paths: dict[str, Path] = field(default_factory=dict)

    @property
    def words(self) -> tuple[list[str], list[str], Weights]:
        """Source words, target words, and weights summed over source and averaged over target pieces."""
        src, tgt = word_spans(self.src), word_spans(self.tgt)
        return word_texts(self.src, src), word_texts(self.tgt, tgt), by_words(self.weights, tgt, src)

    def to_json(self) -> dict[str, Any]:
        """The numbers: `pieces` and `words`, each with src (S), tgt (T) and weights (T, S); `heads` by layer."""
        src, tgt, weights = self.words
        return {
            "sentence": self.sentence,
            "translation": self.translation,
            "step": self.step,
            "pieces": {"src": self.src, "tgt": self.tgt, "weights": _rounded(self.weights)},
            "words": {"src": src, "tgt": tgt, "weights": _rounded(weights)},
            "heads": {name: _rounded(heads) for name, heads in self.layers.items()},
        }

    def summary(self) -> list[str]:
        """A few lines for the user."""
        return [f"{self.sentence} → {self.translation}", *(f"{name}: {path}" for name, path in self.paths.items())]


def inspect_attention(
    run: RunDirectory,
    sentence: str,
    target: str | None = None,
    output: Path | None = None,
    config: Config | None = None,
) -> AttentionReport:
    """Translate a sentence (or take `target` as its translation), and write what the model looked at.

    Written are `output` as PNG, with the endings .html and .json, and for a Transformer a second PNG by head; without
    `output` they are named after the sentence and lie in the run's `inspect/`. `config` says which weights and which
    search to use, by default as the run does. Raises DataError for a model without attention and for a blank text.
    """
    config = config or load_config(run.config_file, [])
    stem = _stem(run, sentence, target, output)
    machine = resolve(
        config.device, "fp32", config.train.threads, config.train.matmul, run.machine_file, remember=False
    )
    loaded = load_model(run, config.decode.weights, torch.device(machine.device))
    _refuse_without_attention(loaded.config)
    report = _look(loaded, sentence, target, config, torch.device(machine.device))
    _write(report, stem)
    return report


def _refuse_without_attention(config: Config) -> None:
    decoder = config.model.decoder
    if isinstance(decoder, RnnDecoderConfig) and decoder.attention.score == "none":
        raise DataError(
            "no attention to draw: model.decoder.attention.score is none; train a run with general or additive, say"
        )


def _look(
    loaded: LoadedModel, sentence: str, target: str | None, config: Config, device: torch.device
) -> AttentionReport:
    """Run the model over sentence and translation once, keeping the weights."""
    tokenizer = loaded.tokenizer
    src_ids = tokenizer.encode_src(sentence)
    if len(src_ids) < 2:
        raise DataError("no attention to draw: the sentence is blank; give one with words in it")
    if target is None:
        found = next(Translator(Scorer([loaded.model]), tokenizer, config.decode, device).translate([sentence]))[0]
        if not found.found:
            raise DataError("no attention to draw: the model gave no finite probabilities; try decode.weights: last")
        tgt_ids, translation = found.ids, found.text
    else:
        tgt_ids, translation = tokenizer.encode_tgt(target), tokenizer.normalize(target)
        if not tgt_ids:
            raise DataError("no attention to draw: the target is blank; leave it out to see the model's own")
    record: Record = {}
    with torch.inference_mode():
        loaded.model(padded([src_ids], device), padded([[BOS, *tgt_ids]], device), record)
    return AttentionReport(
        tokenizer.normalize(sentence),
        translation,
        loaded.step,
        tokenizer.pieces_src(src_ids),
        tokenizer.pieces_tgt([*tgt_ids, EOS]),
        _array(record["alignment"]),
        {path: _array(weights) for path, weights in record.items() if path.endswith("cross_attention")},
    )


def _array(weights: torch.Tensor) -> npt.NDArray[np.float32]:
    """The only sentence of a batch (1, ..., T, S)."""
    array: npt.NDArray[np.float32] = weights[0].float().cpu().numpy()
    return array


def _rounded(weights: npt.NDArray[np.float32]) -> Any:
    return np.round(weights.astype(np.float64), DIGITS).tolist()


def _stem(run: RunDirectory, sentence: str, target: str | None, output: Path | None) -> Path:
    """Where the files go, without their ending: `output`, or a name made of the sentence."""
    if output is None:
        text = unicodedata.normalize("NFC", sentence)
        words = "".join(character if character.isalnum() else " " for character in text).split()
        key = digest_bytes("\n".join((sentence, target or "")).encode(errors="replace"))[:8]
        return run.inspect / "-".join((*"-".join(words)[:NAME_LENGTH].split("-"), key)).lstrip("-")
    if output.is_dir():
        raise OutputError(f"{output}: is a directory, expected the name of a file to write")
    return output.with_suffix("") if output.suffix.lower() in ENDINGS else output


def _write(report: AttentionReport, stem: Path) -> None:
    """Write pictures, page and numbers, each whole or not at all."""
    title = f"{report.sentence} → {report.translation}"
    files = {name: stem.with_name(stem.name + ending) for name, ending in _FILES.items()}
    durable_write(files["picture"], draw(report.weights, report.src, report.tgt, title))
    if report.layers:
        layers = {_layer_name(path): heads for path, heads in report.layers.items()}
        durable_write(files["heads"], draw_heads(layers, report.src, report.tgt, title))
    else:
        del files["heads"]
    lines = [report.translation, f"Rows are the translation's pieces, columns the source's. Step {report.step}."]
    durable_text(files["page"], write_page(report.sentence, lines, _pictures(report)))
    durable_text(files["numbers"], json.dumps(report.to_json(), ensure_ascii=False) + "\n")
    report.paths = files


_FILES = {"picture": ".png", "heads": "-heads.png", "page": ".html", "numbers": ".json"}


def _pictures(report: AttentionReport) -> list[Picture]:
    """By pieces, by words, then each head."""
    src, tgt, weights = report.words
    pictures = [
        Picture("by pieces", report.weights, report.src, report.tgt),
        Picture("by words", weights, src, tgt),
    ]
    for path, heads in report.layers.items():
        for head, each in enumerate(heads, start=1):
            pictures.append(Picture(f"{_layer_name(path)}, head {head}", each, report.src, report.tgt))
    return pictures


def _layer_name(path: str) -> str:
    """decoder.layers.0.cross_attention -> layer 1."""
    return f"layer {int(path.split('.')[2]) + 1}"
