"""The network of the harnesses: small, with drawn weights, always the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bnnmcu.backend.emit import model_sources
from bnnmcu.backend.folder import runtime_files
from bnnmcu.backend.mlperf import mlperf_header
from bnnmcu.backend.plan import make_plan
from bnnmcu.graph import (
    GE,
    INPUT,
    LE,
    BinaryConv,
    Dense,
    Graph,
    IntegerConv,
    StochasticConv,
    Threshold,
)

__all__ = ["MODEL_BYTES", "MODEL_CLASSES", "fuzzed_graph", "write_model"]

_SHAPE = (4, 4, 1)
#: Of an image, and logits; the fake model is given the same, so that inputs fit both.
MODEL_BYTES, MODEL_CLASSES = 16, 4


def fuzzed_graph() -> Graph:
    """First, drawn, binary and dense layers, 4 planes, logits that need no more than 32 bits."""
    rng = np.random.default_rng(11)
    padding = (1, 1, 1, 1)

    def threshold(name: str, source: str, channels: int, reach: int) -> Threshold:
        value = rng.integers(-reach, reach + 1, channels).astype(np.int32)
        return Threshold(name, source, value, rng.choice([GE, LE], channels).astype(np.uint8))

    first = rng.integers(-127, 128, (3, 3, 3, 1)).astype(np.int16)
    levels = rng.integers(0, 16, (5, 3, 3, 3), dtype=np.uint8)
    fixed = rng.integers(0, 2, (4, 3, 3, 5), dtype=np.uint8)
    dense = rng.integers(-99, 100, (4, 4 * 2 * 2)).astype(np.int16)
    return Graph(
        "fuzzed",
        _SHAPE,
        (
            IntegerConv("first", INPUT, first, (1, 1), padding, bits=8),
            threshold("sign1", "first", 3, 9000),
            StochasticConv("drawn", "sign1", levels, (1, 1), padding, planes=4),
            threshold("sign2", "drawn", 5, 9),
            BinaryConv("fixed", "sign2", fixed, (1, 1), (0, 0, 0, 0)),
            threshold("sign3", "fixed", 4, 9),
            Dense("dense", "sign3", dense),
        ),
        logit_scale=0.01,
    )


def write_model(folder: Path) -> None:
    """Its C sources and the runtime's, flat in a folder; the scale of its logits in another."""
    graph = fuzzed_graph()
    scale = folder / "scale"
    scale.mkdir(parents=True, exist_ok=True)
    (scale / "bnn_mlperf_model.h").write_bytes(mlperf_header(graph))
    for name, text in (model_sources(make_plan(graph)) | runtime_files()).items():
        (folder / name).write_bytes(text)
