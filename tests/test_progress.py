"""What has a history: which validation is the best, how long nothing was better, and when training is over."""

import json
import math
import random

import pytest

from translate.config import TrainConfig
from translate.text.batches import Turn
from translate.training.progress import Progress, Validation

NAN = math.nan


def progress(*validations: tuple[int, float, float | None], **more: float | Turn) -> Progress:
    """Progress with validations (step, loss, BLEU); it stands at the last of them."""
    step = validations[-1][0] if validations else 0
    return Progress(**{"step": step, "validations": [Validation(*one) for one in validations], **more})  # type: ignore[arg-type]


def beats(one: Validation, other: Validation, best: str) -> bool:
    """The rule in words: the better value, else the lower loss, else the earlier step; NaN is the worst value."""

    def known(value: float | None) -> float:
        return -math.inf if value is None or math.isnan(value) else value

    one_loss, other_loss = known(-one.loss), known(-other.loss)
    if best == "bleu" and known(one.bleu) != known(other.bleu):
        return known(one.bleu) > known(other.bleu)
    if one_loss != other_loss:
        return one_loss > other_loss
    return one.step < other.step


@pytest.mark.parametrize("best", ["bleu", "loss"])
def test_the_best_validation_beats_all_others(best: str) -> None:
    draw = random.Random(2)
    for _ in range(500):
        values = [0.5, 1.0, 2.0, NAN]
        found = progress(*[(10 * n, draw.choice(values), draw.choice(values)) for n in range(1, draw.randint(2, 7))])
        step = found.best_step(best)
        winner = next(one for one in found.validations if one.step == step)
        assert all(beats(winner, other, best) for other in found.validations if other is not winner)


@pytest.mark.parametrize(
    ("validations", "best", "step", "waited"),
    [
        ([], "bleu", None, 0),
        ([(1, 3.0, 5.0)], "bleu", 1, 0),
        ([(1, 3.0, 5.0), (2, 3.5, 6.0), (3, 2.0, 5.5)], "bleu", 2, 1),
        ([(1, 3.0, 5.0), (2, 3.5, 6.0), (3, 2.0, 5.5)], "loss", 3, 0),
        ([(1, 3.0, 5.0), (2, 2.0, 5.0), (3, 2.5, 5.0)], "bleu", 2, 1),
        ([(1, 2.0, 5.0), (2, 2.0, 5.0), (3, 2.0, 5.0)], "bleu", 1, 2),
        ([(1, 2.0, 5.0), (2, 2.0, 6.0)], "loss", 1, 1),
        ([(1, 2.0, None), (2, 1.0, None), (3, 1.5, None)], "loss", 2, 1),
        ([(1, 2.0, NAN), (2, 3.0, 0.0), (3, NAN, NAN)], "bleu", 2, 1),
        ([(1, NAN, 1.0), (2, 9.0, 0.0), (3, NAN, 2.0)], "loss", 2, 1),
        ([(1, NAN, NAN), (2, NAN, NAN)], "bleu", 1, 1),
    ],
)
def test_best_step_and_how_long_nothing_was_better(
    validations: list[tuple[int, float, float | None]], best: str, step: int | None, waited: int
) -> None:
    found = progress(*validations)
    assert found.best_step(best) == step
    assert found.waited(best) == waited


def test_scores_are_higher_when_better() -> None:
    found = progress((1, 2.0, 7.0), (2, 1.5, None), (3, NAN, NAN))
    assert found.scores("bleu") == [(1, 7.0), (2, -1.5), (3, -math.inf)]
    assert found.scores("loss") == [(1, -2.0), (2, -1.5), (3, -math.inf)]


@pytest.mark.parametrize(
    ("train", "standing", "reason"),
    [
        ({"max_steps": 4}, {"step": 3}, None),
        ({"max_steps": 4}, {"step": 4}, "train.max_steps (4) reached"),
        ({"max_steps": 4}, {"step": 9}, "train.max_steps (4) reached"),
        ({"max_epochs": 2}, {"step": 90, "turn": Turn(1, 5)}, None),
        ({"max_epochs": 2}, {"step": 90, "turn": Turn(2)}, "train.max_epochs (2) reached"),
        ({"max_minutes": 1.5}, {"seconds": 89.9}, None),
        ({"max_minutes": 1.5}, {"seconds": 90.0}, "train.max_minutes (1.5) reached"),
        ({"max_minutes": 90.0}, {"seconds": 5400.0}, "train.max_minutes (90) reached"),
        ({"max_steps": 4, "max_epochs": 1}, {"step": 2, "turn": Turn(1)}, "train.max_epochs (1) reached"),
    ],
)
def test_a_limit_stops_where_it_is_reached(
    train: dict[str, object], standing: dict[str, float], reason: str | None
) -> None:
    assert progress(**standing).stop_reason(TrainConfig.model_validate(train)) == reason


def test_patience_counts_validations_that_were_not_better() -> None:
    train = TrainConfig(patience=2, best="loss")
    losses = [3.0, 2.0, 2.5, 1.0, 1.0, 1.5]
    reasons = [
        progress(*[(step, loss, None) for step, loss in enumerate(losses[:count], 1)]).stop_reason(train)
        for count in range(len(losses) + 1)
    ]
    assert reasons == [*[None] * 6, "2 validations without a better one (train.patience)"]


def test_progress_survives_json() -> None:
    found = progress(
        (1, 0.1 + 0.2, None), (2, 1 / 3, 1e-17), turn=Turn(3, 4, 5), tokens=2**60, seconds=0.7, logged_loss=1e9
    )
    again = Progress.from_json(json.loads(json.dumps(found.to_json())))
    assert again == found
    assert isinstance(again.validations[0], Validation)
    with pytest.raises(TypeError):
        Progress.from_json({**found.to_json(), "other": 1})


def test_validated_looks_at_this_very_step() -> None:
    assert not progress().validated()
    assert progress((3, 1.0, None)).validated()
    assert not progress((3, 1.0, None), step=4).validated()
