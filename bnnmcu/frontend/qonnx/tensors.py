"""Tensors of an ONNX file as arrays; every length is checked before it is used."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.errors import ModelFileError, UnsupportedModelError

__all__ = ["Array", "array", "plain"]

Array = npt.NDArray[Any]

# onnx.TensorProto.DataType: the array's type, and the field that holds it unless raw_data does.
_TYPES: dict[int, tuple[Any, str]] = {
    1: (np.float32, "float_data"),
    2: (np.uint8, "int32_data"),
    3: (np.int8, "int32_data"),
    6: (np.int32, "int32_data"),
    7: (np.int64, "int64_data"),
    9: (np.bool_, "int32_data"),
    10: (np.float16, "int32_data"),
    11: (np.float64, "double_data"),
}
_EXTERNAL = 1
_MAX_AXES = 8


def plain(text: str, limit: int = 100) -> str:
    """A name out of a file, without control characters and not too long, for people to read."""
    safe = "".join(c if c.isascii() and c.isprintable() else "?" for c in text[: limit + 1])
    return safe if len(safe) <= limit else safe[: limit - 3] + "..."


def array(tensor: Any, what: str) -> Array:
    """A read-only array of a TensorProto.

    Args:
        tensor: an ``onnx.TensorProto``.
        what: names it in errors.

    Raises:
        ModelFileError: its shape and its data contradict each other, or the data is in
            another file.
        UnsupportedModelError: another element type.
    """
    if tensor.data_location == _EXTERNAL or tensor.external_data:
        raise ModelFileError(
            "its data is in another file, and files that a model names are not opened",
            where=what,
            hint="put everything in one file: torch.onnx.export(..., external_data=False), or "
            "onnx.save(onnx.load(PATH), PATH, save_as_external_data=False)",
        )
    if tensor.data_type not in _TYPES:
        raise UnsupportedModelError(
            f"elements of ONNX type {tensor.data_type}; supported are float16, float32, float64, "
            "int8, int32, int64, uint8 and bool",
            where=what,
            hint="export in float32: model.float()",
        )
    kind, field = _TYPES[tensor.data_type]
    dims = tuple(tensor.dims)
    if tensor.HasField("segment") or len(dims) > _MAX_AXES or min(dims, default=0) < 0:
        raise ModelFileError(f"a tensor of shape {list(dims)[:9]}", where=what)
    count = math.prod(dims)
    if tensor.HasField("raw_data"):
        if len(tensor.raw_data) != count * np.dtype(kind).itemsize:
            raise ModelFileError(
                f"{len(tensor.raw_data)} bytes of data for shape {list(dims)}", where=what
            )
        flat = np.frombuffer(tensor.raw_data, dtype=np.dtype(kind).newbyteorder("<"))
        if kind is np.bool_:
            # Any byte may stand in the file; numpy expects 0 or 1.
            flat = flat.view(np.uint8) != 0
    else:
        values = getattr(tensor, field)
        if len(values) != count:
            raise ModelFileError(f"{len(values)} values for shape {list(dims)}", where=what)
        wide = np.array(values, dtype=np.float64 if field[0] in "fd" else np.int64)
        # float16 stands in the integer field as its bit pattern.
        half = kind is np.float16
        flat = wide.astype(np.uint16).view(np.float16) if half else wide.astype(kind)
    result: Array = flat.astype(kind).reshape(dims)
    result.setflags(write=False)
    return result
