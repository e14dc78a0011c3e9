"""The worked calculation as it is printed: what is computed can be computed again from what is printed."""

import math
import re
from dataclasses import dataclass, field

import pytest

from tests.worked import CHOICES, chosen_step, worked_out
from translate.config import RnnDecoderConfig, RnnEncoderConfig, TransformerDecoderConfig, TransformerEncoderConfig
from translate.report.blackboard import board as boards
from translate.report.blackboard.board import Board, Formula, Section
from translate.report.blackboard.numbers import Worked
from translate.report.blackboard.writing import board

Vector = list[float]
NEAR = 2e-3
"""Four decimals of two factors of some size."""


@dataclass
class Table:
    """A table of the Markdown. `given` are numbers of the formulas before it, by what stands before their first `=`."""

    head: list[str]
    given: dict[str, float]
    rows: list[list[str]] = field(default_factory=list)

    def column(self, name: str) -> Vector:
        """The numbers under a name, without a last row of sums."""
        index = self.head.index(name)
        return [float(row[index]) if row[index] else math.nan for row in self.rows if row[0] not in ("sum", "c")]

    def total(self, name: str) -> float:
        return float(self.rows[-1][self.head.index(name)])

    def vectors(self) -> list[Vector]:
        return [[float(cell) for cell in row[1:]] for row in self.rows]


def parse(markdown: str) -> list[tuple[str, list[Table]]]:
    """The tables of each section, under its title."""
    found: list[tuple[str, list[Table]]] = []
    given: dict[str, float] = {}
    row_before = False
    for line in markdown.split("\n"):
        is_row = line.startswith("| ") or line.startswith("|  |")
        cells = [cell.strip().replace("\\", "") for cell in re.split(r"(?<!\\)\|", line[1:-1])]
        if line.startswith("#"):
            found.append((line.lstrip("# "), []))
        elif is_row and not row_before:
            found[-1][1].append(Table(cells, dict(given)))
        elif is_row and not set(line) <= set("|-: "):
            found[-1][1][-1].rows.append(cells)
        elif number := re.search(r"= (-?[\d.]+)$", line):
            given[line.partition(" = ")[0]] = float(number[1])
        row_before = is_row
    return found


def near(found: Vector, expected: Vector) -> None:
    assert found == pytest.approx(expected, abs=NEAR, nan_ok=True)


def added(*vectors: Vector) -> Vector:
    return [math.fsum(each) for each in zip(*vectors, strict=True)]


def check_printed_scores(worked: Worked, first: list[Table], second: list[Table]) -> list[Vector]:
    """The scores of each feature that is worked out, or the only ones."""
    query, *keys = first[0].vectors()
    left, right = query, keys
    tables = second
    if worked.score.kind in ("additive", "concat"):
        covered = [0.0] * len(keys)
        w_c = [0.0] * len(query)
        if worked.score.covered is not None:
            (w_c,), covered = tables[0].vectors(), tables[1].column("c")
            tables = tables[2:]
        right = tables[0].vectors()
        for row, key, c in zip(right, keys, covered, strict=True):
            near(row, [math.tanh(a + b + c * w) for a, b, w in zip(query, key, w_c, strict=True)])
        tables = tables[1:]
    found = []
    while tables:
        if worked.score.kind in ("additive", "concat"):
            (left,), tables = tables[0].vectors(), tables[1:]
        found.append(check_printed_sum(tables[0], left, right))
        tables = tables[1:]
    return found


def check_printed_sum(table: Table, left: Vector, right: list[Vector]) -> Vector:
    """One table of products, their sum, and what becomes of it."""
    value: Vector = []
    products: list[Vector] = []
    given = table.given
    for header in table.head[1:]:
        name, numbers = header.removesuffix(" = e"), table.column(header)
        if name.startswith("product "):
            d = int(name.removeprefix("product ")) - 1
            near(numbers, [left[d] * row[d] for row in right])
        if name.startswith("product ") or name == "rest":
            products.append(numbers)
            value = numbers
            continue
        match name:
            case "c":
                covered = numbers
                continue
            case "|m|":
                lengths = numbers
                continue
            case "sum":
                value = added(*products)
            case "/ √D":
                value = [x / given["√D"] for x in value]
            case "/ (|q| |m|)":
                value = [x / given["|q|"] / m for x, m in zip(value, lengths, strict=True)]
            case "+ u c":
                value = [x + given["u"] * c for x, c in zip(value, covered, strict=True)]
            case "+ u c / |q|":
                value = [x + given["u"] * c / given["|q|"] for x, c in zip(value, covered, strict=True)]
            case "+ b":
                value = [x + given["b"] for x in value]
            case "tanh":
                value = [math.tanh(x) for x in value]
            case _:
                assert name == "· β"
                value = [x * given["β"] for x in value]
        near(numbers, value)
        value = numbers
    return value


def check_printed_weights(table: Table, scores: Vector) -> Vector:
    near(table.column("e"), scores)
    weights = table.column("a")
    if "exp" in table.head:
        shifted = table.column("e - max")
        seen = [not math.isnan(x) for x in shifted]
        most = max(e for e, is_seen in zip(scores, seen, strict=True) if is_seen)
        near(shifted, [e - most if is_seen else math.nan for e, is_seen in zip(scores, seen, strict=True)])
        near(table.column("exp"), [math.exp(x) for x in shifted])
        near(weights, [0.0 if math.isnan(x) else x / table.total("exp") for x in table.column("exp")])
        near([table.total("exp")], [math.fsum(x for x in table.column("exp") if not math.isnan(x))])
    else:
        above = table.column("e - τ")
        near(weights, [0.0 if math.isnan(x) else max(x, 0.0) for x in above])
    near([table.total("a")], [1.0])
    if "Gaussian" in table.head:
        p, sigma = table.given["p"], table.given["σ"]
        near(table.column("s - p"), [s - p for s in range(len(scores))])
        near(table.column("Gaussian"), [math.exp(-((s - p) ** 2) / (2 * sigma**2)) for s in range(len(scores))])
        bells = zip(weights, table.column("Gaussian"), strict=True)
        weights = table.column("a · Gaussian")
        near(weights, [a * g for a, g in bells])
    if "chosen" in table.head:
        chosen = table.column("chosen")
        assert sorted(chosen)[-2:] == [0.0, 1.0]
        assert weights[chosen.index(1.0)] == max(weights)
        weights = chosen
    return weights


