"""The example that lectures on attention begin with, worked out without a model: 나는 학생이다, I am a student."""

from typing import Any

import numpy as np

from translate.errors import UsageError
from translate.report.blackboard.board import Board, Formula, Section, Table

SRC = ("나", "는", "학생", "이다")
TGT = ("I", "am", "a", "student")
STEP = 4
WEIGHTS = (0.1, 0.055, 0.8, 0.045)
VALUES = ((1, 0, 0, 1), (1, 0, 0, 2), (1, 1, 2, 0), (1, 1, 0, 0))
HEADING = "나는 학생이다 → I am a student"


def lecture_example(*others: object) -> Board:
    """The example. Raises UsageError where a sentence or a run (`others`, None if not given) is asked for besides."""
    if any(other is not None for other in others):
        raise UsageError("--example has its own sentence and needs no model: leave out SENTENCE, --run and --config")
    return Board(HEADING, sections(), to_json())


def products() -> list[list[float]]:
    """Each weight times its value (S, D)."""
    return [[_exact(weight * value) for value in row] for weight, row in zip(WEIGHTS, VALUES, strict=True)]


def context() -> list[float]:
    """Their sum (D)."""
    return [_exact(each) for each in np.sum(products(), axis=0)]


def to_json() -> dict[str, Any]:
    """The numbers under the names that those of a model have."""
    return {
        "sentence": HEADING.partition(" → ")[0],
        "translation": HEADING.partition(" → ")[2],
        "src": list(SRC),
        "tgt": list(TGT),
        "step": STEP,
        "weights": list(WEIGHTS),
        "values": [list(row) for row in VALUES],
        "products": products(),
        "context": context(),
    }


def sections() -> list[Section]:
    """The calculation, written out."""
    width = len(VALUES[0])
    head = ["", "a", *(f"value {d + 1}" for d in range(width)), *(f"a · value {d + 1}" for d in range(width))]
    rows = [
        [piece, _plain(weight), *map(str, value), *map(_plain, product)]
        for piece, weight, value, product in zip(SRC, WEIGHTS, VALUES, products(), strict=True)
    ]
    total = _plain(_exact(sum(WEIGHTS)))
    rows.append(["c", total, *[""] * width, *map(_plain, context())])
    terms = (f"{_plain(weight)} ({' '.join(map(str, row))})" for weight, row in zip(WEIGHTS, VALUES, strict=True))
    return [
        Section(
            f'Step {STEP} of {len(TGT)}: the decoder has read "{TGT[STEP - 2]}" and writes "{TGT[STEP - 1]}"',
            [
                "The query has been compared with the key of each source word, and softmax has made weights a of the "
                f"scores. They sum to 1, and most of it falls on {SRC[int(np.argmax(WEIGHTS))]}.",
            ],
        ),
        Section(
            "The context vector",
            [
                "Each weight times the value of its word, and the sum of these:",
                Table(head, rows),
                Formula(f"c = {' + '.join(terms)}\n  = ({', '.join(map(_plain, context()))})"),
                f'From c and its own state the decoder writes "{TGT[STEP - 1]}".',
            ],
        ),
    ]


def _exact(number: float) -> float:
    """Without the last digits that binary fractions leave."""
    return round(float(number), 12)


def _plain(number: float) -> str:
    """As short as it can be written: 0.845, 1.0."""
    return str(float(number))
