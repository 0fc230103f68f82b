"""Table 5: the same on CIFAR-10."""

from __future__ import annotations

from bnnmcu.paper.tables.spec import Column, Family, Source, TableSpec

__all__ = ["TABLE"]

TABLE = TableSpec(
    "table5",
    "Table 5: clean accuracy, and accuracy under a black-box attack (CIFAR-10)",
    "As table 4 on CIFAR-10; networks trained for 20 epochs.",
    (Family("A"), Family("A", "fgsm"), Family("C"), Family("C", "fgsm")),
    (
        Column("clean", "clean", Source("clean", "error", flip=True), good="high"),
        Column(
            "transfer",
            "transfer",
            Source("substitute", "accuracy"),
            Source("pgd_adaptive", "accuracy@0.3", size="adaptive_images"),
        ),
    ),
    seeds=1,
    dataset="cifar10",
)
