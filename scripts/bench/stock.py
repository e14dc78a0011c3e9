"""The loop a user would write after PyTorch's own tutorials: `python stock.py FOLDER TOKENS {transformer,rnn}`.

Nothing is tuned: fp32, the default allocator and matrix library, `nn.Transformer` with padding masks (or `nn.LSTM` and
an `nn.LSTMCell` in a loop), `F.cross_entropy`, `AdamW` as it is. What costs nothing is done well: batches are sorted by
length and hold 4,096 real target tokens. FOLDER is as `shared_text.py` writes it; TOKENS gets a line for each update:
its real target tokens, EOS included.
"""

import math
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import sentencepiece
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

PAD, BOS, EOS = 0, 1, 2
BATCH_TOKENS = 4096
DROPOUT, SMOOTHING, CLIP, LR = 0.1, 0.1, 1.0, 1e-3
WARMUP = 200
Pair = tuple[list[int], list[int]]


class Transformer(nn.Module):
    """`nn.Transformer`, pre-norm, with sinusoidal positions and one matrix for all words: 3 + 3 layers."""

    def __init__(self, vocabulary: int, width: int = 256, heads: int = 4, layers: int = 3, inner: int = 1024) -> None:
        super().__init__()
        self.width = width
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=PAD)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.dropout = nn.Dropout(DROPOUT)
        self.transformer = nn.Transformer(
            width, heads, layers, layers, inner, DROPOUT, batch_first=True, norm_first=True
        )
        self.output = nn.Linear(width, vocabulary, bias=False)
        self.output.weight = self.embedding.weight
        place = torch.arange(1024)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
        self.register_buffer("positions", torch.stack([place.sin(), place.cos()], 2).flatten(1))

    def embed(self, ids: Tensor) -> Tensor:
        """ids (B, L) -> (B, L, D)."""
        positions = self.get_buffer("positions")[: ids.size(1)]
        embedded: Tensor = self.dropout(self.embedding(ids) * math.sqrt(self.width) + positions)
        return embedded

    def forward(self, src: Tensor, tgt_in: Tensor) -> Tensor:
        """src (B, S), tgt_in (B, T) -> logits (B, T, V)."""
        future = torch.ones(tgt_in.size(1), tgt_in.size(1), dtype=torch.bool).triu(1)
        out = self.transformer(
            self.embed(src),
            self.embed(tgt_in),
            tgt_mask=future,
            src_key_padding_mask=src == PAD,
            tgt_key_padding_mask=tgt_in == PAD,
            memory_key_padding_mask=src == PAD,
        )
        logits: Tensor = self.output(out)
        return logits


class Rnn(nn.Module):
    """LSTM encoder in both directions, LSTM decoder with general attention and input feeding (Luong et al. 2015)."""

    def __init__(self, vocabulary: int, width: int = 512, embedding: int = 256) -> None:
        super().__init__()
        self.width = width
        self.src_embedding = nn.Embedding(vocabulary, embedding, padding_idx=PAD)
        self.tgt_embedding = nn.Embedding(vocabulary, embedding, padding_idx=PAD)
        self.dropout = nn.Dropout(DROPOUT)
        self.encoder = nn.LSTM(embedding, width // 2, batch_first=True, bidirectional=True)
        self.decoder = nn.LSTMCell(embedding + width, width)
        self.score = nn.Linear(width, width, bias=False)
        self.combine = nn.Linear(2 * width, width, bias=False)
        self.output = nn.Linear(width, vocabulary)

    def forward(self, src: Tensor, tgt_in: Tensor) -> Tensor:
        """src (B, S), tgt_in (B, T) -> logits (B, T, V)."""
        lengths = (src != PAD).sum(1)
        embedded = self.dropout(self.src_embedding(src))
        packed = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        states, (h, _) = self.encoder(packed)
        memory, _ = pad_packed_sequence(states, batch_first=True)
        keys, padding = self.score(memory), src == PAD
        hidden = torch.cat([h[0], h[1]], 1)
        cell, fed = torch.zeros_like(hidden), torch.zeros_like(hidden)
        features = []
        for word in self.dropout(self.tgt_embedding(tgt_in)).unbind(1):
            hidden, cell = self.decoder(torch.cat([word, fed], 1), (hidden, cell))
            scores = torch.bmm(keys, hidden.unsqueeze(2)).squeeze(2).masked_fill(padding, -math.inf)
            context = torch.bmm(scores.softmax(1).unsqueeze(1), memory).squeeze(1)
            fed = torch.tanh(self.combine(torch.cat([context, hidden], 1)))
            features.append(fed)
        logits: Tensor = self.output(self.dropout(torch.stack(features, 1)))
        return logits


def read_pairs(folder: Path) -> tuple[list[Pair], int]:
    """Ids of both sides, EOS last, and the size of the vocabulary."""
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "joint.model"))
    sides = [model.encode((folder / f"train.{side}").read_text("utf-8").split("\n")[:-1]) for side in ("src", "tgt")]
    return [([*src, EOS], [*tgt, EOS]) for src, tgt in zip(*sides, strict=True)], model.get_piece_size()


def batches(pairs: list[Pair], limit: int = BATCH_TOKENS) -> list[list[Pair]]:
    """Pairs of about equal length together, at most `limit` real target tokens to a batch."""
    found: list[list[Pair]] = []
    tokens = limit + 1
    for pair in sorted(pairs, key=lambda pair: (len(pair[1]), len(pair[0]))):
        tokens += len(pair[1])
        if tokens > limit:
            found.append([])
            tokens = len(pair[1])
        found[-1].append(pair)
    return found


def padded(sentences: list[list[int]]) -> Tensor:
    """-> (B, longest)."""
    return pad_sequence([torch.tensor(ids) for ids in sentences], batch_first=True, padding_value=PAD)


def updates(model: nn.Module, pairs: list[Pair], limit: int = BATCH_TOKENS) -> Iterator[tuple[int, float]]:
    """Train for ever; of each update the real target tokens and the loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    warmup = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / WARMUP))
    model.train()
    while True:
        epoch = batches(pairs, limit)
        random.shuffle(epoch)
        for batch in epoch:
            src, tgt = padded([src for src, _ in batch]), padded([tgt for _, tgt in batch])
            tgt_in = torch.cat([torch.full((len(batch), 1), BOS), tgt[:, :-1]], 1).masked_fill(tgt == PAD, PAD)
            optimizer.zero_grad()
            logits = model(src, tgt_in)
            loss = F.cross_entropy(logits.flatten(0, 1), tgt.flatten(), ignore_index=PAD, label_smoothing=SMOOTHING)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            tokens = int((tgt != PAD).sum())
            optimizer.step()
            warmup.step()
            yield tokens, loss.item()


def main() -> None:
    """Train until somebody ends it."""
    folder, counted, kind = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    torch.manual_seed(1)
    random.seed(1)
    pairs, vocabulary = read_pairs(folder)
    model = Transformer(vocabulary) if kind == "transformer" else Rnn(vocabulary)
    with counted.open("w", encoding="ascii", buffering=1) as out:
        for tokens, _ in updates(model, pairs):
            out.write(f"{tokens}\n")


if __name__ == "__main__":
    main()
