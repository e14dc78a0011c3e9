"""Word links from attention: a translation is forced on the model, and each of its words linked with what it saw.

A target word is linked with the source word that its first piece looked at most, summed over the pieces of that word:
with the first piece the model decides which word to write; the rest, a suffix or a full stop, often looks elsewhere
already. What </s> got counts for no word. A target word whose first piece looked nowhere, or whose weights are not
finite, has no link.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from translate.config import DecoderConfig
from translate.decoding.translator import batches, go_on, padded, windows
from translate.errors import DataError
from translate.models.seq2seq import Record, Seq2Seq
from translate.text.tokenizer import BOS, EOS, Tokenizer
from translate.text.words import Link, WordPieces, line_pieces, translation_pieces

Weights = npt.NDArray[np.float32]


class Aligner:
    """Links the words of sentence pairs, `batch_size` pairs at once.

    `decoder` is the config of the model's decoder; DataError where it has no attention. `interrupted` is called before
    each batch; what it raises ends the work.
    """

    def __init__(
        self,
        model: Seq2Seq,
        tokenizer: Tokenizer,
        decoder: DecoderConfig,
        batch_size: int,
        interrupted: Callable[[], None] = go_on,
    ) -> None:
        if decoder.attention.score == "none":
            raise DataError(
                "no alignments: model.decoder.attention.score is none, so the model looks at no word; "
                "train a run with general or additive, say"
            )
        self.model = model
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.interrupted = interrupted

    def forced(self, pairs: Iterable[tuple[str, str]]) -> Iterator[list[Link]]:
        """Yield the links of each source line with the target line beside it, in order; a window is in memory."""
        for window in windows(pairs, self.batch_size):
            yield from self._links(
                [
                    (line_pieces(self.tokenizer, "src", src), line_pieces(self.tokenizer, "tgt", tgt))
                    for src, tgt in window
                ]
            )

    def own(self, pairs: Sequence[tuple[str, list[int]]]) -> list[list[Link]]:
        """The links of source lines with translations that the model wrote, given as ids without EOS."""
        return self._links(
            [(line_pieces(self.tokenizer, "src", src), translation_pieces(self.tokenizer, ids)) for src, ids in pairs]
        )

    def _links(self, pairs: Sequence[tuple[WordPieces, WordPieces]]) -> list[list[Link]]:
        """The links of each pair: batches of like length, longest first, results back in order."""
        found: list[list[Link]] = [[] for _ in pairs]
        lengths = [max(len(src.ids) + 1, len(tgt.ids)) for src, tgt in pairs]
        places = [place for place, (src, tgt) in enumerate(pairs) if src.ids and tgt.ids]
        places.sort(key=lambda place: -lengths[place])
        for batch in batches([lengths[place] for place in places], self.batch_size):
            self.interrupted()
            chosen = [places[index] for index in batch]
            for place, weights in zip(chosen, self._look([pairs[place] for place in chosen]), strict=True):
                found[place] = strongest(weights, *pairs[place])
        return found

    @torch.no_grad()
    def _look(self, pairs: Sequence[tuple[WordPieces, WordPieces]]) -> Weights:
        """What each target piece looked at, (B, T, S), by teacher forcing.

        The encoder's own attention is not written down: it alone would grow with the square of a long source.
        """
        device = next(self.model.parameters()).device
        record: Record = {}
        memory = self.model.encoder(padded([[*src.ids, EOS] for src, _ in pairs], device))
        self.model.decoder(padded([[BOS, *tgt.ids[:-1]] for _, tgt in pairs], device), memory, record)
        weights: Weights = record["alignment"].float().cpu().numpy()
        return weights


def strongest(weights: Weights, src: WordPieces, tgt: WordPieces) -> list[Link]:
    """The link of each target word, sorted; of weights (T, S) what lies beyond the pieces is ignored.

    A source piece that is a part of several words gives each an equal share.
    """
    shares = np.zeros((len(src.ids), src.count))
    for piece, words in enumerate(src.words):
        shares[piece, words] = 1 / max(1, len(words))
    if not src.count:
        return []
    first = {word: piece for piece, words in reversed(list(enumerate(tgt.words))) for word in words}
    real = np.nan_to_num(weights[: len(tgt.ids), : len(src.ids)].astype(np.float64))
    looked = real @ shares
    best = looked.argmax(1)
    return sorted((int(best[piece]), word) for word, piece in first.items() if looked[piece, best[piece]] > 0)
