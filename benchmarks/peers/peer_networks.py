"""The networks on the table: their C, and what their own makers say that it should answer."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from peer_rig import Source
from safetensors.numpy import load_file

from bnnmcu import reference
from bnnmcu.backend.choice import KernelChoice
from bnnmcu.backend.emit import model_sources, template_bytes
from bnnmcu.backend.folder import runtime_files
from bnnmcu.backend.plan import make_plan
from bnnmcu.compiler import to_graph
from bnnmcu.modelfile import read_model

__all__ = ["Peer", "bakenn", "emlearn", "emx", "ours"]

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent.parent / "examples" / "models"
#: Digits that BakeNN sees for its ranges.
CALIBRATION = 200
Logits = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Peer:
    """One network by one maker.

    Attributes:
        source: its C.
        expected: digits (N, 28, 28, 1) to the logits that the maker's own reference gives.
        check: how many digits are compared with it; some references take seconds each.
        tolerance: largest difference allowed, relative to the largest logit; 0 is exact.
    """

    source: Source
    expected: Callable[[npt.NDArray[np.uint8]], Logits]
    check: int
    tolerance: float = 0.0


def _weights(prefix: str) -> dict[str, npt.NDArray[np.float32]]:
    tensors = load_file(HERE / "weights.safetensors")
    return {
        name.removeprefix(f"{prefix}."): value.astype(np.float32)
        for name, value in tensors.items()
        if name.startswith(f"{prefix}.")
    }


def _a64() -> Any:
    """The float network in torch."""
    import torch

    from bnnmcu.nn.config import PaperConfig
    from bnnmcu.nn.paper import PaperNet

    net = PaperNet(PaperConfig("A"))
    net.load_state_dict({name: torch.from_numpy(v) for name, v in _weights("a64").items()})
    net.eval()
    return net


def _pixels(digits: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """(N, 1, 28, 28) in [0, 1]."""
    return np.ascontiguousarray(digits.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255))


def _float_logits(digits: npt.NDArray[np.uint8]) -> Logits:
    import torch

    with torch.no_grad():
        logits = _a64()(torch.from_numpy(_pixels(digits)))
    return np.asarray(logits.numpy(), dtype=np.float64)


def _quantized(digits: npt.NDArray[np.uint8]) -> Any:
    """BakeNN's int8 network, its ranges taken from digits.

    BakeNN runs the float network in loops of Python for that, seven seconds a
    digit. Its convolution is exchanged for torch's while it does: the same
    function, with the float32 sums in another order.
    """
    import torch
    from bakenn.frontends import capture_torch_export
    from bakenn.quantization import ptq_graph

    def conv(
        value: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, **more: Any
    ) -> Any:
        top, bottom, left, right = padding
        padded = torch.nn.functional.pad(
            torch.from_numpy(np.array(value)), (left, right, top, bottom)
        )
        kernel = torch.from_numpy(np.array(weight))
        shift = None if bias is None else torch.from_numpy(np.array(bias))
        groups = more.get("groups", 1)
        return torch.nn.functional.conv2d(
            padded, kernel, shift, stride=stride, dilation=dilation, groups=groups
        ).numpy()

    pixels = torch.from_numpy(_pixels(digits))
    graph = capture_torch_export(_a64(), pixels[:1], name="a64")
    slow, ptq_graph._conv2d = ptq_graph._conv2d, conv
    try:
        images = [pixels[i : i + 1] for i in range(len(pixels))]
        return ptq_graph.quantize_float_graph_with_report(graph, images, name="a64").graph
    finally:
        ptq_graph._conv2d = slow


def bakenn(kernels: str, digits: npt.NDArray[np.uint8], folder: Path) -> Peer:
    """A64 by BakeNN; kernels ``portable`` or ``cmsis-nn``."""
    import bakenn as maker

    options = {"backend_options": maker.CBackendOptions(), "target": maker.CORTEX_M4}
    if kernels == "cmsis-nn":
        options["backend_options"] = maker.CBackendOptions(
            kernel_policy=maker.KernelPolicy.STATIC_PRIORITY,
            enable_cmsis_nn=True,
            target=maker.CORTEX_M4,
        )
    network = maker.compile(_quantized(digits), folder, model_name="a64", **options)
    sources = tuple(sorted(folder.rglob("*.c")))
    if (kernels == "cmsis-nn") != any("cmsis_nn" in str(path) for path in sources):
        raise ValueError(f"BakeNN took other kernels than {kernels}")

    def expected(some: npt.NDArray[np.uint8]) -> Logits:
        nhwc = some.astype(np.float32) / np.float32(255)
        answers = [
            maker.run_reference(network.plan, maker.quantize_input(network.plan, nhwc[i : i + 1]))
            for i in range(len(some))
        ]
        return np.concatenate(answers).astype(np.float64)

    includes = tuple(sorted({path.parent for path in folder.rglob("*.h")}))
    source = Source(
        folder,
        "adapter_bakenn.c",
        sources,
        includes,
        ("-DBAKENN_CMSIS_NN_BUILTIN_MEMORY",) if kernels == "cmsis-nn" else (),
        on_host=kernels == "portable",
    )
    return Peer(source, expected, check=2)


def emx(folder: Path) -> Peer:
    """A64 in float by emx-onnx-cgen, nothing on a heap."""
    import onnx
    from emx_onnx_cgen.cli import main
    from onnx import TensorProto, helper, numpy_helper

    folder.mkdir(parents=True, exist_ok=True)
    weights = _weights("a64")
    tables = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    strides = {
        "conv1": ([2, 2], [3, 3, 3, 3]),
        "conv2": ([2, 2], [0] * 4),
        "conv3": ([1, 1], [0] * 4),
    }
    nodes, last = [], "x"
    for name, (stride, pads) in strides.items():
        taken = [last, f"{name}.weight"]
        nodes.append(helper.make_node("Conv", taken, [name], strides=stride, pads=pads))
        nodes.append(helper.make_node("Relu", [name], [f"{name}.relu"]))
        last = f"{name}.relu"
    nodes.append(helper.make_node("Flatten", [last], ["flat"], axis=1))
    nodes.append(helper.make_node("Gemm", ["flat", "dense.weight"], ["y"], transB=1))
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 28, 28])
    wanted = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])
    graph = helper.make_graph(nodes, "a64", [given], [wanted], tables)
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, folder / "a64.onnx")
    output = folder / "a64.c"
    static = ["--large-temp-threshold", "0", "--large-weight-threshold", "0"]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = main(
            ["compile", *static, "--model-name", "a64", str(folder / "a64.onnx"), str(output)]
        )
    if status:
        raise ValueError(f"emx-onnx-cgen ended with {status}: {said.getvalue()}")
    source = Source(folder, "adapter_emx.c", (output,), kind="float32")
    return Peer(source, _float_logits, check=10, tolerance=1e-4)


class MLPClassifier:
    """What emlearn asks of scikit-learn's class of this name, trained with torch instead."""

    n_layers_ = 3
    activation = "relu"
    out_activation_ = "softmax"

    def __init__(self) -> None:
        weights = _weights("mlp")
        self.coefs_ = [weights[f"{i}.weight"].T.copy() for i in range(2)]
        self.intercepts_ = [weights[f"{i}.bias"] for i in range(2)]


