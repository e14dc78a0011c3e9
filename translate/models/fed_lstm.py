"""The loop of an input-feeding LSTM decoder with its backward pass written by hand.

`RnnDecoder` has the same loop in plain steps, for every cell and every kind of attention. This is the most usual case,
LSTM layers under an inner-product score, as one function: what the steps compute is kept in buffers over time, the way
back goes through the steps in turn for the gradients of the data alone, and each matrix gets its gradient after the
loop, from one product over all steps. Cells and gates are kept in fp32 at least, products in `dtype`.

A step is

    (i, f, g, o) = [x; h] W + added     c' = sigmoid(f) c + sigmoid(i) tanh(g)     h' = sigmoid(o) tanh(c')
    a = softmax(h' K + bias)            context = a V                              feature = tanh([context; h'] C)

in which x is the last feature, or the h' of the layer below. A step forth and a step back are functions of tensors that
share no memory where they are written, so that both can be compiled for a GPU.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

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


def run(
    layers: list[Layer], prepared: Prepared, combine: Tensor, steps: int, walk: "Walk"
) -> tuple[Tensor, Tensor, Tensor]:
    """Features (B, T, D); contexts (B, T, D) and attention weights (B, T, S) only to be looked at.

    `prepared.keys` (B, D, S) and `prepared.values` (B, S, D) are tensors; `combine` is C (2 D, D).
    """
    masks = tuple(layer.mask for layer in layers)
    learnt = [tensor for layer in layers for tensor in (layer.matrix, layer.added, layer.first)]
    seen = (prepared.keys, prepared.values, prepared.bias, prepared.alive)
    features, contexts, weights = _FedLstm.apply(walk, steps, masks, *seen, combine, *learnt)
    return features.transpose(0, 1), contexts.transpose(0, 1), weights.transpose(0, 1)


class Row(NamedTuple):
    """What a step writes down for the way back."""

    inputs: list[Tensor]
    """(B, 2 D) of each layer, [x; h]"""
    gates: list[Tensor]
    """(B, 4 D) of each layer, i, f, g, o"""
    weights: Tensor
    """(B, S)"""
    seen: Tensor
    """(B, 2 D), [context; h']"""


class BackRow(NamedTuple):
    """Gradients that a step back leaves for the products after the loop."""

    gates: list[Tensor]
    """(B, 4 D) of each layer, before their functions"""
    combined: Tensor
    """(B, D), before the tanh"""
    scores: Tensor
    """(B, S)"""
    context: Tensor
    """(B, D)"""


class _Tape:
    """The rows of all steps, first in time; and of each layer the cells (B, D) before each step and after the last."""

    def __init__(self, steps: int, first: list[Tensor], states: int, dtype: torch.dtype) -> None:
        batch, width = first[0].shape
        new, wide = first[0].new_empty, first[0].dtype
        self.inputs = [new((steps, batch, 2 * width), dtype=dtype) for _ in first]
        self.gates = [new((steps, batch, 4 * width), dtype=wide) for _ in first]
        self.weights = new((steps, batch, states), dtype=wide)
        self.seen = new((steps, batch, 2 * width), dtype=dtype)
        self.cells = [[torch.zeros_like(hidden) for hidden in first]]
        self.features = new((0, batch, width), dtype=dtype)

    def row(self, time: int) -> Row:
        inputs, gates = ([each[time] for each in layers] for layers in (self.inputs, self.gates))
        return Row(inputs, gates, self.weights[time], self.seen[time])


class _FedLstm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        walk: "Walk",
        steps: int,
        masks: tuple[Tensor | None, ...],
        keys: Tensor,
        values: Tensor,
        bias: Tensor,
        alive: Tensor,
        combine: Tensor,
        *learnt: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        kinds = [tensor.dtype for tensor in (keys, values, combine, *learnt)]
        # Detached, since a step is compiled for inputs that want gradients and again for those that do not.
        given = (keys, values, bias, alive, combine, *learnt)
        keys, values, bias, alive, combine, *plain = (tensor.detach() for tensor in given)
        dtype, width = values.dtype, combine.size(1)
        matrices, added, first = [matrix.to(dtype) for matrix in plain[::3]], plain[1::3], plain[2::3]
        combine = combine.to(dtype)
        with torch.autocast(keys.device.type, enabled=False):
            tape, hidden, features = _Tape(steps, first, keys.size(-1), dtype), first, []
            feature = torch.zeros_like(first[0], dtype=dtype)
            for time in range(steps):
                row, entering = tape.row(time), [added[0][time], *added[1:]]
                known = entering, _at(masks, time), matrices, (keys, values, bias, alive), combine
                feature, hidden, cells = walk.forth(row, feature, hidden, tape.cells[-1], *known)
                tape.cells.append(cells)
                features.append(feature)
            stacked = torch.stack(features)
            tape.features = stacked.detach()  # for what is returned will want a gradient
        ctx.walk, ctx.steps, ctx.masks, ctx.tape = walk, steps, masks, tape
        ctx.save_for_backward(keys, values, combine, *matrices)
        ctx.kinds = kinds
        contexts = tape.seen[:, :, :width]
        ctx.mark_non_differentiable(contexts, tape.weights)
        return stacked, contexts, tape.weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_features: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        keys, values, combine, *matrices = ctx.saved_tensors
        tape, masks = ctx.tape, ctx.masks
        with torch.autocast(keys.device.type, enabled=False):
            of_gates = [torch.empty_like(gates, dtype=values.dtype) for gates in tape.gates]
            of_combined, of_contexts = torch.empty_like(tape.features), torch.empty_like(tape.features)
            of_scores = torch.empty_like(tape.weights, dtype=values.dtype)
            of_hidden = [torch.zeros_like(cell) for cell in tape.cells[0]]
            of_cells = [torch.zeros_like(cell) for cell in tape.cells[0]]
            of_fed = torch.zeros_like(tape.features[0])
            for time in reversed(range(ctx.steps)):
                back_row = BackRow([g[time] for g in of_gates], of_combined[time], of_scores[time], of_contexts[time])
                made = tape.row(time), tape.features[time], tape.cells[time], tape.cells[time + 1]
                known, later = (_at(masks, time), matrices, (keys, values), combine), (of_fed, of_hidden, of_cells)
                of_fed, of_hidden = ctx.walk.back(back_row, *made, *known, of_features[time], *later)
            return _after(ctx.kinds, tape, of_gates, of_combined, of_scores, of_contexts, of_hidden)


def _forth(
    row: Row,
    fed: Tensor,
    hidden: list[Tensor],
    cells: list[Tensor],
    added: list[Tensor],
    masks: list[Tensor | None],
    matrices: list[Tensor],
    looked_at: tuple[Tensor, Tensor, Tensor, Tensor],
    combine: Tensor,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """A step -> its feature, and the states and cells of all layers."""
    (keys, values, bias, alive), width, x = looked_at, combine.size(1), fed
    next_hidden, next_cells = [], []
    for index, matrix in enumerate(matrices):
        inputs, gates, mask = row.inputs[index], row.gates[index], masks[index]
        inputs[:, :width] = x if mask is None else x * mask
        inputs[:, width:] = hidden[index]
        gates.copy_(added[index])
        gates += inputs @ matrix
        x, cell = _lstm(gates, cells[index])
        next_hidden.append(x)
        next_cells.append(cell)
    row.seen[:, width:] = x
    scores = torch.baddbmm(bias, row.seen[:, None, width:], keys)
    weights = torch.softmax(scores, -1, dtype=row.weights.dtype) * alive
    row.weights.copy_(weights.squeeze(1))
    row.seen[:, :width] = (weights.to(values.dtype) @ values).squeeze(1)
    return torch.tanh(row.seen @ combine), next_hidden, next_cells


def _back(
    back_row: BackRow,
    row: Row,
    feature: Tensor,
    cells: list[Tensor],
    next_cells: list[Tensor],
    masks: list[Tensor | None],
    matrices: list[Tensor],
    looked_at: tuple[Tensor, Tensor],
    combine: Tensor,
    of_feature: Tensor,
    of_fed: Tensor,
    of_hidden: list[Tensor],
    of_cells: list[Tensor],
) -> tuple[Tensor, list[Tensor]]:
    """The way back through a step -> gradients of what was fed and of the states before it; in place, of the cells."""
    (keys, values), width, wide = looked_at, combine.size(1), row.weights.dtype
    of_combined = torch.ops.aten.tanh_backward(of_feature + of_fed, feature)
    back_row.combined.copy_(of_combined)
    of_seen = of_combined @ combine.t()
    back_row.context.copy_(of_seen[:, :width])
    weights = row.weights[:, None]
    of_weights = (of_seen[:, None, :width] @ values.transpose(1, 2)).to(wide)
    of_score = (weights * (of_weights - (weights * of_weights).sum(-1, keepdim=True))).to(values.dtype)
    back_row.scores.copy_(of_score.squeeze(1))
    of_x = (of_seen[:, width:] + (of_score @ keys.transpose(1, 2)).squeeze(1)).to(wide)
    of_states: list[Tensor] = []
    for index in reversed(range(len(matrices))):
        of_gates, of_h = back_row.gates[index], of_x + of_hidden[index]
        _lstm_back(of_gates, row.gates[index], cells[index], next_cells[index], of_h, of_cells[index])
        of_input = of_gates @ matrices[index].t()
        of_states.insert(0, of_input[:, width:].to(wide))
        mask = masks[index]
        of_x = (of_input[:, :width] if mask is None else of_input[:, :width] * mask).to(wide)
    return of_x.to(of_fed.dtype), of_states


class Walk(NamedTuple):
    """How the loop takes a step in each direction."""

    forth: Callable[..., tuple[Tensor, list[Tensor], list[Tensor]]]
    back: Callable[..., tuple[Tensor, list[Tensor]]]


PLAIN = Walk(_forth, _back)


def _at(masks: tuple[Tensor | None, ...], time: int) -> list[Tensor | None]:
    return [None if mask is None else mask[time] for mask in masks]


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
    return (None, None, None, *gradients[:2], None, None, *gradients[2:])


def _lstm(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """What goes into the gates (B, 4 D) -> the next state and cell (B, D); the gates are written in place."""
    width = cell.size(-1)
    gates[:, : 2 * width].sigmoid_()
    gates[:, 2 * width : 3 * width].tanh_()
    gates[:, 3 * width :].sigmoid_()
    i, f, g, o = gates.split(width, -1)
    next_cell = (f * cell).addcmul_(i, g)
    return torch.tanh(next_cell).mul_(o), next_cell


def _lstm_back(into: Tensor, gates: Tensor, cell: Tensor, next_cell: Tensor, of_h: Tensor, of_cell: Tensor) -> None:
    """Gradients of a step's state and next cell (in place: of its cell) -> `into`, that of what went into the gates."""
    width = cell.size(-1)
    i, f, g, o = gates.split(width, -1)
    bent = torch.tanh(next_cell)
    of_cell += of_h * o * (1 - bent * bent)
    into[:, :width] = of_cell * g * (i * (1 - i))
    into[:, width : 2 * width] = of_cell * cell * (f * (1 - f))
    into[:, 2 * width : 3 * width] = of_cell * i * (1 - g * g)
    into[:, 3 * width :] = of_h * bent * (o * (1 - o))
    of_cell *= f
