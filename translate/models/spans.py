"""Attention among sequences that lie end to end, without padding between them.

On a GPU one kernel does it for all (`torch.nn.attention.varlen`, in bf16 or fp16). Where there is none the sequences
are padded for the attention alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from translate.models.seq2seq import Memory, Tokens

FILLED_TO = 256
"""Tokens of a packed side come in multiples of this, so that kernels meet few shapes.

One more sentence of 1 to FILLED_TO tokens fills up. It is always there, for attention takes the sentences of both sides
two by two. Its tokens all stand at place 0, and `longest` does not count them, so that it needs no more positions than
the real sentences do.
"""


@dataclass(frozen=True)
class Spans:
    """Which keys a query sees: those of its own sentence, or with `causal` those up to its own place."""

    queries: Tokens | Memory
    keys: Tokens | Memory
    causal: bool = False

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        """query (N_q, H, d), keys and values (N_k, H, d) -> contexts (N_q, H, d)."""
        of, to = self.queries, self.keys
        assert of.offsets is not None
        if kernel_takes(query):
            from torch.nn.attention.varlen import varlen_attn  # loads the compiler, which takes a second

            window = (-1, 0) if self.causal else (-1, -1)
            most = max(of.longest, FILLED_TO), max(to.longest, FILLED_TO)
            found = varlen_attn(query, keys, values, of.offsets, to.offsets, *most, scale=scale, window_size=window)
            assert isinstance(found, Tensor)
            return found
        q, k, v = unpacked(query, of), unpacked(keys, to), unpacked(values, to)
        seen = to.mask[:, None, None]  # (B, 1, 1, S)
        if self.causal:
            seen = seen & torch.ones(of.longest, to.longest, dtype=torch.bool, device=q.device).tril()
        context = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), seen, scale=scale
        )
        return packed(context.transpose(1, 2), of)


def kernel_takes(query: Tensor) -> bool:
    """Whether the kernel multiplies such numbers."""
    return query.is_cuda and query.dtype in (torch.bfloat16, torch.float16)


def has_kernel(widths: Iterable[int]) -> bool:
    """Whether this GPU has the kernel for heads of these widths: from compute capability 8.0 on, in multiples of 8.

    Of heads wider than 192 it has the backward pass only on some (Dao 2023, FlashAttention-2).
    """
    return torch.cuda.get_device_capability() >= (8, 0) and all(w % 8 == 0 and w <= 192 for w in widths)


def unpacked(x: Tensor, layout: Tokens | Memory) -> Tensor:
    """(N, ...) -> (B, L, ...), zeros where there is no token."""
    assert layout.rows is not None
    assert layout.places is not None
    block = x.new_zeros(layout.lengths.size(0), layout.longest, *x.shape[1:])
    return block.index_put((layout.rows, layout.places), x)


def packed(x: Tensor, layout: Tokens | Memory) -> Tensor:
    """(B, L, ...) -> (N, ...)."""
    return x[layout.rows, layout.places]
