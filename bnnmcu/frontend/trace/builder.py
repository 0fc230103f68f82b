"""From forms to operations of a network."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from bnnmcu.errors import UnsupportedModelError
from bnnmcu.frontend.trace.forms import Algebra, Atom, Form, Refusal, numbers, split
from bnnmcu.frontend.trace.naming import final_names, label_of, module_path
from bnnmcu.network.model import Shape
from bnnmcu.network.ops import INPUT, Add, Affine, Clamp, Floats, Op, PRelu, Sign

__all__ = ["Builder"]

_ROUNDING = 1e-9


def _same(one: Floats, other: Floats) -> bool:
    return bool(np.allclose(one, other, rtol=_ROUNDING, atol=0.0))


class Builder:
    """Collects operations under provisional names.

    Args:
        algebra: makes the forms.
        leaves: paths of modules without children.
    """

    def __init__(self, algebra: Algebra, leaves: set[str]) -> None:
        self.algebra = algebra
        self._leaves = leaves
        self._ops: list[Op] = []
        self._wanted: dict[str, tuple[str, str]] = {}
        self._known: dict[Any, str] = {}
        self._sums: list[Form] = []
        #: Provisional name to the graph node that has the same value.
        self.nodes: dict[str, Any] = {}
        #: Key of a form to the first graph node that has its value.
        self.origins: dict[Any, Any] = {}
        #: Provisional name of an operation that draws its weights to its graph node.
        self.drawn: dict[str, Any] = {}

    def where(self, node: Any) -> str:
        """What an error calls a node: its module's path, and what it does if that tells more."""
        path = module_path(node)
        if path in self._leaves and path:
            return path
        return f"{path}.{label_of(node)}".strip(".")

    def fresh(self, node: Any, label: str) -> str:
        """A provisional name."""
        name = f"v{len(self._wanted)}"
        self._wanted[name] = (module_path(node), label)
        return name

    def emit(self, op: Op, layout: Shape, node: Any = None) -> Form:
        """Append an operation whose name is :meth:`fresh`; the form of its result.

        Args:
            node: the graph node that has exactly this value, if there is one.
        """
        self._ops.append(op)
        if node is not None:
            self.nodes.setdefault(op.name, node)
        return self.algebra.atom(layout, "op", (op.name,), op=op.name)

    def _affine(self, source: str, scale: Floats, offset: Floats, layout: Shape, node: Any) -> str:
        if not (scale != 1).any() and not offset.any():
            return source
        name = self.fresh(node, "scale" if (scale != 1).any() else "shift")
        full = [np.broadcast_to(v, (layout[0],)) for v in (scale, offset)]
        self._ops.append(Affine(name, source, full[0], full[1]))
        return name

    def _step(self, atoms: dict[str, tuple[Atom, Floats]], form: Form) -> tuple[str, Floats]:
        """(operation, coefficient) of sign and zero atoms of one base."""
        atom, _ = next(iter(atoms.values()))
        nothing = (atom, np.zeros(()))
        sign, zero = atoms.get("sign", nothing)[1], atoms.get("zero", nothing)[1]
        assert atom.base is not None
        for value, match in ((0, not zero.any()), (1, _same(zero, sign)), (-1, _same(zero, -sign))):
            if match and sign.any():
                key = ("sign", atom.base.key, value)
                if key not in self._known:
                    source = self.name(atom.base, atom.node)
                    op = Sign(self.fresh(atom.node, "sign"), source, value)
                    self._ops.append(op)
                    self._known[key] = op.name
                return self._known[key], sign
        raise UnsupportedModelError(
            "compares an activation with one value for equality",
            where=self.where(atom.node),
            hint="a device has comparisons with a threshold: use x >= 0 or torch.sign(x)",
        )

    def _prelu(self, form: Form) -> tuple[str, Floats, Form] | None:
        """Takes slope * x and relu(x) out of a sum, as one PRelu: (operation, factor, rest)."""
        for atom, positive in form.terms:
            if atom.kind != "clamp" or (atom.low, atom.high) != (0.0, math.inf):
                continue
            assert atom.base is not None
            found = split(form, atom.base)
            if found is None:
                continue
            factor, rest = found
            whole = factor + positive
            kept = tuple((a, c) for a, c in rest.terms if a is not atom)
            rest = Form(form.layout, kept, rest.const)
            if not whole.any():
                # x - relu(x) is min(x, 0).
                least = dataclasses.replace(atom, low=-math.inf, high=0.0)
                return self._clamp(least, ("min", atom.uid)), factor, rest
            if not whole.all():
                continue
            layout = form.layout
            slope = np.broadcast_to(numbers(factor / whole), (layout[0],))
            key = ("prelu", atom.base.key, slope.tobytes())
            if key not in self._known:
                source = self.name(atom.base, atom.node)
                self._known[key] = self.fresh(atom.node, "prelu")
                self._ops.append(PRelu(self._known[key], source, slope))
            return self._known[key], whole, rest
        return None

    def _clamp(self, atom: Atom, key: tuple[str, int]) -> str:
        if key not in self._known:
            assert atom.base is not None
            labels = {(0.0, math.inf): "relu", (-1.0, 1.0): "hardtanh", (0.0, 6.0): "relu6"}
            label = labels.get((atom.low, atom.high), "clamp")
            source = self.name(atom.base, atom.node)
            self._known[key] = self.fresh(atom.node, label)
            self._ops.append(Clamp(self._known[key], source, atom.low, atom.high))
        return self._known[key]

    def _parts(self, form: Form) -> tuple[list[tuple[str, Floats]], Floats]:
        """(operation, coefficient) whose sum, plus the constant, is the form."""
        parts: list[tuple[str, Floats]] = []
        for known in reversed(self._sums):
            # A residual network adds to sums that are there already.
            if len(known.terms) > 1 and known.key != form.key and (found := split(form, known)):
                parts.append((self._known[known.key], found[0]))
                form = found[1]
        while (taken := self._prelu(form)) is not None:
            parts.append(taken[:2])
            form = taken[2]
        steps: dict[Any, dict[str, tuple[Atom, Floats]]] = {}
        for atom, value in form.terms:
            if atom.kind == "op":
                parts.append((atom.op, value))
            elif atom.kind == "clamp":
                parts.append((self._clamp(atom, ("clamp", atom.uid)), value))
            else:
                assert atom.base is not None
                steps.setdefault(atom.base.key, {})[atom.kind] = (atom, value)
        parts += [self._step(atoms, form) for atoms in steps.values()]
        return parts, form.const

    def refuse(self, refusal: Refusal | None) -> None:
        """Raise a refusal, if there is one."""
        if refusal is not None:
            raise UnsupportedModelError(refusal.what, where=refusal.where, hint=refusal.hint)

    def name(self, form: Form, node: Any) -> str:
        """The operation that computes a form; appended if there is none yet.

        Args:
            node: the graph node that needs it; named after the one that has this
                value, where there is one.

        Raises:
            UnsupportedModelError: it contains what cannot be expressed.
        """
        self.refuse(form.refusal)
        if form.key in self._known:
            return self._known[form.key]
        origin = self.origins.get(form.key)
        node = node if origin is None else origin
        if not form.terms:
            raise UnsupportedModelError(
                "its value does not depend on the input",
                where=self.where(node),
                hint="remove the layers that come before it, or the constant",
            )
        parts, const = self._parts(form)
        first = parts[0][1]
        common = np.asarray(1.0)
        if all(np.array_equal(value, first) for _, value in parts):
            common = first
            parts = [(op, np.asarray(1.0)) for op, _ in parts]
        total = ""
        for op, value in parts:
            term = self._affine(op, value, np.asarray(0.0), form.layout, node)
            if total:
                name = self.fresh(node, "add")
                self._ops.append(Add(name, total, term))
                term = name
            total = term
        total = self._affine(total, common, const, form.layout, node)
        self._known[form.key] = total
        self._sums.append(form)
        if total != INPUT and origin is not None:
            self.nodes.setdefault(total, origin)
        return total

    def finish(self, last: str) -> tuple[tuple[Op, ...], dict[str, str]]:
        """Operations that ``last`` needs, under their final names; provisional to final."""
        needed = {last}
        for op in reversed(self._ops):
            if op.name in needed:
                needed |= set(op.sources)
        kept = [op for op in self._ops if op.name in needed]
        names = final_names([(op.name, *self._wanted[op.name]) for op in kept],
                            self._leaves, [INPUT])  # fmt: skip
        names[INPUT] = INPUT
        renamed = []
        for op in kept:
            changes = {"name": names[op.name], "source": names[op.source]}
            if isinstance(op, Add):
                changes["other"] = names[op.other]
            renamed.append(dataclasses.replace(op, **changes))
        return tuple(renamed), names
