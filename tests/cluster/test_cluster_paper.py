"""A row of the paper's table 3, whole: trained, attacked on a cluster, judged, stored, shown."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("distributed", reason="Dask distributed is not installed")
pytest.importorskip("torch", reason="crafting needs torch")

from bnnmcu.cluster.engine import open_cluster
from bnnmcu.cluster.settings import ClusterSettings
from bnnmcu.data import Dataset
from bnnmcu.paper import recipes
from bnnmcu.paper.results import read_results
from bnnmcu.paper.runner import Data, run_tasks
from bnnmcu.paper.selection import Selection, tasks
from bnnmcu.paper.tables.spec import Sizes

_SELECTION = Selection(
    tables=("table3",),
    rows=("S4",),
    filters=(4,),
    seeds=(1, 1),
    recipes=("best",),
    parts=("cells", "adaptive"),
    sizes=Sizes(pairs=24, long_pairs=6, adaptive_pairs=12),
    emulator=None,
    arguments=(),
    figures=(),
)


@pytest.fixture(scope="module")
def data() -> Data:
    """Blocks at ten places, one a class, dim and noisy: what four filters can learn."""
    rng = np.random.default_rng(1)
    labels = rng.permutation(np.arange(640) % 10).astype(np.int64)
    images = rng.integers(0, 90, (640, 28, 28, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = 2 + 13 * (label % 2), 1 + 5 * (label // 2)
        image[row : row + 12, column : column + 5] += 100
    return Data(
        Dataset("blocks", images[:540], labels[:540]),
        Dataset("blocks, last", images[540:], labels[540:]),
    )


def test_a_row_of_table_3(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (shutil.which("gcc") or shutil.which("clang") or shutil.which("cc")):
        pytest.skip("no C compiler (gcc or clang) on this machine")
    monkeypatch.setattr(recipes, "_BEST_CLEAN_EPOCHS", dict.fromkeys("ABCS", 1))
    wanted = tasks(_SELECTION)
    found = []
    for name in ("here", "cluster"):
        results = tmp_path / f"{name}.json"
        how = {"data": lambda _: data, "results": results, "device": "cpu"}
        if name == "here":
            failures = run_tasks(wanted, cache=tmp_path / "here", **how)  # type: ignore[arg-type]
        else:
            with open_cluster(ClusterSettings(workers=2)) as engine:
                failures = run_tasks(wanted, cache=tmp_path / "cluster", cluster=engine, **how)  # type: ignore[arg-type]
        assert not failures
        found.append(read_results(results))
    here, cluster = found
    assert set(here) == set(cluster)
    assert len(here) == len(wanted) >= 3
    for key, record in here.items():
        assert cluster[key].values == record.values
        assert cluster[key].graph_sha256 == record.graph_sha256
        assert cluster[key].measuring_seconds > 0
