"""A tiny model whose every probability can be looked up by hand: logits are rows of a random table.

The row depends on the source, the whole history and the time, so that a wrong reorder or a lost sentence shows.
"""

import math
from typing import TypeVar

import torch
from torch import Tensor, nn

from translate.models.seq2seq import Aux, Decoder, Encoder, Memory, Record, Seq2Seq, State, Tokens
from translate.text.tokenizer import BOS, EOS

ROWS = 997
POISON = 5
"""Source id that makes the model give NaN from the second step on."""


class StubEncoder(Encoder):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[int]] = []

    def forward(self, src: Tokens, record: Record | None = None) -> Memory:
        self.seen += [ids[:length] for ids, length in zip(src.ids.tolist(), src.lengths.tolist(), strict=True)]
        places = torch.arange(1, src.longest + 1)
        key = (src.ids * places * src.mask).sum(1) % ROWS
        poisoned = ((src.ids == POISON) & src.mask).any(1)
        states = src.ids[..., None].double()
        return Memory(states, src.lengths, src.longest, torch.stack([key, poisoned.long()], 1), states)


class StubDecoder(Decoder):
    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = table
        self.width = table.size(1)
        self.steps = 0
        self.batches: list[int] = []

    def start(self, memory: Memory, max_len: int, beam: int = 1) -> State:
        self.steps = max_len
        key, poisoned = memory.summary.unbind(1)
        return State({"row": key[:, None].repeat(1, beam)}, {"key": key, "poisoned": poisoned.bool()})

    def step(
        self, token: Tensor, memory: Memory, state: State, time: int, record: Record | None = None
    ) -> tuple[Tensor, State]:
        assert time < self.steps, "a step beyond what `start` was told"
        assert len(memory.lengths) == len(token)
        self.batches.append(len(token))
        state.beams["row"] = next_row(state.beams["row"], token, state.sentences["key"][:, None], time)
        logits = self.table[state.beams["row"]].clone()
        if time > 0:
            logits[state.sentences["poisoned"]] = math.nan
        return logits, state

    def forward(self, tgt_in: Tokens, memory: Memory, record: Record | None = None) -> tuple[Tensor, Aux]:
        state = self.start(memory, tgt_in.longest)
        steps = [self.step(tgt_in.ids[:, [time]], memory, state, time)[0] for time in range(tgt_in.longest)]
        return torch.cat(steps, 1), {}


Number = TypeVar("Number", int, Tensor)


def next_row(row: Number, token: Number, key: Number, time: int) -> Number:
    return (row * 31 + token * 17 + key * 7 + time * 13 + 1) % ROWS


def stub_model(vocab: int, seed: int, dtype: torch.dtype = torch.float64, spread: float = 2.0) -> Seq2Seq:
    generator = torch.Generator().manual_seed(seed)
    table = spread * torch.randn((ROWS, vocab), generator=generator, dtype=torch.float64)
    output = nn.Linear(vocab, vocab, bias=False, dtype=dtype)
    nn.init.eye_(output.weight)
    return Seq2Seq(StubEncoder(), StubDecoder(table.to(dtype)), output).eval()


def tokens(*sentences: list[int]) -> Tokens:
    """Padded Tokens of ids, EOS added here."""
    longest = max(map(len, sentences)) + 1
    ids = torch.tensor([[*ids, EOS] + [0] * (longest - len(ids) - 1) for ids in sentences])
    return Tokens(ids, torch.tensor([len(ids) + 1 for ids in sentences]), longest)


def key_of(src: list[int]) -> int:
    """What the decoder knows of a source."""
    return sum(place * id for place, id in enumerate([*src, EOS], start=1)) % ROWS


def rows_by_hand(model: Seq2Seq, src: list[int], ids: list[int]) -> list[list[float]]:
    """Log-probabilities of what follows each prefix of ids, the empty one first, read off the table in plain Python."""
    table = model.decoder.table
    assert isinstance(table, Tensor)
    row = key = key_of(src)
    rows = []
    for time, token in enumerate([BOS, *ids]):
        row = next_row(row, token, key, time)
        logits = table[row].tolist()
        total = math.log(sum(map(math.exp, logits)))
        rows.append([logit - total for logit in logits])
    return rows


def log_prob_by_hand(model: Seq2Seq, src: list[int], ids: list[int]) -> float:
    """Log-probability of a translation, EOS included."""
    rows = rows_by_hand(model, src, ids)
    return sum(row[token] for row, token in zip(rows, [*ids, EOS], strict=True))
