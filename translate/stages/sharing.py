"""Several processes at work on one text, as torchrun starts them: each takes a share of every window."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import torch

from translate.decoding.aligner import Aligner
from translate.decoding.translator import Translation, Translator, windows
from translate.errors import TryAgainError
from translate.run import RunDirectory
from translate.text.words import Link
from translate.training.checkpoint import LoadedModel, Which, load_model
from translate.training.distributed import Ranks


class SharedTranslator(Translator):
    """A translator of which every process has one; all of them get the same lines and yield the same translations."""

    def __init__(self, ranks: Ranks, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.ranks = ranks

    def translate(self, lines: Iterable[str]) -> Iterator[list[Translation]]:
        """As a translator alone, in windows for all; each process has every count-th line of one."""
        if self.ranks.count == 1:
            yield from super().translate(lines)
            return
        for window in windows(lines, self.decode.batch_size * self.ranks.count):
            mine = self._window(window[self.ranks.number :: self.ranks.count])
            yield from map(_read, self.ranks.in_turn([_written(each) for each in mine]))


def shared_links(
    aligner: Aligner, pairs: Sequence[tuple[str, str]], ranks: Ranks, advance: Callable[[], None]
) -> list[list[Link]]:
    """The links of each source line with the target line beside it; `advance` is called for each of our own."""
    mine: list[str] = []
    for links in aligner.forced(pairs[ranks.number :: ranks.count]):
        mine.append(json.dumps(links))
        advance()
    return [_links(json.loads(line)) for line in ranks.in_turn(mine)]


def load_together(run: RunDirectory, which: Which, device: torch.device, ranks: Ranks) -> LoadedModel:
    """Load a model. Raises TryAgainError if a checkpoint came in between and others have loaded another."""
    loaded = load_model(run, which, device)
    if len(set(ranks.in_turn([loaded.identity]))) > 1:
        raise TryAgainError(f"{run.root}: got a new checkpoint while it was opened; run the same command again")
    return loaded


def _written(translations: Sequence[Translation]) -> str:
    return json.dumps([asdict(each) for each in translations])


def _read(line: str) -> list[Translation]:
    return [Translation(**{**each, "links": _links(each["links"])}) for each in json.loads(line)]


def _links(pairs: Sequence[Sequence[int]]) -> list[Link]:
    return [(src, tgt) for src, tgt in pairs]
