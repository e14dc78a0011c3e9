"""The loop of an input-feeding LSTM decoder with its backward pass written by hand.

`RnnDecoder` has the same loop in plain steps, for every cell and every kind of attention. This is the most usual case,
LSTM layers under an inner-product score, as one function: what the steps compute is kept in buffers over time, the way
back goes through the steps in turn for the gradients of the data alone, and each matrix gets its gradient after the
loop, from one product over all steps. Cells and gates are kept in fp32 at least, products in `dtype`.

A step is

    (i, f, g, o) = [x; h] W + added     c' = sigmoid(f) c + sigmoid(i) tanh(g)     h' = sigmoid(o) tanh(c')
    a = softmax(h' K + bias)            context = a V                              feature = tanh([context; h'] C)

in which x is the last feature, or the h' of the layer below.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from translate.models.attention import Prepared


@dataclass(frozen=True)
class Layer:
    """A layer of the loop."""

    matrix: Tensor
    """(2 D, 4 D), for what enters from the layer below, or is fed back, beside the state."""
    added: Tensor
    """(T, B, 4 D), what is known before the loop, of the first layer; (4 D,) of the others."""
    first: Tensor
    """(B, D), the state before the first step; the cell is 0."""
    mask: Tensor | None
    """(T, B, D), what its input is multiplied by."""


def run(layers: list[Layer], prepared: Prepared, combine: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features (B, T, D); contexts (B, T, D) and attention weights (B, T, S) only to be looked at.

    `prepared.keys` (B, D, S) and `prepared.values` (B, S, D) are tensors; `combine` is C (2 D, D).
    """
    masks = tuple(layer.mask for layer in layers)
    learnt = [tensor for layer in layers for tensor in (layer.matrix, layer.added, layer.first)]
    seen = (prepared.keys, prepared.values, prepared.bias, prepared.alive)
    features, contexts, weights = _FedLstm.apply(steps, masks, *seen, combine, *learnt)
    return features.transpose(0, 1), contexts.transpose(0, 1), weights.transpose(0, 1)


class _Tape:
    """What the way back needs of each step, first in time."""

    def __init__(self, steps: int, first: list[Tensor], states: int, dtype: torch.dtype) -> None:
        batch, width = first[0].shape
        new, wide = first[0].new_empty, first[0].dtype
        self.inputs = [new((steps, batch, 2 * width), dtype=dtype) for _ in first]  # [input; state]
        self.gates = [new((steps, batch, 4 * width), dtype=wide) for _ in first]  # i, f, g, o
        self.cells = [new((steps + 1, batch, width), dtype=wide) for _ in first]  # before each step
        self.weights = new((steps, batch, states), dtype=wide)
        self.seen = new((steps, batch, 2 * width), dtype=dtype)  # [context; h]
        self.features = new((steps, batch, width), dtype=dtype)


