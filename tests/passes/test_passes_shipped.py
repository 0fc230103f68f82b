"""The shipped models keep their fingerprints.

Published results and stored campaigns name a graph by its SHA-256.  A pass that
turns a shipped model into another graph, however equal its answers, orphans them:
change these lines only together with those results.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bnnmcu.compiler import to_graph
from bnnmcu.graphfile import graph_sha256
from bnnmcu.modelfile import read_model

_MODELS = Path(__file__).parents[2] / "examples" / "models"
_FINGERPRINTS = {
    "b64.pt": "d5f5ca18f12b87ce8aacc7693d146c0d0bff74ac24accae6da74678876cd367f",
    "c64.pt": "6bc2339095229d8964c5160756258fcd3ea9ba68c7c9fcb66cdebefd61a1174f",
    "s64.pt": "6fcffe976b347ae3878bffb6737ad132205fb4a368effbccec91466f277208ad",
}


@pytest.mark.parametrize("name", _FINGERPRINTS)
def test_fingerprint(name: str) -> None:
    pytest.importorskip("torch")
    graph = to_graph(read_model(_MODELS / name))
    assert graph_sha256(graph).hex() == _FINGERPRINTS[name]
