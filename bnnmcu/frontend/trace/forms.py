"""What an activation is, as arithmetic on values that the network already has.

A :class:`Form` is a sum of *atoms*, each times a number per channel, plus a
constant.  Elementwise code becomes forms before it becomes operations, so that
``(sign(x) - tanh(x)).detach() + tanh(x)`` is ``sign(x)``: what cancels is never
asked for.  Comparisons are sums of two atoms, ``sign`` (-1, 0, +1) and ``zero``
(1 where the value is zero, else 0): ``x >= 0`` is (1 + sign + zero) / 2, which
makes every usual spelling of a sign one and the same form.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bnnmcu.network.model import Shape
from bnnmcu.network.ops import Floats

__all__ = ["Algebra", "Atom", "Form", "Refusal", "numbers", "split", "ternary"]

_Key = tuple[Any, ...]


@dataclass(frozen=True)
class Refusal:
    """Why a value cannot be expressed: the parts of an error's text.

    Attributes:
        weak: what comes after may tell more, e.g. attention after a permutation.
    """

    what: str
    where: str
    hint: str
    weak: bool = False


@dataclass(frozen=True, eq=False)
class Atom:
    """A value that is not arithmetic on others.

    Attributes:
        uid: order of creation.
        kind: ``op`` (an operation of the network), ``sign``, ``zero`` or
            ``clamp`` of ``base``, or ``opaque``: refused where it is needed.
        layout: (C, H, W).
        node: the graph node that it came from.
        op: the operation's name.
        low, high: of a clamp.
        centre: of an opaque rising function of ``base``: its value at zero.
    """

    uid: int
    kind: str
    layout: Shape
    node: Any
    op: str = ""
    base: Form | None = None
    low: float = 0.0
    high: float = 0.0
    refusal: Refusal | None = None
    centre: float | None = None


def numbers(values: Any) -> Floats:
    """One float64, or one per channel; equal ones become one."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim and array.size and (array == array.flat[0]).all():
        array = array.reshape(-1)[0]
    # -0.0 and 0.0 must not make two keys.
    return np.asarray(array + 0.0)


@dataclass(frozen=True, eq=False)
class Form:
    """Sum of coefficient * atom, plus a constant; ``terms`` in order of ``uid``."""

    layout: Shape
    terms: tuple[tuple[Atom, Floats], ...]
    const: Floats

    @cached_property
    def key(self) -> _Key:
        """Equal for equal forms."""
        parts = [(atom.uid, value.shape, value.tobytes()) for atom, value in self.terms]
        return (*parts, self.const.shape, self.const.tobytes())

    @property
    def refusal(self) -> Refusal | None:
        """Why it cannot be expressed, if it contains something that cannot."""
        for atom, _ in self.terms:
            inner = atom.base.refusal if atom.base else None
            if inner or atom.refusal:
                return inner or atom.refusal
        return None


def _build(layout: Shape, terms: dict[Atom, Floats], const: Floats) -> Form:
    kept = [(a, numbers(c)) for a, c in terms.items() if np.any(c != 0)]
    return Form(layout, tuple(sorted(kept, key=lambda t: t[0].uid)), numbers(const))


def split(form: Form, part: Form) -> tuple[Floats, Form] | None:
    """``form`` as (factor, rest) with form = factor * part + rest, none of part's atoms in rest."""
    mine = dict(form.terms)
    factor: Floats | None = None
    for atom, value in part.terms:
        if (value == 0).any() or atom not in mine:
            return None
        ratio = np.asarray(mine.pop(atom) / value)
        if factor is None:
            factor = ratio
        elif not (factor == ratio).all():
            return None
    if factor is None:
        return None
    return factor, _build(form.layout, mine, form.const - factor * part.const)


