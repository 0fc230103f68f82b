"""A network of Brevitas, exported to QONNX and taken in.

pip install brevitas onnx onnxoptimizer onnxscript
python examples/brevitas_import.py
bnnmcu export brevitas.onnx --board nucleo_f446 -o brevitas --mean 0.2 --std 0.5
bnnmcu verify brevitas --emulate --data noise
"""

from __future__ import annotations

import sys
import warnings

import torch
from torch import nn

try:
    import brevitas.nn as qnn
    from brevitas.core.scaling import ScalingImplType
    from brevitas.export import export_qonnx
    from brevitas.quant import SignedBinaryActPerTensorConst, SignedBinaryWeightPerTensorConst
except ImportError as error:
    sys.exit(f"{error}\n  next: pip install brevitas onnx onnxoptimizer onnxscript")

#: A pixel p reaches the network as (p / 255 - MEAN) / STD; the file does not say so itself.
MEAN, STD = 0.2, 0.5


def network() -> nn.Module:
    """14x14 pixels to five logits, with binary weights and activations inside."""
    weights = {"weight_quant": SignedBinaryWeightPerTensorConst, "weight_scaling_init": 0.1}
    sign = {"act_quant": SignedBinaryActPerTensorConst, "scaling_impl_type": ScalingImplType.CONST}
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, bias=False),
        nn.BatchNorm2d(16),
        qnn.QuantIdentity(**sign, scaling_init=1.0),
        qnn.QuantConv2d(16, 32, 3, bias=False, **weights),
        nn.BatchNorm2d(32),
        qnn.QuantIdentity(**sign, scaling_init=1.0),
        nn.Flatten(),
        nn.Linear(32 * 100, 5),
    ).eval()


def main() -> None:
    """Export; training is Brevitas's own affair."""
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_qonnx(network(), torch.zeros(1, 1, 14, 14), "brevitas.onnx")
    print("written: brevitas.onnx")
    board = "--board nucleo_f446 -o brevitas"
    print(f"next: bnnmcu export brevitas.onnx {board} --mean {MEAN} --std {STD}")


if __name__ == "__main__":
    main()
