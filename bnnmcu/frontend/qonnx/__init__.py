"""Reads QONNX, as Brevitas exports it, and plain ONNX with binarized layers written out.

Needs the package ``onnx`` to parse, nothing else.  The file is not trusted:
nothing in it is run, no other file is opened, and lengths are checked before
they are used.

Operators: https://github.com/onnx/onnx/blob/main/docs/Operators.md; quantisers:
https://github.com/fastmachinelearning/qonnx/tree/main/docs/qonnx-custom-ops
"""

from bnnmcu.frontend.qonnx.read import read_qonnx

__all__ = ["read_qonnx"]
