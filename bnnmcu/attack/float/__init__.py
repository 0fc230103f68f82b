"""A differentiable float model of any network that the compiler reads.

**Forward**: the float network of a model file (:class:`bnnmcu.network.Network`) in
float32, so within rounding what :func:`bnnmcu.network.execute.run` gives.  Pixels
are *not* rounded to the grid k / 255: that is up to the attack.

**Backward**: by the image only, since attacks never train.  A sign passes gradients
by the estimator's factor at its own input y, as in :mod:`bnnmcu.attack.twin`:
1 (``identity``), 1 where abs(y) <= 1 (``clipped``), or 1 - tanh(y)**2 (``tanh``).
All else has its true gradient.

**Draws** of stochastic layers are constants, given from outside.

What it costs, and why the steps are written as they are: ``benchmarks/README.md``.
"""

from bnnmcu.attack.float.model import FloatModel
from bnnmcu.attack.float.read import load_float_model, read_float_network

__all__ = ["FloatModel", "load_float_model", "read_float_network"]
