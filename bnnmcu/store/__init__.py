"""Results on disk: one SQLite file a run, safe to kill at any moment (docs/RUNS.md)."""

from bnnmcu.store.rows import Example, Judged
from bnnmcu.store.store import Store

__all__ = ["Example", "Judged", "Store"]
