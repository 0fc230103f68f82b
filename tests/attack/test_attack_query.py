"""Queries of a black-box attack: what they cost, which draws they get, who asks together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from blackbox_rig import IMAGE, Scripted, asked, constant

from bnnmcu.attack.lockstep import in_lockstep
from bnnmcu.errors import LinkError, QueryBudgetError, UsageError

# Queries


@pytest.mark.parametrize("draws", [1, 3])
def test_a_query_costs_its_draws_and_none_is_asked_past_the_budget(draws: int) -> None:
    oracle = Scripted(constant(1))
    query = asked(oracle, draws=draws, budget=2 * draws + draws // 2)
    index = np.array([0, 2, 0])
    assert query.labels(np.repeat(IMAGE, 3, 0), index).tolist() == [1, 1, 1]
    assert query.queries.tolist() == [2 * draws, 0, draws]
    assert [query.left(i) for i in range(3)] == [0, 2, 1]
    with pytest.raises(QueryBudgetError, match="image 0") as error:
        query.scores(np.repeat(IMAGE, 2, 0), np.array([1, 0]))
    assert error.value.exit_code == 15
    assert query.queries.tolist() == [2 * draws, 0, draws]
    assert len(oracle.seeds) == 1


def test_fresh_seeds_never_come_twice_and_fixed_ones_always() -> None:
    seen = {}
    for policy in ("fresh", "fixed"):
        oracle = Scripted(constant(0))
        query = asked(oracle, draws=2, seeds=policy)
        for _ in range(4):
            query.labels(np.repeat(IMAGE, 5, 0), np.array([0, 1, 1, 2, 1]))
        seen[policy] = np.concatenate(oracle.seeds)
    assert len(np.unique(seen["fresh"])) == seen["fresh"].size == 40
    assert len(np.unique(seen["fixed"])) == 2
    again = Scripted(constant(0))
    asked(again, draws=2, seed=6).labels(IMAGE, np.array([0]))
    assert not np.isin(again.seeds[0], seen["fresh"]).any()


def test_known_seeds_are_those_of_the_image() -> None:
    known = np.array([[7], [8], [9]], dtype=np.uint64)
    oracle = Scripted(constant(0))
    query = asked(oracle, seeds="known", known=known)
    query.labels(np.repeat(IMAGE, 2, 0), np.array([2, 0]))
    assert oracle.seeds[0].tolist() == [[9], [7]]
    # To ask the same again would tell nothing.
    assert not query.stochastic


# Each row: logits of the draws of one query, and what the majority and the ties make of them.
TIES = [([[3, 0, 0], [0, 1, 0], [0, 1, 0]], 1, 1), ([[1, 0, 0], [0, 0, 9], [0, 9, 0]], 1, 0)]


@pytest.mark.parametrize(("logits", "with_scores", "without"), TIES)
def test_votes_and_their_ties(logits: list[list[int]], with_scores: int, without: int) -> None:
    for answers, wanted in (("logits", with_scores), ("label", without)):
        query = asked(Scripted(lambda *_: np.array(logits)), draws=3, answers=answers)
        assert query.labels(IMAGE, np.array([0])).tolist() == [wanted]


def test_scores_are_scaled_means_and_not_for_those_who_see_labels() -> None:
    oracle = Scripted(lambda *_: np.array([[2, 4, 6], [4, 4, -2]]))
    query = asked(oracle, draws=2, logit_scale=0.5)
    assert query.scores(IMAGE, np.array([1])).tolist() == [[1.5, 2.0, 1.0]]
    with pytest.raises(UsageError, match="labels only"):
        asked(oracle, draws=2, answers="label").scores(IMAGE, np.array([1]))


@pytest.mark.parametrize("logits", [np.zeros((2, 3)), np.zeros((1, 4))], ids=str)
def test_answers_of_another_shape_are_the_links_fault(logits: np.ndarray) -> None:
    with pytest.raises(LinkError, match="shape"):
        asked(Scripted(lambda *_: logits)).labels(IMAGE, np.array([0]))


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"answers": "all"}, "unknown"),
        ({"draws": 0}, "too few"),
        ({"seeds": "known"}, "with the policy"),
        ({"known": np.zeros((3, 1), np.uint64)}, "with the policy"),
        ({"seeds": "known", "known": np.zeros((2, 1), np.uint64)}, r"\(3, 1\)"),
    ],
)
def test_what_a_query_oracle_refuses(more: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        asked(Scripted(constant(0)), **more)


def test_a_board_that_draws_for_itself_is_told_no_seeds() -> None:
    oracle = Scripted(constant(0))
    oracle.seeded = False
    asked(oracle)
    with pytest.raises(UsageError, match="takes no seeds"):
        asked(oracle, seeds="fixed")


# Lockstep


def test_searches_ask_together_and_draw_for_themselves() -> None:
    calls: list[list[int]] = []
    drawn: dict[int, list[float]] = {0: [], 1: []}
    outside: list[float] = []

    def body(number: int, questions: int) -> Callable[[Any], None]:
        def run(ask: Any) -> None:
            for k in range(questions):
                drawn[number].append(float(np.random.uniform()))
                assert ask(10 * number + k) == -(10 * number + k)

        return run

    def answer(questions: Sequence[tuple[int, Any]]) -> list[int]:
        calls.append([asked for _, asked in questions])
        outside.append(float(np.random.uniform()))
        return [-asked for _, asked in questions]

    np.random.seed(1)
    in_lockstep([body(0, 3), body(1, 2)], answer, [4, 9])
    assert calls == [[0, 10], [1, 11], [2]]
    for number, seed in ((0, 4), (1, 9)):
        own = np.random.RandomState(seed).uniform(size=len(drawn[number]))
        assert drawn[number] == own.tolist()
    assert outside == np.random.RandomState(1).uniform(size=3).tolist()


@pytest.mark.parametrize("where", ["answer", "search"])
def test_an_error_ends_every_search(where: str) -> None:
    ended = []

    def body(ask: Any) -> None:
        try:
            ask(1)
            if where == "search":
                raise KeyError(where)
            ask(2)
        finally:
            ended.append(1)

    def answer(questions: Sequence[tuple[int, Any]]) -> list[int]:
        if where == "answer" and questions[0][1] == 2:
            raise KeyError(where)
        return [0] * len(questions)

    with pytest.raises(KeyError, match=where):
        in_lockstep([body] * 3, answer, [1, 2, 3])
    assert len(ended) == 3
