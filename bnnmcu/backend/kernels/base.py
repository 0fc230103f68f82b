"""What stands between a node and a kernel: the site it is wanted at, and the call it becomes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from bnnmcu.graph import Node, Relu, TensorSpec, Threshold
from bnnmcu.packing import words_for

__all__ = [
    "Candidate",
    "Constant",
    "Fields",
    "Kernel",
    "Offer",
    "Option",
    "Site",
    "table",
    "value_words",
]

Array = npt.NDArray[Any]

_C_TYPES = {
    "uint32": "uint32_t",
    "int32": "int32_t",
    "int16": "int16_t",
    "uint16": "uint16_t",
    "uint8": "uint8_t",
    "int64": "int64_t",
}


@dataclass(frozen=True, eq=False)
class Constant:
    """A table in flash.

    Attributes:
        role: the field of the kernel's parameters that points to it.
        data: its contents, one-dimensional.
        symbol: its name in C, once it has one.
        shared: whether an earlier step holds it already, and its bytes are counted there.
    """

    role: str
    data: Array
    symbol: str = ""
    shared: bool = False

    @property
    def c_type(self) -> str:
        """For instance ``uint32_t``."""
        return _C_TYPES[self.data.dtype.name]

    @property
    def flash_bytes(self) -> int:
        """Bytes that it adds to the flash."""
        return 0 if self.shared else int(self.data.nbytes)

    def named(self, symbol: str, *, shared: bool) -> Constant:
        """The same table under a name."""
        return replace(self, symbol=symbol, shared=shared)


def table(role: str, data: Array) -> Constant:
    """A table of any shape, laid out in C order."""
    return Constant(role, np.ascontiguousarray(data).reshape(-1))


#: Initialisers of a parameter struct: numbers, roles of tables, or nested structs.
Fields: TypeAlias = Mapping[str, "int | str | Fields"]


@dataclass(frozen=True, eq=False)
class Site:
    """Where a kernel is wanted.

    Attributes:
        node: the operation.
        tail: what directly follows a convolution and is computed with it, or None.
        sources: what is known of the values that the node reads, in its order.
        out: what is known of the value that comes out, the tail included.
    """

    node: Node
    tail: Threshold | Relu | None
    sources: tuple[TensorSpec, ...]
    out: TensorSpec


@dataclass(frozen=True, eq=False)
class Kernel:
    """A call of a function of ``bnn_kernels.h``.

    Attributes:
        function: its name.
        struct: type of its parameters; empty if it only takes a count.
        fields: the parameters.
        count: its first argument where it takes no parameters.
        constants: the tables that the parameters name by their roles.
        result_words, scratch_words: 32-bit words that it writes, and needs besides.
        macs: multiply-accumulates of one call, padding taps included.
        planes: k, if its weights are drawn, else 0.
        in_place: whether its result may take the place of an integer that it reads.
        header: the file that declares the function.
    """

    function: str
    result_words: int
    struct: str = ""
    fields: Fields = field(default_factory=dict)
    count: int = 0
    constants: tuple[Constant, ...] = ()
    scratch_words: int = 0
    macs: int = 0
    planes: int = 0
    in_place: bool = False
    header: str = "bnn_kernels.h"

    @property
    def sampled_words(self) -> int:
        """Words of weights drawn for each inference."""
        if not self.planes:
            return 0
        weights = next(c for c in self.constants if c.role == "weights")
        return int(weights.data.size) // self.planes


#: One way to compute a kind of node; None where it does not apply.
Candidate: TypeAlias = Callable[[Site], Kernel | None]


@dataclass(frozen=True, eq=False)
class Option:
    """A kernel that could compute a site, and the work it would be.

    Attributes:
        name: unique among the options of a site: the kernel's family, or family and
            variant as in ``classes/5``; what reports show and a choice forces.
        kernel: the call.
        work: how often each unit of work is done, by the names that ``costs/CORE.json``
            has for the family.
        constant: the strongest promise about an input's influence: ``time`` (no branch
            and no address depends on it), ``count`` (the number of instructions does
            not), or ``none``.
    """

    name: str
    kernel: Kernel
    work: Mapping[str, float]
    constant: Literal["time", "count", "none"] = "time"

    @property
    def family(self) -> str:
        """The part of the name before the variant."""
        return self.name.partition("/")[0]


#: All the ways in which a fast kernel could compute a site; none where it does not apply.
Offer: TypeAlias = Callable[[Site], Iterable[Option]]


def value_words(spec: TensorSpec) -> int:
    """Words of the arena that a value takes."""
    height, width, channels = spec.shape
    if spec.kind == "bit":
        return height * width * words_for(channels)
    return -(-spec.size // 4) if spec.kind == "u8" else spec.size
