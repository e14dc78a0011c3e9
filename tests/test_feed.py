"""Updates ahead of time are those that are asked for."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from tests.tiny import tiny_plan
from translate.text.batches import BatchPlan, Share, Turn, Update
from translate.training.feed import Fed, Feed

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> BatchPlan:
    return tiny_plan(tmp_path_factory.mktemp("feed"))


def content(fed: Fed) -> list[object]:
    parts = [(place, batch.src.ids.tolist(), batch.tgt_out.tolist(), batch.tokens) for place, batch in fed.parts]
    return [fed.tokens, fed.largest, fed.pairs, parts]


def plainly(plan: Callable[..., Update], turn: Turn, tokens: int) -> list[object]:
    update = plan(turn, tokens)
    parts = [
        (place, b.src.tolist(), [i for i in b.tgt_out.ravel().tolist() if i], b.tokens) for place, b in update.parts
    ]
    most, pairs = max(b.tokens for _, b in update.parts), max(len(b.indices) for _, b in update.parts)
    return [update.tokens, most, pairs, parts]


def test_a_thread_ahead_gives_what_is_asked_for(plan: BatchPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, with another size of micro-batches from some update on, and after going back."""
    feed, asked = Feed(plan, CPU, False, 0, 1), []
    feed.thread = ThreadPoolExecutor(1, thread_name_prefix="feed")
    share = plan.share
    again = BatchPlan(plan.split, plan.seed, plan.update_tokens)

    def counted(*given: Any) -> Share:
        asked.append(threading.current_thread().name)
        return share(*given)

    monkeypatch.setattr(plan, "share", counted)
    turn, turns = Turn(), []
    for number in range(14):
        turns.append(turn)
        tokens = 50 if number < 6 else 25
        fed = feed.update(turn, tokens)
        assert content(fed) == plainly(again.update, turn, tokens)
        turn = plan.after(turn)
        assert fed.after == turn
    for turn in (turns[2], turns[3], turns[9]):
        assert content(feed.update(turn, 25)) == plainly(again.update, turn, 25)
    feed.thread.shutdown()
    assert {name.partition("_")[0] for name in asked} == {"feed"}
    # The first, the one of another size and the three after going back were not foreseen; turns[3] was.
    assert len(asked) == 17 + 1 + 3


def test_each_rank_is_fed_its_own_part(plan: BatchPlan) -> None:
    both = [Feed(plan, CPU, False, rank, 2).update(Turn(), 30) for rank in range(2)]
    assert {place for fed in both for place, _ in fed.parts} == set(range(sum(len(fed.parts) for fed in both)))
    assert sum(batch.tokens for fed in both for _, batch in fed.parts) == both[0].tokens == both[1].tokens