def emlearn(folder: Path) -> Peer:
    """The MLP by emlearn, its default inference (``loadable``)."""
    import emlearn as maker

    folder.mkdir(parents=True, exist_ok=True)
    estimator = MLPClassifier()
    # It compiles a program for this machine into ./tmp, and logs each command.
    logging.disable(logging.INFO)
    with contextlib.chdir(folder):
        maker.convert(estimator).save(name="mlp", file="mlp.h")
    logging.disable(logging.NOTSET)

    def expected(digits: npt.NDArray[np.uint8]) -> Logits:
        x = digits.reshape(len(digits), -1).astype(np.float64) / 255
        hidden = np.maximum(x @ estimator.coefs_[0] + estimator.intercepts_[0], 0)
        logits = hidden @ estimator.coefs_[1] + estimator.intercepts_[1]
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    includes = (Path(maker.__file__).parent,)
    source = Source(folder, "adapter_emlearn.c", (), includes, kind="float32")
    return Peer(source, expected, check=10, tolerance=1e-4)


def ours(model: str, goal: Any, folder: Path) -> Peer:
    """A shipped network, its kernels chosen as ``bnnmcu export --optimize GOAL`` does."""
    folder.mkdir(parents=True, exist_ok=True)
    graph = to_graph(read_model(MODELS / f"{model}.pt"))
    choice = KernelChoice(goal, flash=512 * 1024, ram=128 * 1024)
    files = runtime_files() | model_sources(make_plan(graph, choice))
    files["bnn_memory.c"] = template_bytes("port/bnn_memory.c")
    for name, text in files.items():
        (folder / name).write_bytes(text)

    def expected(digits: npt.NDArray[np.uint8]) -> Logits:
        seeds = np.arange(len(digits), dtype=np.uint64)[:, np.newaxis]
        return reference.run(graph, digits, seeds)[:, 0].astype(np.float64)

    sources = tuple(sorted(folder / name for name in files if name.endswith(".c")))
    source = Source(
        folder,
        "adapter_bnnmcu.c",
        sources,
        flags=("-ffreestanding",),
        libraries=("-lgcc",),
    )
    return Peer(source, expected, check=10)
