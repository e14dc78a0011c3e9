"""The numbers of one output step, written out as on a blackboard.

Vectors are too long to print, so of each a few features are shown. What is summed over all features is shown as the
products of these, and one number for the sum of the rest: whatever is computed can be computed again from what is
printed.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from translate.report.blackboard.board import Board, Formula, Section, Table
from translate.report.blackboard.numbers import Worked
from translate.report.blackboard.scores import Array, Part, ScoreSteps, number, score_steps
from translate.report.fonts import printable

SHOWN, ALL_SHOWN = 4, 6
"""Features of a vector that are printed; vectors of up to ALL_SHOWN are printed whole."""
WORKED_OUT = 2
"""Features that are worked out where each has scores of its own."""

Block = str | Formula | Table
Column = tuple[str, npt.NDArray[np.floating[Any]]]


def board(worked: Worked) -> Board:
    """The whole calculation, in order."""
    steps = score_steps(worked.score)
    parts = [
        Section("The query and the keys", list(_compared(worked, steps))),
        Section("The scores", list(_scored(worked, steps))),
        Section("From scores to weights", list(_weighed(worked))),
        Section("The context vector", list(_mixed(worked))),
        Section("The heads together", list(_joined(worked))),
        Section("The output word", list(_written(worked))),
    ]
    parts = [part for part in parts if part.blocks]
    for index, part in enumerate(parts, start=1):
        part.title = f"{index}. {part.title}"
    return Board(f"{worked.sentence} → {worked.translation}", [_opening(worked), *parts], worked.to_json())


def _opening(worked: Worked) -> Section:
    width = len(worked.score.query)
    lines = f"Layer {worked.layer} of {worked.layers}, head {worked.head} of {worked.heads}. Vectors have D = {width} "
    if worked.score.per_feature:
        lines += f"features, each with scores of its own; the first {len(_parts_shown(worked))} are worked out. "
    elif width > ALL_SHOWN:
        lines += f"features, of which the first {SHOWN} are shown; `rest` is the sum over all the others. "
    else:
        lines += "features. "
    if worked.heads > 1:
        lines += "The query q, the keys m and the values are those of this head. "
    title = f'Step {worked.step} of {len(worked.tgt)}: the decoder has read "{printable(worked.reads)}" and writes '
    written = ", ".join(f'{index} "{printable(piece)}"' for index, piece in enumerate(worked.tgt, start=1))
    return Section(
        f'{title}"{printable(worked.output.word)}"',
        [f"All steps: {written}.", f"{lines}Numbers are rounded to four decimals."],
    )


def _compared(worked: Worked, steps: ScoreSteps) -> Iterator[Block]:
    """The vectors that the score compares."""
    (query_name, query), (key_name, keys) = steps.query, steps.keys
    labels = [query_name, *(f"{key_name}, {label}" for label in _labels(worked))]
    yield _vectors("", labels, np.concatenate([query[None], keys]))
    if worked.score.kind == "location":
        yield "The keys are learned vectors of the positions: what stands there does not matter."


def _scored(worked: Worked, steps: ScoreSteps) -> Iterator[Block]:
    """Each key's score e."""
    yield Formula(f"e = {steps.formula}")
    if worked.score.per_feature and steps.inner is None:
        yield "Of the sum over the features, each feature has its own term as its score."
    if worked.score.per_feature and steps.inner is not None:
        yield "Each feature has its own row of v, which is a matrix here."
    if steps.inner is not None:
        if worked.score.covered is not None:
            yield "Of coverage, the vector w_c, and the weights c that each key has had so far:"
            yield _vectors("", ["w_c"], worked.score.parameters["w_c"][None])
            yield _table(_labels(worked), [("c", worked.score.covered)])
        yield _vectors(steps.inner[0], _labels(worked), steps.inner[1])
    for index in _parts_shown(worked):
        part = steps.parts[index]
        if worked.score.per_feature:
            yield f"Feature {index + 1}:"
        if steps.inner is not None:
            yield _vectors("", [f"v, row {index + 1}" if worked.score.per_feature else "v"], part.left[None])
        if part.constants:
            yield Formula("\n".join(part.constants))
        first = 0 if steps.inner is not None or not worked.score.per_feature else index
        yield _table(_labels(worked), _score_columns(part, first))


def _score_columns(part: Part, first: int) -> list[Column]:
    """Products of features from `first` on, their sum, and what becomes of it; the last is the score."""
    columns = _summed([(f"product {first + d + 1}", part.products[:, d]) for d in range(part.products.shape[1])])
    columns += part.finish
    name, values = columns[-1]
    return [*columns[:-1], (f"{name} = e", values)]


