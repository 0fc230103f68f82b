"""Table 4: black-box attack by a substitute, MNIST."""

from __future__ import annotations

from bnnmcu.paper.tables.spec import Column, Family, Source, TableSpec

__all__ = ["TABLE"]

TABLE = TableSpec(
    "table4",
    "Table 4: accuracy under a black-box attack (MNIST)",
    "A substitute (784-200-200-10) is trained on the first 150 test images and the labels that "
    "the network gives, in six rounds with Jacobian augmentation; FGSM with ε 0.3 from it is "
    "shown to the network, on the other 9,850 images. '+' was trained on FGSM examples, '+*' on "
    "PGD examples (20 iterations) for 40 epochs. Adaptive: the strongest white-box attack with the "
    "same budget, of which no black-box attack can be worse for the network.",
    (
        Family("A"),
        Family("A", "fgsm"),
        Family("A", "pgd20-long", seeds=1),
        Family("B"),
        Family("B", "fgsm"),
        Family("C"),
        Family("C", "fgsm"),
        Family("C", "pgd20-long", seeds=1),
        Family("S", "pgd20-long", seeds=1),
    ),
    (
        Column(
            "accuracy",
            "accuracy",
            Source("substitute", "accuracy"),
            Source("pgd_adaptive", "accuracy@0.3", size="adaptive_images"),
        ),
    ),
    board="fgsm",
    extras=(
        Column(
            "published",
            "substitute as published",
            Source("substitute", "accuracy", (("variant", "as-published"),)),
        ),
    ),
)
