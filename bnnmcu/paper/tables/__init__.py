"""The six tables: one file each says which rows and columns it has, and what gives each cell."""

from __future__ import annotations

from bnnmcu.paper.tables import table1, table2, table3, table4, table5, table6
from bnnmcu.paper.tables.spec import TableSpec

__all__ = ["ORDER", "TABLES"]

TABLES: dict[str, TableSpec] = {
    one.TABLE.name: one.TABLE for one in (table1, table2, table3, table4, table5, table6)
}
#: In which ``all`` works: what is cheap and needed by others first.
ORDER = ("table6", "table1", "table3", "table2", "table4", "table5")