def _weighed(worked: Worked) -> Iterator[Block]:
    """The weights a of the keys that are seen."""
    yield from _scope_lines(worked)
    match worked.normalizer:
        case "softmax":
            yield Formula("a = exp(e - max) / sum, with the largest e as max and the sum of all exp(e - max) as sum")
        case "sparsemax":
            yield Formula("a = max(e - τ, 0), with τ such that the weights sum to 1")
    if worked.scope.gaussian is not None:
        yield Formula("and then multiplied with exp(-(s - p)² / (2 σ²))")
    if worked.selection != "soft":
        yield "One key is chosen: the one with the largest weight."
    for index in _parts_shown(worked):
        if worked.score.per_feature:
            yield f"Feature {index + 1}:"
        scores, shares, weights = (_part_of(x, index) for x in (worked.score.scores, worked.shares, worked.weights))
        yield from _weight_blocks(worked, scores, shares, weights)


def _scope_lines(worked: Worked) -> Iterator[Block]:
    """Where a local scope is, and which keys it lets be seen."""
    scope, length = worked.scope, len(worked.src)
    if scope.centre is None:
        return
    if scope.pushed is not None:
        yield Formula(
            f"p = S sigmoid(v · tanh(W q)) = {length} / (1 + exp(-({number(scope.pushed)}))) = {number(scope.centre)}\n"
            f"σ = window / 2 = {scope.window} / 2 = {number(scope.window / 2)}"
        )
    else:
        yield Formula(f"p = min(t - 1, S - 1) = min({worked.step - 1}, {length - 1}) = {scope.centre:.0f}")
    seen = [label for label, is_seen in zip(_labels(worked), scope.seen, strict=True) if is_seen]
    yield (
        f"Positions s count from 0 here. Seen are those at most {scope.window} from p: {', '.join(seen)}. "
        "The others have weight 0."
    )


def _weight_blocks(worked: Worked, scores: Array, shares: Array, weights: Array) -> Iterator[Block]:
    """Scores (S) to weights (S), column by column; what is not seen takes no part."""
    scope = worked.scope
    seen = scores[scope.seen]
    columns: list[Column] = [("e", scores)]
    if worked.normalizer == "softmax":
        shifted = np.where(scope.seen, scores - seen.max(), np.nan)
        columns += [("e - max", shifted), ("exp", np.exp(shifted))]
    else:
        support = np.sort(scores[shares > 0])[::-1]
        terms = " + ".join(number(score) for score in support)
        level = (support.sum() - 1) / len(support)
        yield Formula(f"τ = ({terms} - 1) / {len(support)} = {number(level)}")
        columns.append(("e - τ", np.where(scope.seen, scores - level, np.nan)))
    columns.append(("a", shares))
    if scope.gaussian is not None:
        assert scope.centre is not None
        distance = np.arange(len(scores)) - scope.centre
        columns += [("s - p", distance), ("Gaussian", scope.gaussian), ("a · Gaussian", shares * scope.gaussian)]
    if worked.selection != "soft":
        columns.append(("chosen", weights))
    totals = ("exp", "a", "a · Gaussian", "chosen")
    yield _table(_labels(worked), columns, [name in totals for name, _ in columns])


def _mixed(worked: Worked) -> Iterator[Block]:
    """Each weight times its value, and their sum."""
    yield Formula("c = a_1 value_1 + … + a_S value_S")
    values, products = worked.values, worked.products
    if worked.score.per_feature:
        columns: list[Column] = []
        for d in _parts_shown(worked):
            columns += [
                (f"a, {d + 1}", worked.weights[:, d]),
                (f"value {d + 1}", values[:, d]),
                (f"a · value {d + 1}", products[:, d]),
            ]
    else:
        count = _count(values.shape[1])
        columns = [("a", worked.weights)]
        columns += [(f"value {d + 1}", values[:, d]) for d in range(count)]
        columns += [(f"a · value {d + 1}", products[:, d]) for d in range(count)]
    yield _table(_labels(worked), columns, [name.startswith("a · value") for name, _ in columns], "c")


def _joined(worked: Worked) -> Iterator[Block]:
    """What the projection of all heads makes of their contexts."""
    if worked.joined is None:
        return
    joined = worked.joined
    heads, width = joined.contexts.shape
    yield Formula(f"attended = W_1 c_1 + … + W_{heads} c_{heads} + b, c_{worked.head} being the c above")
    shares = [joined.W[:, h * width : (h + 1) * width] @ joined.contexts[h] for h in range(heads)]
    labels = [*(f"W_{h + 1} c_{h + 1}" for h in range(heads)), "b", "attended"]
    yield _vectors("", labels, np.stack([*shares, joined.b, joined.attended]))


