"""Schedules against their formulas, written out anew."""

import math

import pytest

from translate.config import TrainConfig
from translate.training.schedule import lr_at


def settings(**changes: object) -> TrainConfig:
    return TrainConfig.model_validate({"lr": 0.5, "warmup": 10, "max_steps": 110, **changes})


@pytest.mark.parametrize("schedule", ["constant", "inverse_sqrt", "cosine", "linear", "plateau"])
def test_warmup_rises_linearly_to_the_peak(schedule: str) -> None:
    train = settings(schedule=schedule)
    assert [lr_at(step, train, 64) for step in range(1, 11)] == pytest.approx([0.05 * step for step in range(1, 11)])


def test_each_formula_after_warmup() -> None:
    for step in (11, 40, 60, 109, 110):
        share = (step - 10) / 100
        assert lr_at(step, settings(schedule="constant"), 64) == 0.5
        assert lr_at(step, settings(schedule="inverse_sqrt"), 64) == pytest.approx(0.5 * math.sqrt(10 / step))
        assert lr_at(step, settings(schedule="cosine"), 64) == pytest.approx(0.25 * (1 + math.cos(math.pi * share)))
        assert lr_at(step, settings(schedule="linear"), 64) == pytest.approx(0.5 * (1 - share))


def test_noam_is_the_papers_formula() -> None:
    for step in (1, 5, 10, 11, 400):
        expected = 2.0 * 512**-0.5 * min(step**-0.5, step * 10**-1.5)
        assert lr_at(step, settings(lr=2.0, schedule="noam"), 512) == pytest.approx(expected)


def test_min_lr_is_a_floor_after_warmup_only() -> None:
    train = settings(schedule="linear", min_lr=0.2)
    assert lr_at(1, train, 64) == pytest.approx(0.05)
    assert lr_at(110, train, 64) == 0.2


def test_plateau_falls_after_patience_and_forgets_the_future() -> None:
    train = settings(schedule="plateau", plateau_factor=0.5, plateau_patience=2, warmup=0)
    scores = [(10, 1.0), (20, 3.0), (30, 2.0), (40, 3.0), (50, 2.5), (60, 2.5), (70, 4.0)]
    rates = [lr_at(step, train, 64, scores) for step in (10, 21, 31, 40, 41, 51, 61, 71)]
    assert rates == [0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]


def test_no_warmup_starts_at_the_peak() -> None:
    assert lr_at(1, settings(schedule="inverse_sqrt", warmup=0), 64) == 0.5
