"""Recurrent units: LSTM (Hochreiter & Schmidhuber 1997) and GRU (Cho et al. 2014), whole or one step at a time.

The weights live in torch's own one-layer modules, which run whole sequences; the steps below read the same weights.
Equations and gate order are torch's.
"""

import contextlib
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from translate.models.loop_matrix import LoopMatrix

Hidden = tuple[Tensor, ...]
"""State of one layer: (h, c) of an LSTM, (h,) of a GRU, each (N, D)."""

PARTS = ("hidden", "cell")
"""Names of the parts of a Hidden."""


def build_layer(cell: Literal["lstm", "gru"], inputs: int, width: int, bidirectional: bool = False) -> nn.LSTM | nn.GRU:
    """One layer, sequences (L, B, inputs) first in time.

    Each gate is initialised as a matrix of its own, recurrent ones orthogonal; an LSTM begins by remembering
    (forget gate's bias 1, Jozefowicz et al. 2015).
    """
    kind = nn.LSTM if cell == "lstm" else nn.GRU
    layer = kind(inputs, width, bidirectional=bidirectional)
    for name, parameter in layer.named_parameters():
        gates = parameter.data.split(width)
        for gate in gates:
            if name.startswith("weight_ih"):
                nn.init.xavier_uniform_(gate)
            elif name.startswith("weight_hh"):
                nn.init.orthogonal_(gate)
            else:
                nn.init.zeros_(gate)
        if name.startswith("bias_ih") and cell == "lstm":
            nn.init.ones_(gates[1])
    return layer


def first_hidden(layer: nn.Module, h: Tensor) -> Hidden:
    """The state before the first step: h (N, D), and 0 for an LSTM's cell."""
    return (h, torch.zeros_like(h)) if isinstance(layer, nn.LSTM) else (h,)


def run(layer: nn.Module, x: Tensor, hidden: Hidden) -> Tensor:
    """All steps at once: x (T, B, inputs) -> h of each step (T, B, D)."""
    first = tuple(part[None] for part in hidden)
    with wide_enough(x):
        states, _ = layer(x, first if isinstance(layer, nn.LSTM) else first[0])
    return states


def wide_enough(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Context for a whole layer: on a GPU, autocast to bf16 is off in it.

    Autocast runs cuDNN's recurrent layers in fp16 whatever it is set to, and without a scale for the loss their small
    gradients would vanish.
    """
    device = x.device.type
    narrow = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.bfloat16
    return torch.autocast(device, enabled=False) if x.is_cuda and narrow else contextlib.nullcontext()


def step(layer: nn.Module, x: Tensor, hidden: Hidden) -> Hidden:
    """One step: x (..., inputs) -> the next state."""
    weight_ih, weight_hh, bias_ih, bias_hh = layer.parameters()
    from_input = F.linear(x, weight_ih, bias_ih)
    from_state = F.linear(hidden[0], weight_hh, bias_hh)
    return _gates(layer, from_input, from_state, hidden)


class LoopLayer:
    """A layer inside a loop over time.

    The part of the input that is known before the loop, known (T, B, I'), passes through its columns of the weights
    in one product; a step multiplies only by the rest.
    """

    def __init__(self, layer: nn.Module, known: Tensor | None, dtype: torch.dtype) -> None:
        self.layer = layer
        self.dtype = dtype
        weight_ih, weight_hh, bias_ih, bias_hh = layer.parameters()
        width = 0 if known is None else known.size(-1)
        now, later = weight_ih[:, :width], weight_ih[:, width:]
        if isinstance(layer, nn.LSTM):
            self.bias = bias_ih + bias_hh
            self.matrices = [LoopMatrix(torch.cat([later, weight_hh], 1).t(), dtype)]
        else:  # the new gate of a GRU needs the part of the state by itself
            self.bias, self.state_bias = bias_ih, bias_hh
            self.matrices = [LoopMatrix(later.t(), dtype), LoopMatrix(weight_hh.t(), dtype)]
        self.ahead = None if known is None else F.linear(known, now, self.bias).unbind(0)

    def __call__(self, time: int, x: Tensor, hidden: Hidden) -> Hidden:
        """x (B, I - I'), the part of the input that came late -> the next state."""
        ahead = self.bias if self.ahead is None else self.ahead[time]
        if isinstance(self.layer, nn.LSTM):
            both = torch.cat([x.to(self.dtype), hidden[0].to(self.dtype)], -1)
            return _gates(self.layer, ahead, both @ self.matrices[0], hidden)
        from_state = hidden[0] @ self.matrices[1] + self.state_bias
        return _gates(self.layer, ahead + x @ self.matrices[0], from_state, hidden)


def _gates(layer: nn.Module, from_input: Tensor, from_state: Tensor, hidden: Hidden) -> Hidden:
    """The unit's equations, in the number format of the state, which is never less than fp32."""
    dtype = hidden[0].dtype
    if isinstance(layer, nn.LSTM):
        i, f, g, o = (from_input + from_state).to(dtype).chunk(4, -1)
        c = torch.sigmoid(f) * hidden[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
    r_in, z_in, n_in = from_input.to(dtype).chunk(3, -1)
    r_state, z_state, n_state = from_state.to(dtype).chunk(3, -1)
    r, z = torch.sigmoid(r_in + r_state), torch.sigmoid(z_in + z_state)
    n = torch.tanh(n_in + r * n_state)
    return (n + z * (hidden[0] - n),)
