"""The network that is measured: integers as a board computes them, or A in float.

B, C and S are compiled, and the native twin of the integer network answers,
which is what a board answers, bit for bit; gradients are those of its
differentiable twin.  A has float weights and activations: its float model
answers, and gives the gradients.  torch is imported for A, and not before an
attack for the others.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bnnmcu.attack.oracle import FloatOracle, NativeOracle, Oracle
from bnnmcu.compiler import read_source
from bnnmcu.errors import MissingDependencyError, ModelFileError
from bnnmcu.graph import Graph
from bnnmcu.graphfile import graph_sha256
from bnnmcu.modelfile import read_model
from bnnmcu.network import Conv, Network
from bnnmcu.nn.config import PaperConfig
from bnnmcu.paper.recipes import Trainable
from bnnmcu.passes import Quantization, lower

if TYPE_CHECKING:
    from bnnmcu.attack.float import FloatModel

__all__ = ["Subject", "load_subject", "of_network", "without_chance"]

# Of a FloatOracle's logit; those of a graph say their own.
_FLOAT_UNIT = 2.0**-16


@dataclass(frozen=True, eq=False)
class Subject:
    """A network that answers.

    Attributes:
        name: of the network.
        classes: how many labels it has.
        stochastic: some of its weights are drawn.
        oracle: gives its logits.
        logit_unit: what one unit of the oracle's integers stands for.
        network: in float, as it was trained.
        graph: in integers; None for A.
        model: A's gradients; None where the graph gives them.
    """

    name: str
    classes: int
    stochastic: bool
    oracle: Oracle
    logit_unit: float
    network: Network
    graph: Graph | None = None
    model: FloatModel | None = None

    @property
    def sha256(self) -> str | None:
        """Fingerprint of the integer network, in hex; None for A."""
        return None if self.graph is None else graph_sha256(self.graph).hex()


def without_chance(network: Network) -> Network:
    """The deterministic twin: every drawn weight is the likelier of -1 and +1.

    Of the paper's S that is sign(w); a tie, w = 0, is +1 as everywhere here.
    """
    ops = tuple(
        replace(op, weights=np.where(op.weights >= 0.5, 1.0, -1.0), drawn=False)
        if isinstance(op, Conv) and op.drawn
        else op
        for op in network.ops
    )
    return replace(network, ops=ops)


def of_network(network: Network, planes: int | None = None) -> Subject:
    """A binary network, compiled; ``planes`` is k of its drawn weights, None for the usual."""
    graph = lower(network, Quantization() if planes is None else Quantization(planes=planes)).graph
    return Subject(
        name=graph.name,
        classes=graph.classes,
        stochastic=bool(graph.stochastic),
        oracle=NativeOracle(graph),
        logit_unit=graph.logit_scale,
        network=network,
        graph=graph,
    )


def load_subject(
    path: Path, trainable: Trainable, *, planes: int | None = None, device: str = "cpu"
) -> Subject:
    """The network in a model file, which must be the one that is meant.

    Args:
        device: where A computes; ``cpu``, ``cuda`` or ``auto``.

    Raises:
        ModelFileError: the file is unsound, or holds another network.
        UnsupportedModelError: the network cannot be compiled.
        MissingDependencyError: torch is missing, or a C compiler.
        UsageError: there is no such device.
    """
    found = PaperConfig.from_manifest(read_model(path).manifest, str(path))
    wanted = trainable.network()
    if found != wanted:
        meant = asdict(wanted)
        parts = [
            f"{k} {v!r} instead of {meant[k]!r}" for k, v in asdict(found).items() if v != meant[k]
        ]
        raise ModelFileError(
            f"the file holds another network than {trainable.key}: {', '.join(parts)}",
            where=str(path),
            hint="let 'bnnmcu paper' train the network, or name the file of the right one",
        )
    if trainable.kind != "A":
        return of_network(read_source(path).network, planes)
    try:
        from bnnmcu.attack.device import choose_device
        from bnnmcu.attack.float import FloatModel, read_float_network
    except ImportError as error:
        raise MissingDependencyError(
            "measuring A, which is full precision, needs torch",
            where=str(path),
            hint="pip install 'bnnmcu[attack]'",
        ) from error
    network = read_float_network(path)
    # A has no signs, so the estimator is never asked for.
    model = FloatModel(network, "identity").to(choose_device(device))
    return Subject(
        name=model.name,
        classes=model.classes,
        stochastic=False,
        oracle=FloatOracle(model),
        logit_unit=_FLOAT_UNIT,
        network=network,
        model=model,
    )