class _FedLstm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        steps: int,
        masks: tuple[Tensor | None, ...],
        keys: Tensor,
        values: Tensor,
        bias: Tensor,
        alive: Tensor,
        combine: Tensor,
        *learnt: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        dtype, width = values.dtype, combine.size(1)
        matrices, added, first = [matrix.to(dtype) for matrix in learnt[::3]], learnt[1::3], list(learnt[2::3])
        combine = combine.to(dtype)
        with torch.autocast(keys.device.type, enabled=False):
            tape = _Tape(steps, first, keys.size(-1), dtype)
            hidden = first
            for cells in tape.cells:
                cells[0].zero_()
            fed = torch.zeros_like(tape.features[0])
            for time in range(steps):
                x = fed
                for index, matrix in enumerate(matrices):
                    mask, inputs = masks[index], tape.inputs[index][time]
                    inputs[:, :width] = x if mask is None else x * mask[time]
                    inputs[:, width:] = hidden[index]
                    gates = tape.gates[index][time].copy_(added[index][time] if index == 0 else added[index])
                    gates += inputs @ matrix
                    x = hidden[index] = _lstm(gates, tape.cells[index][time], tape.cells[index][time + 1])
                seen = tape.seen[time]
                seen[:, width:] = x
                scores = torch.baddbmm(bias, seen[:, None, width:], keys)
                weights = torch.softmax(scores, -1, dtype=tape.weights.dtype) * alive
                tape.weights[time] = weights.squeeze(1)
                seen[:, :width] = (weights.to(dtype) @ values).squeeze(1)
                fed = torch.tanh(seen @ combine, out=tape.features[time])
        ctx.steps, ctx.masks, ctx.tape = steps, masks, tape
        ctx.save_for_backward(keys, values, combine, *matrices)
        ctx.kinds = [tensor.dtype for tensor in (keys, values, combine, *learnt)]
        contexts = tape.seen[:, :, :width]
        ctx.mark_non_differentiable(contexts, tape.weights)
        return tape.features, contexts, tape.weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_features: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        keys, values, combine, *matrices = ctx.saved_tensors
        tape, masks, steps, width = ctx.tape, ctx.masks, ctx.steps, combine.size(1)
        wide = tape.weights.dtype
        with torch.autocast(keys.device.type, enabled=False):
            of_gates = [torch.empty_like(gates, dtype=values.dtype) for gates in tape.gates]
            of_combined = torch.empty_like(tape.features)
            of_scores = torch.empty_like(tape.weights, dtype=values.dtype)
            of_contexts = torch.empty_like(tape.features)
            of_hidden = [torch.zeros_like(cells[0]) for cells in tape.cells]
            of_cells = [torch.zeros_like(cells[0]) for cells in tape.cells]
            of_fed = torch.zeros_like(tape.features[0])
            for time in reversed(range(steps)):
                of_combined[time] = torch.ops.aten.tanh_backward(of_features[time] + of_fed, tape.features[time])
                of_seen = of_combined[time] @ combine.t()
                of_contexts[time] = of_seen[:, :width]
                weights = tape.weights[time][:, None]
                of_weights = (of_seen[:, None, :width] @ values.transpose(1, 2)).to(wide)
                of_score = (weights * (of_weights - (weights * of_weights).sum(-1, keepdim=True))).to(values.dtype)
                of_scores[time] = of_score.squeeze(1)
                of_x = (of_seen[:, width:] + (of_score @ keys.transpose(1, 2)).squeeze(1)).to(wide)
                for index in reversed(range(len(matrices))):
                    of_h = of_x + of_hidden[index]
                    gates, cells = tape.gates[index][time], tape.cells[index]
                    of_gates[index][time] = _lstm_back(gates, cells[time], cells[time + 1], of_h, of_cells[index])
                    of_input = of_gates[index][time] @ matrices[index].t()
                    of_hidden[index] = of_input[:, width:].to(wide)
                    mask = masks[index]
                    of_x = (of_input[:, :width] if mask is None else of_input[:, :width] * mask[time]).to(wide)
                of_fed = of_x.to(of_fed.dtype)
            return _after(ctx.kinds, tape, of_gates, of_combined, of_scores, of_contexts, of_hidden)


def _after(
    kinds: list[torch.dtype],
    tape: _Tape,
    of_gates: list[Tensor],
    of_combined: Tensor,
    of_scores: Tensor,
    of_contexts: Tensor,
    of_hidden: list[Tensor],
) -> tuple[Tensor | None, ...]:
    """The gradients of all that took part in every step, each as one product over the steps."""
    width = of_combined.size(-1)
    by_sentence = of_scores.transpose(0, 1)  # (B, T, S)
    of_keys = tape.seen[:, :, width:].permute(1, 2, 0) @ by_sentence
    of_values = tape.weights.to(of_contexts.dtype).permute(1, 2, 0) @ of_contexts.transpose(0, 1)
    of_combine = tape.seen.flatten(0, 1).t() @ of_combined.flatten(0, 1)
    gradients = [of_keys, of_values, of_combine]
    for index, gates in enumerate(of_gates):
        flat = gates.flatten(0, 1)
        added = gates if index == 0 else flat.to(tape.weights.dtype).sum(0)
        gradients += [tape.inputs[index].flatten(0, 1).t() @ flat, added, of_hidden[index]]
    gradients = [gradient.to(kind) for gradient, kind in zip(gradients, kinds, strict=True)]
    return (None, None, *gradients[:2], None, None, *gradients[2:])


def _lstm(gates: Tensor, cell: Tensor, next_cell: Tensor) -> Tensor:
    """What goes into the gates (B, 4 D) -> the next state (B, D); gates and next cell are written in place."""
    width = cell.size(-1)
    gates[:, : 2 * width].sigmoid_()
    gates[:, 2 * width : 3 * width].tanh_()
    gates[:, 3 * width :].sigmoid_()
    i, f, g, o = gates.split(width, -1)
    torch.mul(f, cell, out=next_cell).addcmul_(i, g)
    return torch.tanh(next_cell).mul_(o)


def _lstm_back(gates: Tensor, cell: Tensor, next_cell: Tensor, of_h: Tensor, of_cell: Tensor) -> Tensor:
    """Gradients of a step's state and next cell (in place: of its cell) -> that of what went into the gates."""
    width = cell.size(-1)
    i, f, g, o = gates.split(width, -1)
    bent = torch.tanh(next_cell)
    of_cell += of_h * o * (1 - bent * bent)
    into = torch.empty_like(gates)
    into_i, into_f, into_g, into_o = into.split(width, -1)
    torch.mul(of_cell * g, i * (1 - i), out=into_i)
    torch.mul(of_cell * cell, f * (1 - f), out=into_f)
    torch.mul(of_cell * i, 1 - g * g, out=into_g)
    torch.mul(of_h * bent, o * (1 - o), out=into_o)
    of_cell *= f
    return into
