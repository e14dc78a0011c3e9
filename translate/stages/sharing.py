"""Several processes that translate one text, as torchrun starts them: each takes a share of every window."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from translate.decoding.translator import Translation, Translator
from translate.training.distributed import Ranks


class SharedTranslator(Translator):
    """A translator of which every process has one; all of them get the same lines and yield the same translations."""

    def __init__(self, ranks: Ranks, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.ranks = ranks

    def _window(self, lines: Sequence[str]) -> list[list[Translation]]:
        """Translate every count-th line, and take the others' from the others."""
        if self.ranks.count == 1:
            return super()._window(lines)
        mine = super()._window(lines[self.ranks.number :: self.ranks.count])
        return [_read(line) for line in self.ranks.in_turn([_written(each) for each in mine])]


def _written(translations: Sequence[Translation]) -> str:
    return json.dumps([asdict(each) for each in translations])


def _read(line: str) -> list[Translation]:
    return [Translation(**{**each, "links": [(i, j) for i, j in each["links"]]}) for each in json.loads(line)]
