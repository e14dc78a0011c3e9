"""Text to pieces and back with SentencePiece (Kudo and Richardson 2018): trained here, or a ready model."""

import io
import json
import os
import re
import threading
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import sentencepiece

from translate.config import TokenizerConfig
from translate.durable import digest_bytes, durable_json, durable_write
from translate.errors import ConfigError, DataError
from translate.text.lines import clean_line, opened, shown

PAD, BOS, EOS, UNK = 0, 1, 2, 3
Side = Literal["src", "tgt"]
Normalization = Literal["nfc", "nfkc", "none"]

THREADS = 8
"""Threads of training: the order of their sums shows in the model, so their number cannot depend on the machine."""
LARGEST_MODEL = 256 * 2**20
LONGEST_SENTENCE = 2**30
"""Bytes; the library skips longer lines without a word, so none may be longer."""
BLOB = b"translate tokenizer 1\n"
SILENT = 3

INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u2060\ufeff\ud800-\udfff]+")
SPACES = re.compile("[\\s\x00-\x1f\x7f-\x9f\u2581]+")
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")

sentencepiece.set_min_log_level(SILENT)


def normalize(line: str, form: Normalization) -> str:
    """What the tokenizer sees of a line: Unicode form, runs of white space and controls as one space, ends stripped.

    Soft hyphens, zero-width spaces, direction marks and halves of surrogate pairs go; so does U+2581, which is
    SentencePiece's sign for a space. Applying it again changes nothing.
    """
    line = INVISIBLE.sub("", line)
    match form:
        case "nfc":
            line = unicodedata.normalize("NFC", line)
        case "nfkc":
            line = unicodedata.normalize("NFKC", line)
    return SPACES.sub(" ", line).strip(" ")