def _written(worked: Worked) -> Iterator[Block]:
    """From what was attended to, to the word."""
    feature, output = worked.feature, worked.output
    attended, name = (worked.context, "c") if worked.joined is None else (worked.joined.attended, "attended")
    if feature.state is not None and feature.W is not None:
        width = len(attended)
        looked, known = feature.W[:, :width] @ attended, feature.W[:, width:] @ feature.state
        yield Formula(f"f = tanh(W [{name}; h]) = tanh(W_1 {name} + W_2 h), with the decoder's state h")
        labels = [f"W_1 {name}", "W_2 h", "sum", "f = tanh"]
        yield _vectors("", labels, np.stack([looked, known, looked + known, feature.vector]))
    else:
        yield "The rest of the network makes of it the vector f:"
    yield Formula("logit = f · row + bias, with the row and the bias of the word in the output layer")
    word = printable(output.word)
    columns = _summed([(f"{d + 1}", feature.vector[d : d + 1] * output.row[d : d + 1]) for d in range(len(output.row))])
    yield _vectors("", ["f", f"row of {word}"], np.stack([feature.vector, output.row]))
    bias, logit = np.array([output.bias]), np.array([output.logits[output.id]])
    yield _table(["products"], [*columns, ("bias", bias), ("sum + bias = logit", logit)])
    yield from _chosen(worked)


def _chosen(worked: Worked) -> Iterator[Block]:
    """The likeliest words, and the probability of the one that is written."""
    output = worked.output
    yield Formula("probability = exp(logit - max) / sum, with the sum over the whole vocabulary as sum")
    logits = np.array([output.logits[id] for _, id in output.candidates])
    top = output.logits.max()
    others = np.exp(np.delete(output.logits, [id for _, id in output.candidates]) - top).sum()
    left = len(output.logits) - len(logits)
    labels = [*(printable(word) for word, _ in output.candidates), f"{left} other words"]
    exps = np.append(np.exp(logits - top), others)
    columns: list[Column] = [
        ("logit", np.append(logits, np.nan)),
        ("logit - max", np.append(logits - top, np.nan)),
        ("exp", exps),
        ("probability", exps / exps.sum()),
    ]
    yield _table(labels, columns, [False, False, True, True])
    yield f"P({printable(output.word)}) = {number(output.probability(output.id))}"


def _labels(worked: Worked) -> list[str]:
    """The source pieces, numbered: the same piece may stand twice."""
    return [f"{index} {printable(piece)}" for index, piece in enumerate(worked.src, start=1)]


def _parts_shown(worked: Worked) -> range:
    """The features that are worked out, or one stand-in for all of them."""
    return range(min(WORKED_OUT, len(worked.score.query)) if worked.score.per_feature else 1)


def _part_of(numbers: Array, index: int) -> Array:
    return numbers if numbers.ndim == 1 else numbers[:, index]


def _count(width: int) -> int:
    """How many features of a vector are shown."""
    return width if width <= ALL_SHOWN else SHOWN


def _summed(columns: list[Column]) -> list[Column]:
    """One column a feature -> those that are shown, the sum of the rest, and the sum of all."""
    if len(columns) == 1:
        return columns
    shown = columns[: _count(len(columns))]
    numbers = np.stack([np.asarray(values) for _, values in columns])
    if len(shown) < len(columns):
        shown = [*shown, ("rest", numbers[len(shown) :].sum(0))]
    return [*shown, ("sum", numbers.sum(0))]


def _vectors(name: str, labels: Sequence[str], vectors: Array) -> Table:
    """The first features of vectors (N, D), one a row."""
    count = _count(vectors.shape[1])
    return Table(
        [name, *map(str, range(1, count + 1))],
        [[label, *map(number, vector[:count])] for label, vector in zip(labels, vectors, strict=True)],
    )


def _table(
    labels: Sequence[str], columns: Sequence[Column], totals: Sequence[bool] = (), total_name: str = "sum"
) -> Table:
    """One row a label; nan is left out. A last row has the sums of the columns that `totals` says."""
    cells = [["" if np.isnan(value) else number(value) for value in values] for _, values in columns]
    rows = [[label, *row] for label, row in zip(labels, zip(*cells, strict=True), strict=True)]
    if any(totals):
        sums = [
            number(float(np.nansum(values))) if total else ""
            for (_, values), total in zip(columns, totals, strict=True)
        ]
        rows.append([total_name, *sums])
    return Table(["", *(name for name, _ in columns)], rows)
