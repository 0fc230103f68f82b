"""Table 6: clean errors; S, whose errors stand in the text, beside its deterministic twin."""

from __future__ import annotations

from bnnmcu.paper.tables.spec import Column, Family, Source, TableSpec

__all__ = ["TABLE"]

TABLE = TableSpec(
    "table6",
    "Table 6: error on clean test images (MNIST)",
    "All test images. '+' was trained on PGD examples (20 iterations, ε 0.3) in the last five "
    "epochs. S is the mean over 20 passes with fresh draws; the paper gives its errors in the "
    "text, not in the table. Beside it stands its deterministic twin, whose weights are sign(w).",
    (
        Family("A"),
        Family("A", "pgd20", seeds=1),
        Family("B"),
        Family("B", "pgd20", seeds=1),
        Family("C"),
        Family("C", "pgd20", seeds=1),
        Family("S"),
    ),
    (Column("error", "error", Source("clean", "error"), good="low"),),
    seeds=4,
    elsewhere={("S", "error"): "table3"},
    extras=(
        Column("twin", "error of sign(w)", Source("clean", "twin_error"), kinds="S"),
        Column("majority", "by majority", Source("clean", "majority_error"), kinds="S"),
    ),
)
