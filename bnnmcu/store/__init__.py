"""Results on disk: one SQLite file a run, safe to kill at any moment (docs/RUNS.md)."""

from bnnmcu.store.judged import Judged
from bnnmcu.store.pending import Pending
from bnnmcu.store.rows import Example
from bnnmcu.store.store import Store

__all__ = ["Example", "Judged", "Pending", "Store"]