def ternary(form: Form) -> tuple[Form, Floats, Floats, Floats] | None:
    """(base, values where base < 0, = 0, > 0) of a form that depends on a sign alone."""
    bases = {atom.base.key if atom.base else None for atom, _ in form.terms}
    kinds = {atom.kind for atom, _ in form.terms}
    if len(bases) != 1 or not kinds <= {"sign", "zero"}:
        return None
    values = {atom.kind: value for atom, value in form.terms}
    sign, zero = (values.get(kind, np.zeros(())) for kind in ("sign", "zero"))
    base = form.terms[0][0].base
    assert base is not None
    return base, form.const - sign, form.const + zero, form.const + sign


def _direction(form: Form) -> int:
    """+1 or -1 where all coefficients of the first atom have that sign, else 0."""
    if not form.terms:
        return 0
    first = form.terms[0][1]
    return 1 if (first > 0).all() else -1 if (first < 0).all() else 0


class Algebra:
    """Makes forms; equal atoms are one.  ``node`` is what new atoms are credited to."""

    def __init__(self) -> None:
        self.node: Any = None
        self._atoms: dict[_Key, Atom] = {}
        self._count = 0

    def atom(self, layout: Shape, kind: str, key: _Key | None = None, **fields: Any) -> Form:
        """The form of one atom; the one made before if ``key`` is the same."""
        if key is not None and (kind, key) in self._atoms:
            atom = self._atoms[kind, key]
        else:
            self._count += 1
            atom = Atom(self._count, kind, layout, self.node, **fields)
            if key is not None:
                self._atoms[kind, key] = atom
        return Form(layout, ((atom, np.asarray(1.0)),), np.asarray(0.0))

    def opaque(self, layout: Shape, refusal: Refusal, key: _Key | None = None,
               base: Form | None = None, centre: float | None = None) -> Form:  # fmt: skip
        """Something that is refused unless it cancels."""
        return self.atom(layout, "opaque", key, refusal=refusal, base=base, centre=centre)

    def constant(self, layout: Shape, values: Any) -> Form:
        """The same for every image."""
        return _build(layout, {}, np.asarray(values, dtype=np.float64))

    def add(self, one: Form, other: Form, factor: float = 1.0) -> Form:
        """one + factor * other."""
        terms = dict(one.terms)
        for atom, value in other.terms:
            terms[atom] = terms.get(atom, np.zeros(())) + factor * value
        return _build(one.layout, terms, one.const + factor * other.const)

    def affine(self, form: Form, scale: Any, offset: Any = 0.0) -> Form:
        """scale * form + offset."""
        terms = {atom: value * scale for atom, value in form.terms}
        return _build(form.layout, terms, form.const * scale + offset)

    def _of_ternary(self, base: Form, low: Floats, mid: Floats, high: Floats) -> Form:
        """The form that is low, mid or high where base is below, at or above zero."""
        mean, half = (low + high) / 2, (high - low) / 2
        sign = self.atom(base.layout, "sign", base.key, base=base)
        zero = self.atom(base.layout, "zero", base.key, base=base)
        return self.affine(
            self.add(self.affine(sign, half), self.affine(zero, mid - mean)), 1, mean
        )

    def _simple(self, form: Form) -> tuple[Form, int]:
        """(base, +1 or -1): the sign of form is that of base, times the second."""
        direction = _direction(form)
        if len(form.terms) == 1 and direction and not form.const.any():
            atom = form.terms[0][0]
            return Form(form.layout, ((atom, np.asarray(1.0)),), np.asarray(0.0)), direction
        return (self.affine(form, -1), -1) if direction < 0 else (form, 1)

    def _inside(self, form: Form) -> Form:
        """Looks through a rising function that is compared with its value at zero."""
        while len(form.terms) == 1:
            atom, value = form.terms[0]
            direction = _direction(form)
            if atom.centre is None or atom.base is None or not direction:
                break
            if not np.array_equal(form.const, numbers(-atom.centre * value)):
                break
            form = self.affine(atom.base, direction)
        return form

    def pointwise(self, form: Form, function: Callable[[Floats], Any]) -> Form | None:
        """function(form), where form is a constant or depends on a sign alone."""
        if not form.terms:
            return self.constant(form.layout, function(form.const))
        found = ternary(form)
        if found is None:
            return None
        base, *values = found
        low, mid, high = (np.asarray(function(v), dtype=np.float64) for v in values)
        return self._of_ternary(base, low, mid, high)

    def select(self, form: Form, low: float, mid: float, high: float) -> Form:
        """low, mid or high where form is below, at or above zero."""
        known = self.pointwise(form, lambda v: np.where(v < 0, low, np.where(v > 0, high, mid)))
        if known is not None:
            return known
        base, direction = self._simple(self._inside(form))
        if direction < 0:
            low, high = high, low
        each = (np.asarray(float(v)) for v in (low, mid, high))
        return self._of_ternary(base, *each)

    def clamp(self, form: Form, low: float, high: float) -> Form:
        """min(max(form, low), high)."""
        if low == -math.inf and high == math.inf:
            return form
        known = self.pointwise(form, lambda v: np.clip(v, low, high))
        if known is not None:
            return known
        if _direction(form) < 0:
            return self.affine(self.clamp(self.affine(form, -1), -high, -low), -1)
        if (low, high) == (-math.inf, 0.0):
            return self.add(form, self.clamp(form, 0.0, math.inf), -1)
        factor: Floats = np.asarray(1.0)
        if len(form.terms) == 1 and not form.const.any():
            atom, value = form.terms[0]
            if atom.kind == "clamp" and (value == 1).all() and atom.base is not None:
                # A clamp of a clamp is one.
                ends = [min(max(end, low), high) for end in (atom.low, atom.high)]
                if ends[0] < ends[1]:
                    return self.clamp(atom.base, ends[0], ends[1])
            elif (low, high) == (0.0, math.inf) and (value > 0).all():
                factor = value
                form = Form(form.layout, ((atom, np.asarray(1.0)),), np.asarray(0.0))
        key = (form.key, low, high)
        made = self.atom(form.layout, "clamp", key, base=form, low=low, high=high)
        return self.affine(made, factor)

    def absolute(self, form: Form) -> Form:
        """abs(form)."""
        known = self.pointwise(form, np.abs)
        if known is not None:
            return known
        return self.add(self.affine(self.clamp(form, 0.0, math.inf), 2), form, -1)

    def multiply(self, one: Form, other: Form) -> Form | None:
        """one * other where that is a form: a factor is constant, or the other's sign."""
        for a, b in ((one, other), (other, one)):
            if not a.terms:
                return self.affine(b, a.const)
        for a, b in ((one, other), (other, one)):
            found = ternary(a)
            if found is None:
                continue
            base, low, mid, high = found
            second = ternary(b)
            if second is not None and second[0].key == base.key:
                return self._of_ternary(base, low * second[1], mid * second[2], high * second[3])
            product = self._times_sign(b, base, low, mid, high)
            if product is not None:
                return product
        return None

    def _times_sign(self, form: Form, base: Form, low: Floats, mid: Floats,
                    high: Floats) -> Form | None:  # fmt: skip
        """form * step(base), for factor * base + positive * relu(base) + another step(base)."""
        relu = self.clamp(base, 0.0, math.inf)
        positive, rest = split(form, relu) or (np.zeros(()), form)
        factor, rest = split(rest, base) or (np.zeros(()), rest)
        steps = (base, rest.const, rest.const, rest.const) if not rest.terms else ternary(rest)
        if steps is None or steps[0].key != base.key:
            return None
        # Below zero the form is factor * base, above (factor + positive) * base.
        result = self.affine(base, low * factor)
        rising = high * (factor + positive) - low * factor
        result = self.add(result, self.affine(relu, rising))
        step = self._of_ternary(base, low * steps[1], mid * steps[2], high * steps[3])
        return self.add(result, step)
