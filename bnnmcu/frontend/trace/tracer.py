"""Walks the graph that torch.export made, and keeps what every node is."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from bnnmcu.errors import BnnmcuError, UnsupportedModelError
from bnnmcu.frontend.trace.builder import Builder
from bnnmcu.frontend.trace.draws import Draw, draw
from bnnmcu.frontend.trace.forms import Form, Refusal
from bnnmcu.frontend.trace.hints import explain
from bnnmcu.frontend.trace.values import Value, layout_of
from bnnmcu.network.model import Shape
from bnnmcu.network.ops import Floats

__all__ = ["Handler", "OpaqueError", "Tracer", "execute", "handles"]


class OpaqueError(Exception):
    """This node cannot be expressed; refused only where its value is needed.

    Args:
        what, hint: of the refusal's text.
        base, centre: see :class:`~bnnmcu.frontend.trace.forms.Atom`.
        weak: see :class:`~bnnmcu.frontend.trace.forms.Refusal`.
        inner, note: see :class:`~bnnmcu.frontend.trace.values.Value`.
    """

    def __init__(self, what: str, hint: str, *, base: Form | None = None,
                 centre: float | None = None, inner: Value | None = None,
                 note: str = "", weak: bool = False) -> None:  # fmt: skip
        super().__init__(what)
        self.what, self.hint = what, hint
        self.base, self.centre, self.inner, self.note = base, centre, inner, note
        self.weak = weak


Handler = Callable[["Tracer", Any, Any], Any]
_HANDLERS: dict[str, Handler] = {}
#: Operations that work on every element alone, and so on what may still cancel.
_ELEMENTWISE: set[str] = set()


def handles(*names: str, elementwise: bool = False) -> Callable[[Handler], Handler]:
    """Register a handler for aten operations, e.g. ``conv2d.default``."""

    def register(handler: Handler) -> Handler:
        for name in names:
            _HANDLERS[f"aten.{name}"] = handler
            if elementwise:
                _ELEMENTWISE.add(f"aten.{name}")
        return handler

    return register


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, list | tuple):
        return [leaf for item in tree for leaf in _leaves(item)]
    if isinstance(tree, Mapping):
        return [leaf for item in tree.values() for leaf in _leaves(item)]
    return [tree]


class Tracer:
    """What is known of every node.

    Args:
        builder: takes the operations.
        values: of the nodes known beforehand: parameters, constants, the input.
    """

    def __init__(self, builder: Builder, values: dict[Any, Any]) -> None:
        self.builder = builder
        self.algebra = builder.algebra
        self.values = values

    def value(self, form: Form, node: Any, **fields: Any) -> Value:
        """The activation that a node is."""
        return Value(form, tuple(node.meta["val"].shape), node, **fields)

    def name(self, value: Value) -> str:
        """The operation that computes an activation (see :meth:`Builder.name`)."""
        return self.builder.name(value.form, value.node)

    def regular(self, value: Value) -> str:
        """As :meth:`name`, for operations that need torch's axes to be the network's.

        Raises:
            OpaqueError: the axes were moved or merged.
        """
        self.builder.refuse(value.form.refusal)
        if not value.regular or value.order is not None:
            raise OpaqueError(
                f"works on an activation that was permuted or reshaped to {value.shape}",
                "keep activations as (N, C, H, W) or (N, C, L) until they are flattened",
            )
        return self.name(value)

    def per_channel(self, value: Value, constant: Any, what: str = "a constant") -> Floats:
        """One number, or one per channel, from a constant that meets an activation.

        Raises:
            OpaqueError: it differs from position to position, or enlarges the activation.
        """
        tensor = torch.as_tensor(constant, dtype=torch.float64).detach()
        if tensor.numel() == 1 and tensor.ndim <= len(value.shape) and torch.isfinite(tensor).all():
            return np.asarray(tensor.reshape(()).numpy())
        shape = value.shape
        try:
            fits = np.broadcast_shapes(tuple(tensor.shape), shape) == shape
        except ValueError:
            fits = False
        if not fits:
            raise OpaqueError(
                f"{what} of shape {tuple(tensor.shape)} enlarges an activation of shape {shape}",
                "give it shape (1, C, 1, 1)",
            )
        merged = len(shape) == 3 and value.order is None and value.axes is None
        if not value.regular and not (merged and shape[1] == value.layout[0]):
            raise OpaqueError(
                f"{what} of shape {tuple(tensor.shape)} meets a permuted or reshaped activation",
                "apply it before the permutation, with shape (1, C, 1, 1)",
            )
        if not np.isfinite(tensor.numpy()).all():
            raise OpaqueError(
                f"{what} is NaN or infinite", "check the parameters that it is computed from"
            )
        axis = 0 if len(shape) == 1 else 1
        full = tensor.reshape((1,) * (len(shape) - tensor.ndim) + tuple(tensor.shape))
        rows = full.movedim(axis, 0).reshape(full.shape[axis], -1)
        if (rows != rows[:, :1]).any():
            raise OpaqueError(
                f"{what} of shape {tuple(tensor.shape)} differs from position to position",
                "use one number per channel, shape (1, C, 1, 1)",
            )
        column = rows[:, 0].numpy()
        if value.order is not None and column.size > 1:
            sorted_column = np.empty_like(column)
            sorted_column[value.order] = column
            column = sorted_column
        return np.asarray(column if column.size > 1 else column[0])

    def constant(self, given: Any, what: str) -> torch.Tensor:
        """A parameter that must not depend on the input.

        Raises:
            OpaqueError: it does.
        """
        if isinstance(given, Value):
            self.builder.refuse(given.form.refusal)
            raise OpaqueError(
                f"its {what} depend on the input",
                "a device holds constants: use weights that are the same for every image",
            )
        if isinstance(given, Draw):
            raise OpaqueError(
                f"its {what} are drawn at random",
                "only the weights of convolutions and linear layers can be drawn",
            )
        assert isinstance(given, torch.Tensor)
        return given

    def _bind(self, node: Any) -> SimpleNamespace:
        """Arguments by the names of the operation's schema, defaults filled in."""

        def known(item: Any) -> Any:
            return self.values[item] if isinstance(item, torch.fx.Node) else item

        given = torch.fx.map_arg((node.args, node.kwargs), known)
        arguments = SimpleNamespace()
        for position, argument in enumerate(node.target._schema.arguments):
            if position < len(given[0]):
                value = given[0][position]
            else:
                value = given[1].get(argument.name, argument.default_value)
            setattr(arguments, "input" if argument.name == "self" else argument.name, value)
        return arguments

    def _opaque(self, node: Any, refused: OpaqueError, inputs: list[Value]) -> Value:
        example = node.meta.get("val")
        shape = tuple(example.shape) if isinstance(example, torch.Tensor) else (1, 1)
        layout: Shape = layout_of(shape) or (max(1, int(np.prod(shape))), 1, 1)
        first = next((v.form.refusal for v in inputs if v.form.refusal), None)
        if first is not None and first.weak and str(node.target) not in _HANDLERS:
            first = None
        if first is not None and refused.centre is None:
            refusal = first
        else:
            where = self.builder.where(node)
            refusal = Refusal(refused.what, where, refused.hint, refused.weak)
        key = (str(node.target), *(self._key(a) for a in _leaves((node.args, node.kwargs))))
        form = self.algebra.opaque(layout, refusal, key, refused.base, refused.centre)
        return Value(form, shape, node, inner=refused.inner, note=refused.note)

    def _key(self, argument: Any) -> Any:
        if not isinstance(argument, torch.fx.Node):
            return str(argument)
        known = self.values.get(argument)
        return known.form.key if isinstance(known, Value) else argument.name

    def run(self, node: Any) -> None:
        """Find out what a node is.

        Raises:
            UnsupportedModelError: it needs what cannot be expressed.
        """
        self.algebra.node = node
        try:
            result = self._run(node)
            self.values[node] = result
            if isinstance(result, Value):
                self.builder.origins.setdefault(result.form.key, node)
        except UnsupportedModelError:
            raise
        except BnnmcuError as error:
            where = self.builder.where(node)
            raise UnsupportedModelError(error.what, where=where, hint=error.hint) from error

    def _run(self, node: Any) -> Any:

        def known(item: Any) -> Any:
            return self.values[item]

        inputs = [
            self.values[a] for a in _leaves((node.args, node.kwargs))
            if isinstance(a, torch.fx.Node)
        ]  # fmt: skip
        active = [v for item in inputs for v in _leaves(item) if isinstance(v, Value)]
        if node.target is operator.getitem:
            container, index = inputs[0], node.args[1]
            return container if isinstance(container, Value) else container[index]
        name = str(node.target)
        if name.startswith("aten._assert"):
            return None
        handler = _HANDLERS.get(name)
        try:
            if not active:
                drawn = draw(self, node, inputs)
                if drawn is not None:
                    return drawn
                return execute(node, *torch.fx.map_arg((node.args, node.kwargs), known))
            if handler is None:
                raise OpaqueError(*explain(name, sorted(_HANDLERS)))
            poisoned = next((v for v in active if v.form.refusal), None)
            if poisoned is not None and name not in _ELEMENTWISE:
                raise OpaqueError("", "")
            return handler(self, node, self._bind(node))
        except OpaqueError as refused:
            return self._opaque(node, refused, active)


def execute(node: Any, args: Any, kwargs: Any) -> Any:
    """A node on tensors, by torch's own kernels."""
    # Strides need not be those of the trace; reshape is view where view works.
    viewed = node.target == torch.ops.aten.view.default
    target = torch.ops.aten.reshape.default if viewed else node.target
    with torch.no_grad():
        return target(*args, **kwargs)
