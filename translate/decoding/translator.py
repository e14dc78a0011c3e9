"""Lines in, translations out: in order, streaming, with bounded memory."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, repeat
from typing import TypeVar

import numpy as np
import torch

from translate.config import DecodeConfig
from translate.decoding.beam import beam_search
from translate.decoding.greedy import greedy
from translate.decoding.scorer import Hypothesis, Scorer
from translate.errors import TranslateError
from translate.models.seq2seq import Tokens
from translate.text.tokenizer import PAD, Tokenizer
from translate.text.words import Link

Item = TypeVar("Item")

WINDOW_BATCHES = 16
"""Batches of lines that are read ahead, so that lines of like length can be searched together."""

FULL_BATCH_LENGTH = 128
"""Source pieces up to which a batch has all its sentences; memory grows with the square of the length."""


@dataclass(frozen=True)
class Translation:
    """A translated line. `found` is false where the search gave nothing: then the text is empty, the score -inf.

    `links` join its words with those of the source, where the translator was asked for them.
    """

    text: str
    ids: list[int]
    log_prob: float
    score: float
    found: bool = True
    links: Sequence[Link] = ()


BLANK = Translation("", [], 0.0, 0.0)
"""The translation of a blank line: certain."""

NOTHING = Translation("", [], -np.inf, -np.inf, found=False)
"""What stands where there is no translation: fewer hypotheses than asked for, or a model that gave NaN."""


def go_on() -> None:
    """Nobody asks us to stop."""


class Translator:
    """Translates lines with a scorer, as `decode` says.

    `interrupted` is called before each batch; what it raises ends the translation. `align` gives the links of source
    lines with their translations (ids), as `Aligner.own` does.
    """

    def __init__(
        self,
        scorer: Scorer,
        tokenizer: Tokenizer,
        decode: DecodeConfig,
        device: torch.device,
        interrupted: Callable[[], None] = go_on,
        align: Callable[[Sequence[tuple[str, list[int]]]], list[list[Link]]] | None = None,
    ) -> None:
        self.scorer = scorer
        self.tokenizer = tokenizer
        self.decode = decode
        self.device = device
        self.interrupted = interrupted
        self.align = align

    def translate(self, lines: Iterable[str]) -> Iterator[list[Translation]]:
        """Yield `n_best` translations for each line, best first, in the order of the lines.

        Never more than a window of lines is in memory. A blank line, or one without a single piece, is not shown to
        the model. An error of `lines` itself is raised after the lines before it have been translated.
        """
        for window in windows(lines, self.decode.batch_size):
            yield from self._window(window)

    def _window(self, lines: Sequence[str]) -> list[list[Translation]]:
        """Translate a window: batches of like length, longest first, results back in order."""
        pieces = [self.tokenizer.encode_src(line) if line.strip() else [] for line in lines]
        results = [[BLANK] * self.decode.n_best for _ in lines]
        places = [place for place, ids in enumerate(pieces) if len(ids) > 1]  # more than EOS
        places.sort(key=lambda place: -len(pieces[place]))
        for batch in batches([len(pieces[place]) for place in places], self.decode.batch_size):
            self.interrupted()
            chosen = [places[index] for index in batch]
            hypotheses = self._search([pieces[place] for place in chosen])
            for place, found in zip(chosen, hypotheses, strict=True):
                results[place] = self._translations(found)
        return results if self.align is None else self._linked(lines, results)

    def _linked(self, lines: Sequence[str], results: Sequence[list[Translation]]) -> list[list[Translation]]:
        """The same translations with their links."""
        assert self.align is not None
        pairs = [(line, each.ids) for line, found in zip(lines, results, strict=True) for each in found]
        links = iter(self.align(pairs))
        return [[replace(each, links=next(links)) for each in found] for found in results]

    @torch.no_grad()  # not inference_mode: no faster, and what a model keeps for later (positions) could not train
    def _search(self, pieces: Sequence[Sequence[int]]) -> list[list[Hypothesis]]:
        """Search the best translations of sentences given as ids with EOS."""
        src = padded(pieces, self.device)
        limits = [min(self.decode.max_length, 2 * (len(ids) - 1) + 20) for ids in pieces]
        penalty = self.decode.length_penalty
        if self.decode.beam == 1:
            return [[found] if found else [] for found in greedy(self.scorer, src, limits, penalty)]
        return beam_search(self.scorer, src, self.decode.beam, limits, penalty, self.decode.n_best)

    def _translations(self, hypotheses: Sequence[Hypothesis]) -> list[Translation]:
        """Hypotheses as text, filled up to n_best."""
        translations = (
            Translation(self.tokenizer.decode_tgt(found.ids), found.ids, found.log_prob, found.score)
            for found in hypotheses
        )
        return list(islice(chain(translations, repeat(NOTHING)), self.decode.n_best))


def padded(pieces: Sequence[Sequence[int]], device: torch.device) -> Tokens:
    """Ids of several sentences as padded Tokens (B, S)."""
    lengths = [len(ids) for ids in pieces]
    ids = np.full((len(pieces), max(lengths)), PAD, dtype=np.int64)
    for row, sentence in enumerate(pieces):
        ids[row, : len(sentence)] = sentence
    return Tokens(torch.from_numpy(ids).to(device), torch.tensor(lengths, device=device), max(lengths))


def windows(lines: Iterable[Item], batch_size: int) -> Iterator[list[Item]]:
    """Cut a stream into windows: at first one batch, so that results come soon, then twice as many each time.

    With batches of one line nothing is read ahead, so that a program can talk to us line by line.
    """
    size = batch_size
    most = batch_size * WINDOW_BATCHES if batch_size > 1 else 1
    stream = iter(lines)
    error = None
    while error is None:
        window: list[Item] = []
        try:
            for line in islice(stream, size):
                window.append(line)
        except TranslateError as failure:
            error = failure
        if window:
            yield window
        elif error is None:
            return
        size = min(2 * size, most)
    raise error


def batches(lengths: Sequence[int], batch_size: int) -> Iterator[range]:
    """Cut sentences of falling lengths into batches; long sentences make smaller ones."""
    start = 0
    while start < len(lengths):
        room = batch_size * FULL_BATCH_LENGTH**2 // lengths[start] ** 2
        stop = min(len(lengths), start + min(batch_size, max(1, room)))
        yield range(start, stop)
        start = stop
