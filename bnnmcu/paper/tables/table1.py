"""Table 1: FGSM against A, B and C, with and without FGSM training."""

from __future__ import annotations

from bnnmcu.paper.tables.spec import Column, Family, Source, TableSpec

__all__ = ["TABLE", "fgsm_columns"]


def fgsm_columns() -> tuple[Column, ...]:
    """One for each budget, with the strongest gradient attack of the same budget beside it."""
    return tuple(
        Column(
            f"{epsilon:g}",
            f"ε {epsilon:g}",
            Source("fgsm", f"accuracy@{epsilon:g}"),
            Source("pgd_adaptive", f"accuracy@{epsilon:g}", size="adaptive_images"),
        )
        for epsilon in (0.1, 0.2, 0.3)
    )


TABLE = TableSpec(
    "table1",
    "Table 1: accuracy under FGSM (MNIST)",
    "White-box FGSM in one step, aimed away from the network's own prediction, on all test images; "
    "'+' was trained on FGSM examples in the last five epochs. Adaptive: the strongest of FGSM and "
    "PGD, of all estimators, losses and temperatures, averaged over draws, on 1,000 images.",
    (
        Family("A"),
        Family("B"),
        Family("C"),
        Family("A", "fgsm"),
        Family("B", "fgsm"),
        Family("C", "fgsm"),
    ),
    fgsm_columns(),
    seeds=4,
    temperatures=(1.0, 4.0, 10.0, 30.0),
    board="fgsm",
)
