"""Table 2: FGSM against A and C after training on PGD examples."""

from __future__ import annotations

from bnnmcu.paper.tables.spec import Family, TableSpec
from bnnmcu.paper.tables.table1 import fgsm_columns

__all__ = ["TABLE"]

TABLE = TableSpec(
    "table2",
    "Table 2: accuracy under FGSM after PGD training (MNIST)",
    "As table 1; trained on PGD examples (40 iterations, ε 0.3) in the last five epochs.",
    (Family("A", "pgd40"), Family("C", "pgd40")),
    fgsm_columns(),
    seeds=1,
    board="fgsm",
)
