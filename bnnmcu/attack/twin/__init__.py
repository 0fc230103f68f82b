"""A differentiable twin of the integer network.

**Forward**: the graph, bit for bit.  Values are float32 where the graph's range
analysis shows that they, and every partial sum of them, stay below 2**24, and
float64 where they do not, so every one of them is an exact integer.

**Backward**: what the float network would give at the same point.

* A threshold stood for ``sign(y)`` with ``y = slope * relu(sum) + offset``
  (:class:`bnnmcu.graph.Surrogate`), and its gradient is that of y times the
  estimator's factor:

  - ``identity``: 1, the straight-through estimator of the paper;
  - ``clipped``: 1 where abs(y) <= 1, else 0 (BinaryNet; Courbariaux & Bengio, 2016);
  - ``tanh``: 1 - tanh(y)**2.

  A bit that is constant over all possible sums has no gradient.
* An affine map has the gradient of ``m / 2**shift * x``; its rounding passes.
* A clamp passes gradients from ``low`` to ``high``, both included; a ReLU above zero.
* A max pool sends them to the largest (or smallest) value.  Among equal bits
  that is the one whose y is the largest, as in a float network that pools first.

**Draws** of stochastic layers are given from outside as constants: no gradient
passes through the Bernoulli, since the drawn weights do not depend on the image.
"""

from bnnmcu.attack.twin.model import Draws, IntegerTwin

__all__ = ["Draws", "IntegerTwin"]
