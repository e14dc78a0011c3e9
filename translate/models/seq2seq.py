"""The interface of every model: an encoder and a decoder that meet only in `Memory`.

Legend of the whole package: `B` batch, `S` source length, `T` target length, `V` vocabulary, `D` width,
`H` heads, `L` layers, `K` beam. Masks are bool, True = real token.

Decoder inputs are shifted right: `tgt_in = [BOS] + tgt`, `tgt_out = tgt + [EOS]`; source ids end in EOS.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from translate.models.dropout import Keyed, seed_of

Record = dict[str, Tensor]
"""Attention weights by the path of the module that computed them; `alignment` is the one the model names as such."""

Aux = dict[str, Tensor]
"""What the loss needs beyond the features, each (B, T); empty for most models.

`penalty` is added to the loss. `choice` is the log-probability of what was sampled, `lone_choice` the same where no
later position can know of it, and `baseline` the loss that was expected to come of it; these are (B, T, L) where each
of several layers chooses.
"""


@dataclass(frozen=True)
class Tokens:
    """The ids of a batch, padded (ids (B, S)) or packed (ids (N,), sentence after sentence).

    Packed ones have `offsets` (B + 1,) int32, where each sentence begins, and of each token (N,) the sentence, `rows`,
    and where in it the token stands, `places`. `longest` is the padded length, known to the host so that no kernel has
    to be waited for; so are `host_lengths`, if given.
    """

    ids: Tensor
    lengths: Tensor  # (B,) int64
    longest: int
    offsets: Tensor | None = None
    rows: Tensor | None = None
    places: Tensor | None = None
    host_lengths: Tensor | None = None

    @property
    def mask(self) -> Tensor:
        """(B, S) True where a token is real."""
        return torch.arange(self.longest, device=self.ids.device) < self.lengths[:, None]


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor of the host on the device; on a GPU by way of pinned memory, so that nobody waits for the copy."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


@dataclass(frozen=True)
class Memory:
    """What an encoder hands over: states (B, S, D_enc) in the layout of their Tokens, and their summary (B, D_enc).

    `summary` is the fixed-size context vector of the sentence. `values` are what attention averages; they are the
    states unless an encoder has its own. Several sources would be one Memory with a `segment` (B, S).
    """

    states: Tensor
    lengths: Tensor  # (B,)
    longest: int
    summary: Tensor
    values: Tensor
    segment: Tensor | None = None
    offsets: Tensor | None = None
    rows: Tensor | None = None
    places: Tensor | None = None

    @property
    def mask(self) -> Tensor:
        """(B, S) True where a state belongs to a real token."""
        return torch.arange(self.longest, device=self.states.device) < self.lengths[:, None]

    def to(self, dtype: torch.dtype) -> "Memory":
        """The same in another number format; values that are the states stay so."""
        states = self.states.to(dtype)
        values = states if self.values is self.states else self.values.to(dtype)
        return replace(self, states=states, values=values)

    def keep(self, sentences: Tensor) -> "Memory":
        """The memory of the given sentences (B',) only."""
        return replace(
            self,
            states=self.states[sentences],
            lengths=self.lengths[sentences],
            summary=self.summary[sentences],
            values=self.values[sentences],
            segment=None if self.segment is None else self.segment[sentences],
        )


@dataclass
class State:
    """What a decoder carries from one step to the next: a flat ordered set of tensors.

    `beams` hold a row for each hypothesis (B, K, ...), `sentences` one for each sentence (B, ...): cross-attention
    keys and values are kept once a sentence, never once a hypothesis.
    """

    beams: dict[str, Tensor]
    sentences: dict[str, Tensor]

    def reorder(self, parents: Tensor) -> Self:
        """Let row k of each sentence go on from row parents[b, k] (B, K) of the same sentence."""
        beam = parents.size(1)
        first = torch.arange(0, parents.numel(), beam, device=parents.device)
        rows = (first[:, None] + parents).flatten()  # whole rows are copied several times faster than indexed elements
        for name, tensor in self.beams.items():
            self.beams[name] = tensor.flatten(0, 1).index_select(0, rows).unflatten(0, (-1, beam))
        return self

    def keep(self, sentences: Tensor) -> Self:
        """Drop all sentences but the given ones (B',)."""
        self.beams = {name: tensor.index_select(0, sentences) for name, tensor in self.beams.items()}
        self.sentences = {name: tensor.index_select(0, sentences) for name, tensor in self.sentences.items()}
        return self


def build_embedding(vocabulary: int, width: int) -> nn.Embedding:
    """Word vectors of about unit length, N(0, 1 / width): the same for every kind, since they may be tied."""
    embedding = nn.Embedding(vocabulary, width)
    nn.init.normal_(embedding.weight, std=width**-0.5)
    return embedding


class Block(nn.Module):
    """A layer that training enters by `forward` alone, so that its weights may lie elsewhere until then."""


Result = TypeVar("Result")
Compiler = Callable[[Callable[..., Any]], Callable[..., Any]]
"""Gives a function that does the same faster."""


class Side(nn.Module):
    """What encoders and decoders share."""

    embedding: nn.Embedding
    recompute = False
    """Whether layers compute their activations again in the backward pass instead of keeping them."""
    is_one_graph = True
    """Whether `forward` is the same kernels in the same order for all lengths, and can be compiled as a whole."""

    @property
    def draws_by_key(self) -> bool:
        """Whether what is drawn comes of keys, and not of a generator, as on a GPU."""
        return not self.embedding.weight.is_cuda

    def compile_steps(self, compiled: Compiler) -> None:
        """Compile what the host goes through again and again, where that is what `forward` does."""

    def run_layer(self, layer: Callable[..., Result], drawing: Sequence[nn.Module], *args: object) -> Result:
        """layer(*args). With `recompute` nothing but the arguments is kept for the backward pass, which calls it again.

        Gradient checkpointing (Chen et al. 2016). What draws stands in the modules `drawing`; it counts its calls, and
        the second time counts from where it stood the first time, so that it draws the same. A generator is put back to
        where it stood.
        """
        if not (self.recompute and self.training and torch.is_grad_enabled()):
            return layer(*args)
        result: Result
        if not self.draws_by_key:
            result = checkpoint(layer, *args, use_reentrant=False)
            return result
        sites = [site for module in drawing for site in module.modules() if isinstance(site, Keyed)]
        again = _counting_from(sites, [site.calls for site in sites])
        contexts = lambda: (contextlib.nullcontext(), again)  # noqa: E731 - the name says what it is
        result = checkpoint(layer, *args, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
        return result


@contextlib.contextmanager
def _counting_from(sites: Sequence[Keyed], start: Sequence[int]) -> Iterator[None]:
    """Count the calls of `sites` from `start` on, and go on from where they stood at the end."""
    now = [site.calls for site in sites]
    for site, calls in zip(sites, start, strict=True):
        site.calls = calls
    try:
        yield
    finally:
        for site, calls in zip(sites, now, strict=True):
            site.calls = calls


class Encoder(Side):
    """Reads the source."""

    reads_packed = False
    """Whether `forward` also takes packed tokens, and then gives a packed memory."""

    def forward(self, src: Tokens, record: Record | None = None) -> Memory:
        """Encode src (B, S); padding changes nothing."""
        raise NotImplementedError


class Decoder(Side):
    """Writes the target, given the memory of the source."""

    width: int
    """Width of the features."""
    reads_packed = False
    """Whether `forward` also takes packed tokens with a packed memory, and then gives features (N, D)."""

    def forward(self, tgt_in: Tokens, memory: Memory, record: Record | None = None) -> tuple[Tensor, Aux]:
        """Teacher forcing: tgt_in (B, T) -> features (B, T, D) of all positions at once."""
        raise NotImplementedError

    def start(self, memory: Memory, max_len: int, beam: int = 1) -> State:
        """The state before the first token, for `beam` hypotheses a sentence and at most max_len steps."""
        raise NotImplementedError

    def step(
        self, token: Tensor, memory: Memory, state: State, time: int, record: Record | None = None
    ) -> tuple[Tensor, State]:
        """One step: token (B, K) at position `time` -> features (B, K, D). The old state is spent.

        With `record`, weights of this step are (B, K, ..., S) under the paths that `forward` uses with (B, ..., T, S).
        """
        raise NotImplementedError


class Seq2Seq(nn.Module):
    """An encoder, a decoder and the projection of features to logits."""

    def __init__(self, encoder: Encoder, decoder: Decoder, output: nn.Linear) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.output = output

    @property
    def reads_packed(self) -> bool:
        """Whether `forward` also takes both sides packed, and then gives features (N, D)."""
        return self.encoder.reads_packed and self.decoder.reads_packed

    @property
    def is_one_graph(self) -> bool:
        """Whether `forward` can be compiled as a whole."""
        return self.encoder.is_one_graph and self.decoder.is_one_graph

    def forward(self, src: Tokens, tgt_in: Tokens, record: Record | None = None) -> tuple[Tensor, Aux]:
        """Teacher forcing: src (B, S), tgt_in (B, T) -> features (B, T, D)."""
        features, aux = self.decoder(tgt_in, self.encoder(src, record), record)
        return features, aux

    def project(self, features: Tensor) -> Tensor:
        """features (..., D) -> logits (..., V)."""
        logits: Tensor = self.output(features)
        return logits

    def key_randomness(self, *key: int) -> None:
        """Make whatever the next forward pass draws a pure function of `key` (seed, step, micro-batch)."""
        for site, module in enumerate(m for m in self.modules() if isinstance(m, Keyed)):
            module.key = (*key, site)
            module.calls = 0
        if self.output.weight.is_cuda:
            torch.cuda.manual_seed(seed_of(key))