class Tokenizer:
    """One SentencePiece model a side, or one for both (`joint`); ids 0 to 3 are PAD, BOS, EOS, UNK in each."""

    def __init__(self, src: bytes, tgt: bytes | None, normalization: Normalization, name: str = "tokenizer") -> None:
        self.src_model = src
        self.tgt_model = src if tgt is None else tgt
        self.joint = tgt is None or tgt == src
        self.normalization: Normalization = normalization
        self._src = _processor(src, name if self.joint else f"{name} (source)")
        self._tgt = self._src if self.joint else _processor(self.tgt_model, f"{name} (target)")
        self.src_size: int = self._src.get_piece_size()
        self.tgt_size: int = self._tgt.get_piece_size()

    @classmethod
    def from_bytes(cls, src: bytes, tgt: bytes | None = None, normalization: Normalization = "nfc") -> Self:
        """From the bytes of model files; without `tgt` one model serves both sides. Raises DataError."""
        return cls(src, tgt, normalization)

    @classmethod
    def from_files(cls, src: Path, tgt: Path | None, normalization: Normalization) -> Self:
        """From ready `.model` files. Raises MissingInputError or DataError, which name the file."""
        src_model = _read_model(src)
        tgt_model = _read_model(tgt) if tgt is not None else None
        _processor(src_model, shown(src))
        if tgt is not None and tgt_model is not None:
            _processor(tgt_model, shown(tgt))
        return cls(src_model, tgt_model, normalization)

    @classmethod
    def open(cls, directory: Path) -> Self:
        """What `save` wrote. Raises MissingInputError or DataError when it is not there or not whole."""
        description = directory / "tokenizer.json"
        with opened(description) as stream:
            data = stream.read()
        try:
            known = json.loads(data)
            names, normalization, digest = known["models"], known["normalization"], known["digest"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{shown(description)}: is damaged; run translate tokenize again") from error
        models = [_read_model(directory / name) for name in names]
        tokenizer = cls(models[0], models[1] if len(models) > 1 else None, normalization, shown(directory))
        if tokenizer.digest != digest:
            raise DataError(
                f"{shown(directory)}: the models are not those that were saved; run translate tokenize again"
            )
        return tokenizer

    def save(self, directory: Path) -> None:
        """Write `joint.model`, or `src.model` and `tgt.model`, and what else `open` needs, durably."""
        models = {"joint.model": self.src_model}
        if not self.joint:
            models = {"src.model": self.src_model, "tgt.model": self.tgt_model}
        for name, data in models.items():
            durable_write(directory / name, data)
        known = {"models": list(models), "normalization": self.normalization, "digest": self.digest}
        durable_json(directory / "tokenizer.json", known)

    def blob(self) -> bytes:
        """The whole tokenizer as one byte string, for checkpoints."""
        sizes = [len(self.src_model)] if self.joint else [len(self.src_model), len(self.tgt_model)]
        header = json.dumps({"normalization": self.normalization, "sizes": sizes}).encode() + b"\n"
        return BLOB + header + self.src_model + (b"" if self.joint else self.tgt_model)

    @classmethod
    def from_blob(cls, blob: bytes) -> Self:
        """What `blob` gave. Raises DataError when it is not whole."""
        try:
            if not blob.startswith(BLOB):
                raise ValueError("another beginning")
            start = blob.index(b"\n", len(BLOB)) + 1
            known = json.loads(blob[len(BLOB) : start])
            normalization, sizes = known["normalization"], known["sizes"]
            if start + sum(sizes) != len(blob):
                raise ValueError("another length")
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"the stored tokenizer cannot be read ({error})") from error
        src = blob[start : start + sizes[0]]
        return cls(src, blob[start + sizes[0] :] if len(sizes) > 1 else None, normalization, "the stored tokenizer")

    @property
    def digest(self) -> str:
        """SHA-256 in hexadecimal of everything that decides about ids and text."""
        return digest_bytes(self.blob())

    def normalize(self, line: str) -> str:
        """`normalize` with this tokenizer's form."""
        return normalize(line, self.normalization)

    def encode_src(self, line: str) -> list[int]:
        """Ids of a source line, EOS at the end. A blank line is [EOS]."""
        return [*self._src.encode(self.normalize(line)), EOS]

    def encode_tgt(self, line: str) -> list[int]:
        """Ids of a target line, without BOS and EOS."""
        return self._tgt.encode(self.normalize(line))

    def encode_normalized(self, side: Side, lines: list[str], threads: int = -1) -> list[list[int]]:
        """Ids, without BOS and EOS, of lines that `normalize` gave, in so many threads; -1 is one a core."""
        return self._side(side).encode(lines, num_threads=threads)

    def sample(self, side: Side, lines: Sequence[str], rate: float, seed: int) -> list[list[int]]:
        """Ids of normalised lines under a random segmentation each: a pure function of its arguments.

        BPE leaves out merges with probability `rate` (Provilkov et al. 2020). Unigram draws a segmentation with
        probability proportional to its own to the power 1 - `rate` (Kudo 2018).
        """
        processor = self._side(side)
        alpha = rate if _is_bpe(processor) else 1.0 - rate
        sampled: list[list[int]] = []

        def draw() -> None:
            for line in lines:
                sampled.append(processor.encode(line, enable_sampling=True, nbest_size=-1, alpha=alpha))

        # The library's generator belongs to a thread and is sure to take the seed only when the thread is new.
        sentencepiece.set_random_generator_seed(seed)
        thread = threading.Thread(target=draw)
        thread.start()
        thread.join()
        assert len(sampled) == len(lines)
        return sampled

    def decode_tgt(self, ids: Iterable[int]) -> str:
        """Text of target ids; control ids give nothing. One line, whatever the pieces hold."""
        return clean_line(self._tgt.decode([int(i) for i in ids]))

    def pieces_src(self, ids: Iterable[int]) -> list[str]:
        """The pieces that source ids stand for."""
        return [self._src.id_to_piece(int(i)) for i in ids]

    def pieces_tgt(self, ids: Iterable[int]) -> list[str]:
        """The pieces that target ids stand for."""
        return [self._tgt.id_to_piece(int(i)) for i in ids]

    def _side(self, side: Side) -> Any:
        return self._src if side == "src" else self._tgt


def model_files(directory: Path) -> list[Path]:
    """The one or two models that `Tokenizer.save` wrote to a directory."""
    joint = directory / "joint.model"
    return [joint] if joint.exists() else [directory / "src.model", directory / "tgt.model"]


def _is_bpe(processor: Any) -> bool:
    """BPE scores are ranks, whole numbers; unigram scores are log-probabilities."""
    return all(float(processor.get_score(i)).is_integer() for i in range(processor.get_piece_size()))


