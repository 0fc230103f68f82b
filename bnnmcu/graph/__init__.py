"""The integer network: the contract between the compiler, the executors and the board.

A :class:`Graph` is integer from pixel to logit, so that every executor gives
the same bits.  Its nodes form a directed graph without cycles, listed in an
order in which they can be executed.  The rules, once and for all:

* **Input**: uint8, shape (H, W, C); pixel p stands for p / 255 unless the
  float network says otherwise.  One-dimensional signals have H = 1.
* **Bits** stand for signs: 1 is +1, 0 is -1.  sign(0) is +1.  An integer
  operation that takes bits takes +1 and -1.
* **Windows** of convolutions and pools: padding of any size, strides,
  dilation; the output has floor((size + padding - extent) / stride) + 1 rows
  with extent = (kernel - 1) * dilation + 1.
* **Integer convolution**: int16 weights times pixels, integers or signs;
  int32 sums.  Padding adds nothing, or stands for a given pixel (``fill``).
* **Binary convolution**: n - 2 m for n taps inside the image and m mismatches
  among them.  Padding adds nothing: a tap outside the image counts neither as
  +1 nor as -1.
* **Groups**: output channel o reads the input channels of group
  o // (outputs / groups).
* **Stochastic convolution**: as the binary one, with weights drawn once per
  forward pass; a level v of k bits means P(+1) = (v + msb(v)) / 2**k, so that
  0 and 1 are exact and one half is not a level.  See :mod:`bnnmcu.lfsr`.
* **Threshold**, per channel: bit = (value >= threshold), (value <= threshold),
  always 1 or always 0.  Frontends derive it from the float network in float64,
  at the integers themselves; a value on which the float64 network is exactly
  zero gives 1.
* **Affine**, per channel: floor((m x + add) / 2**shift) with m = mul where
  x >= 0 and m = neg below; 64-bit on the way, int32 in the end.
* **ReLU**: max(x, 0).  **Clamp**: min(max(x, low), high).  **Add**: x + y.
* **Max pool**: the largest value inside the image, or, where ``minimum`` is
  set, the smallest.  A window without any value is refused.
* **Sum pool**: the sum of the values inside the image.
* **Dense**: int16 weights times values flattened in the order (H, W, C), plus
  an int64 bias; int32 logits where the range analysis shows that they fit,
  else int64.
* **Logits**: the last node, of shape (1, 1, classes).  **Label**: the first of
  the largest.  ``logit_scale`` turns integer logits into those of the float
  network, on the host only.

No value can overflow, nor can a partial sum, in whatever order it is formed:
:func:`infer` bounds every one and refuses a graph that could leave int32
(int64 for dense logits), naming the layer.  -2**31 is never reached.
"""

from bnnmcu.graph.check import infer, infer_node
from bnnmcu.graph.convs import BinaryConv, Conv, IntegerConv, StochasticConv
from bnnmcu.graph.model import Graph
from bnnmcu.graph.nodes import (
    Add,
    Affine,
    Clamp,
    Dense,
    MaxPool,
    Node,
    Relu,
    SumPool,
    Surrogate,
    Threshold,
)
from bnnmcu.graph.values import (
    ALWAYS,
    GE,
    INPUT,
    INT32_MAX,
    INT64_MAX,
    LE,
    MAX_PLANES,
    MIN_PLANES,
    NEVER,
    Padding,
    TensorSpec,
    Window,
)

__all__ = [
    "ALWAYS",
    "GE",
    "INPUT",
    "INT32_MAX",
    "INT64_MAX",
    "LE",
    "MAX_PLANES",
    "MIN_PLANES",
    "NEVER",
    "Add",
    "Affine",
    "BinaryConv",
    "Clamp",
    "Conv",
    "Dense",
    "Graph",
    "IntegerConv",
    "MaxPool",
    "Node",
    "Padding",
    "Relu",
    "StochasticConv",
    "SumPool",
    "Surrogate",
    "TensorSpec",
    "Threshold",
    "Window",
    "infer",
    "infer_node",
]
