"""A live torch module against the float network that was read from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bnnmcu.compare.report import Parting, Stage
from bnnmcu.network import Network, shapes
from bnnmcu.network.execute import run, to_float
from bnnmcu.network.ops import Floats

if TYPE_CHECKING:
    import torch

__all__ = ["compare_module", "module_logits"]

#: A module computes in float32: this much of a layer's largest value is its rounding.
_FLOAT32 = 1e-4


def module_logits(
    module: torch.nn.Module,
    network: Network,
    images: npt.NDArray[np.uint8],
    example_input: torch.Tensor,
) -> tuple[Floats, dict[str, Floats]]:
    """Logits (N, classes) of a module in eval mode, and the outputs of its plain layers by name."""
    import torch

    outputs: dict[str, Floats] = {}

    def keep(name: str) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                outputs[name] = output.detach().double().numpy()

        return hook

    # Only what torch itself defines: a layer of the user's may do more than its main operation.
    plain = {n: m for n, m in module.named_modules() if type(m).__module__.startswith("torch.nn")}
    named = {op.name for op in network.ops}
    handles = [m.register_forward_hook(keep(n)) for n, m in plain.items() if n in named]
    trained = module.training
    module.eval()
    try:
        floats = to_float(network, images).reshape(len(images), *example_input.shape[1:])
        with torch.no_grad():
            answer = module(torch.from_numpy(floats).to(example_input.dtype))
    finally:
        module.train(trained)
        for handle in handles:
            handle.remove()
    return answer.detach().double().numpy().reshape(len(images), -1), outputs


def compare_module(
    network: Network,
    images: npt.NDArray[np.uint8],
    logits: Floats,
    outputs: Mapping[str, Floats],
) -> Stage:
    """A module's values against the float network's.

    A module computes in float32: where a sign is taken of next to nothing it may
    come out otherwise, and all that follows with it.
    """
    values: dict[str, list[Floats]] = {}
    answered = run(network, images, on_value=lambda n, v: values.setdefault(n, []).append(v))
    known = shapes(network)
    compared = differing = 0
    first: Parting | None = None
    pairs = [(op, np.concatenate(values[op.name])) for op in network.ops]
    for op, ours in pairs:
        last = op is network.ops[-1]
        theirs = logits if last else outputs.get(op.name)
        if theirs is None or theirs.size != ours.size:
            continue
        left = theirs.reshape(len(images), *known[op.name])
        apart = np.abs(left - ours) > _FLOAT32 * max(float(np.abs(ours).max()), 1e-30)
        compared += ours.size
        differing += int(apart.sum())
        if apart.any() and first is None:
            index, channel, row, column = (int(i) for i in np.argwhere(apart)[0])
            at = (index, channel, row, column)
            text = f"{ours[at]:.6g} in the float network, {left[at]:.6g} in the module"
            first = Parting(
                index, 0, op.name, op.name, channel, row, column, left[at], ours[at], text
            )
    tie = _near_tie(network, {op.name: value for op, value in pairs})
    agree = bool((logits.argmax(axis=1) == answered.argmax(axis=1)).all())
    explained = differing and tie and agree
    return Stage(
        "torch module",
        "float network",
        compared,
        differing,
        0 if explained else differing,
        first,
        None if explained else first,
        f"{tie} is taken of next to nothing: float32 may decide otherwise" if explained else "",
    )


def _near_tie(network: Network, values: Mapping[str, Floats]) -> str:
    """The first sign whose argument float32 cannot tell from zero, if there is one."""
    for op in network.ops:
        if type(op).__name__ != "Sign" or op.source not in values:
            continue
        argument = np.abs(values[op.source])
        if (argument <= 1e-6 * max(float(argument.max()), 1e-30)).any():
            return op.name
    return ""