def check_printed_context(worked: Worked, table: Table, weights: list[Vector]) -> Vector:
    several = worked.score.per_feature
    names = [name for name in table.head if name.startswith("value ")]
    for index, name in enumerate(names):
        near(table.column(f"a, {index + 1}" if several else "a"), weights[index if several else 0])
        expected = [a * v for a, v in zip(weights[index if several else 0], table.column(name), strict=True)]
        near(table.column(f"a · {name}"), expected)
        near([table.total(f"a · {name}")], [math.fsum(table.column(f"a · {name}"))])
    return [table.total(f"a · {name}") for name in names]


def check_printed_word(worked: Worked, tables: list[Table]) -> None:
    if worked.feature.state is not None:
        from_context, from_state, both, feature = tables[0].vectors()
        near(both, added(from_context, from_state))
        near(feature, [math.tanh(x) for x in both])
        assert tables[1].vectors()[0] == feature
        tables = tables[1:]
    feature, row = tables[0].vectors()
    (products,) = tables[1].vectors()
    near(products[: len(row)], [a * b for a, b in zip(feature, row, strict=True)])
    assert tables[1].head[len(row) + 1 :] == ["rest", "sum", "bias", "sum + bias = logit"]
    near(products[-3:-2], [math.fsum(products[:-3])])
    near(products[-1:], [products[-3] + products[-2]])
    words = tables[2]
    logits, exps = words.column("logit"), words.column("exp")
    assert logits[[row[0] for row in words.rows].index(worked.output.word.replace("▁", "_"))] == products[-1]
    near(words.column("logit - max")[:-1], [x - max(logits[:-1]) for x in logits[:-1]])
    near(exps[:-1], [math.exp(x) for x in words.column("logit - max")[:-1]])
    near([words.total("exp")], [math.fsum(exps)])
    near(words.column("probability"), [x / math.fsum(exps) for x in exps])
    place = [row[0] for row in words.rows].index(worked.output.word.replace("▁", "_"))
    near(words.column("probability")[place : place + 1], [worked.output.probability(worked.output.id)])


@pytest.mark.parametrize("name", CHOICES)
def test_what_is_printed_can_be_computed_from_what_is_printed(name: str) -> None:
    worked, _, choice = chosen_step(name)
    markdown = board(worked).show("markdown")
    titles, sections = zip(*parse(markdown), strict=True)
    _, _, first, second, third, fourth, *others, last = sections
    assert titles[2] == "1. The query and the keys"
    scores = check_printed_scores(worked, first, second)
    assert len(scores) == (2 if worked.score.per_feature else 1)
    assert len(third) == len(scores)
    weights = [check_printed_weights(*each) for each in zip(third, scores, strict=True)]
    check_printed_context(worked, fourth[0], weights)
    for heads in others:
        *shares, attended = heads[0].vectors()
        near(attended, added(*shares))
    assert len(others) == (choice["heads"] > 1)
    check_printed_word(worked, last)
    seen = worked.scope.seen.sum()
    assert ("Positions s count from 0" in markdown) == (worked.scope.kind != "global")
    assert worked.scope.kind == "global" or seen <= 2 * worked.scope.window + 1


def test_the_opening_says_which_step_it_is() -> None:
    worked, _ = worked_out(
        TransformerEncoderConfig(width=8, heads=2), TransformerDecoderConfig(width=8, heads=2), 2, 1, 2
    )
    text = board(worked).show("text")
    assert text.startswith('a sentence → its translation\n\nStep 2 of 4: the decoder has read "_i" and writes "_e"\n')
    assert (
        'All steps: 1 "_i", 2 "_e", 3 "_g", 4 "_c".\nLayer 2 of 3, head 1 of 2. Vectors have D = 4 features. ' in text
    )


def test_terminal_and_markdown_have_the_same_numbers() -> None:
    worked, _ = worked_out(RnnEncoderConfig(width=8), RnnDecoderConfig(width=8))
    texts = [re.findall(r"-?\d+\.\d{4}", board(worked).show(form)) for form in ("text", "markdown")]
    assert len(texts[0]) > 100
    assert texts[0] == texts[1]


def test_columns_line_up_under_korean() -> None:
    table = boards.Table(["", "a", "b"], [["학생", "1.0", "-2.25"], ["x", "10.0", ""]])
    assert Board("제목", [Section("one", [table])], {}).show("text") == (
        "제목\n\none\n---\n           a      b\n  ────  ────  ─────\n  학생   1.0  -2.25\n  x     10.0\n"
    )


def test_markdown_leaves_no_sign_to_chance() -> None:
    sections = [Section("<s> | #1", ["a_b *c* `d`", Formula("p = |q| * 2"), boards.Table(["", "x"], [["</s>", "|"]])])]
    assert Board("$5", sections, {}).show("markdown") == (
        "# \\$5\n\n## \\<s\\> \\| \\#1\n\na\\_b \\*c\\* \\`d\\`\n\n```\np = |q| * 2\n```\n\n"
        "|  | x |\n| --- | ---: |\n| \\</s\\> | \\| |\n"
    )