def _read_model(path: Path) -> bytes:
    with opened(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        data = stream.read(min(size, LARGEST_MODEL) + 1)  # as much memory is taken as is asked for
    if len(data) > LARGEST_MODEL:
        raise DataError(f"{shown(path)}: is larger than {LARGEST_MODEL // 2**20} MiB, which no tokenizer is")
    return data


def _processor(model: bytes, name: str) -> Any:
    """Load a model and check that every id and piece is as the rest of the package expects. Raises DataError."""
    refusal = f"{name}: is no usable SentencePiece model"
    if not model:
        raise DataError(f"{refusal} (it is empty)")
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        pieces = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
    except UnicodeDecodeError as error:
        raise DataError(f"{refusal}: it has a piece that is not UTF-8") from error
    except (RuntimeError, ValueError, TypeError) as error:
        raise DataError(f"{refusal}; is it the .model file, and complete?") from error
    found = (processor.pad_id(), processor.bos_id(), processor.eos_id(), processor.unk_id())
    if found != (PAD, BOS, EOS, UNK):
        raise DataError(
            f"{name}: found pad, bos, eos, unk at ids {', '.join(map(str, found))}, expected 0, 1, 2, 3; "
            "train it with --pad_id=0 --bos_id=1 --eos_id=2 --unk_id=3"
        )
    if len(set(pieces)) != len(pieces):
        raise DataError(f"{refusal}: it has the same piece twice")
    for i, piece in enumerate(pieces):
        if not piece or CONTROLS.search(piece):
            raise DataError(f"{refusal}: piece {i} ({piece!a}) is empty or holds a control character")
    return processor


def train_tokenizer(
    text: Callable[[tuple[Side, ...]], Iterable[str]],
    config: TokenizerConfig,
    normalization: Normalization,
) -> tuple[Tokenizer, list[str]]:
    """Learn pieces; `text` gives the normalised lines of the sides asked for. Returns also messages for the user.

    The same text gives the same bytes. Raises ConfigError when `vocab_size` cannot hold the text's characters.
    """
    if config.joint:
        model, messages = _train(text(("src", "tgt")), config, "vocabulary")
        return Tokenizer(model, None, normalization), messages
    src_model, src_messages = _train(text(("src",)), config, "source vocabulary")
    tgt_model, tgt_messages = _train(text(("tgt",)), config, "target vocabulary")
    return Tokenizer(src_model, tgt_model, normalization), src_messages + tgt_messages


def _train(lines: Iterable[str], config: TokenizerConfig, what: str) -> tuple[bytes, list[str]]:
    failures: list[BaseException] = []
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_trainable(lines, failures),
            model_writer=model,
            model_type=config.kind,
            vocab_size=config.vocab_size,
            hard_vocab_limit=False,  # a text too small for vocab_size gives fewer pieces
            byte_fallback=config.byte_fallback,
            character_coverage=config.character_coverage,
            normalization_rule_name="identity",  # lines come normalised
            pad_id=PAD,
            bos_id=BOS,
            eos_id=EOS,
            unk_id=UNK,
            num_threads=THREADS,
            max_sentence_length=LONGEST_SENTENCE,
            minloglevel=SILENT,
        )
    except RuntimeError as error:
        if failures:  # the library repeats only the words of what went wrong in our own reader
            raise failures[0] from None
        raise _training_error(error, config, what) from error
    size = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).get_piece_size()
    if size < config.vocab_size:
        return model.getvalue(), [f"{what}: {size} pieces, not {config.vocab_size}: the text is too small for more"]
    return model.getvalue(), []


def _trainable(lines: Iterable[str], failures: list[BaseException]) -> Iterator[str]:
    try:
        for line in lines:
            yield line.replace("\u2585", " ")  # the library would leave out the whole line for this character
    except BaseException as error:
        failures.append(error)
        raise


def _training_error(error: RuntimeError, config: TokenizerConfig, what: str) -> Exception:
    message = str(error)
    if needed := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return ConfigError(
            f"tokenizer.vocab_size: found {config.vocab_size}, expected at least {needed[1]} for the {what} (the "
            "text's characters alone need as many); raise it, or lower tokenizer.character_coverage"
        )
    if "sentences_.empty()" in message or "all_chars_count" in message:
        return DataError(f"{what}: there is no text to learn pieces from")
    return DataError(f"{what}: SentencePiece could not learn pieces ({message.strip()})")
