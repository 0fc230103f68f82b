"""Table 3: Carlini and Wagner's L2 attack against the binary networks, and against S."""

from __future__ import annotations

from bnnmcu.paper.tables.spec import Column, Family, Source, TableSpec

__all__ = ["TABLE"]

_PAPER = (("preset", "paper"),)
_ADAPTIVE = (("preset", "adaptive"),)


def _paper(value: str, iterations: int = 100) -> Source:
    size = "pairs" if iterations == 100 else "long_pairs"
    return Source("cw", value, (*_PAPER, ("iterations", iterations)), size=size)


def _adaptive(value: str) -> Source:
    return Source("cw", value, _ADAPTIVE, size="adaptive_pairs")


def _extra(key: str, title: str, value: str, *, percent: bool = True) -> Column:
    return Column(key, title, _paper(value), _adaptive(value), percent=percent)


TABLE = TableSpec(
    "table3",
    "Table 3: CW-L2, targeted (MNIST)",
    "100 iterations, c = 10, learning rate 0.1, κ = 0, early abort, one draw a step; accuracy is "
    "against the true label on fresh draws, and a failed attack counts as robust with a distance "
    "of 0. The paper aims 10,000 images at nine classes each; here every pair has an image of its "
    "own, stratified over the 90 cells of class and target, and the number of pairs is shown. "
    "Adaptive: averages over 10 draws, κ = 5, a search over c, no early abort, rounding inside "
    "the attack, fresh draws as judges.",
    (Family("B", more_filters=(32,)), Family("B", "pgd20", more_filters=(32,)), Family("S")),
    (
        Column("accuracy", "accuracy", _paper("accuracy"), _adaptive("accuracy")),
        Column(
            "mean_l2",
            "mean L2",
            _paper("mean_l2_all"),
            _adaptive("mean_l2_all"),
            percent=False,
        ),
        Column("accuracy at 1000", "after 1,000", _paper("accuracy", 1000)),
        Column("error", "clean error", Source("clean", "error"), kinds="S", good="low"),
    ),
    board="cw",
    extras=(
        _extra("found", "attack's own success", "found"),
        _extra("target_hit", "target reached", "target_hit"),
        _extra("unchanged", "images unchanged", "unchanged"),
        _extra("l2_found", "mean L2 of successes", "mean_l2", percent=False),
        _extra("majority", "accuracy by majority", "majority"),
    ),
)
