"""Model files of layers that were damaged or made up: one of our errors, never a traceback."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_network import small_network

from bnnmcu.compiler import read_source
from bnnmcu.errors import BnnmcuError, ModelFileError, UsageError
from bnnmcu.network import Add, AvgPool, Clamp, Network, Pad
from bnnmcu.network.file import save_network, to_manifest
from bnnmcu.passes import lower

Tensors = dict[str, npt.NDArray[Any]]


def _described() -> tuple[dict[str, Any], Tensors]:
    """A manifest with every kind of attribute, as JSON gives it back."""
    small = small_network()
    conv, norm, sign, *rest = small.ops
    more = (
        Clamp("hard", "norm1", -1.0, float("inf")),
        Pad("pad", "hard", (0, 0, 0, 0)),
        AvgPool("avg", "pad", (1, 1), (1, 1), divisor=2),
        Add("add", "avg", other="norm1"),
    )
    sign = type(sign)(sign.name, "add")
    network = Network(
        "small", small.input_shape, (conv, norm, *more, sign, *rest), small.input_scale,
        small.input_offset,
    )  # fmt: skip
    manifest, tensors = to_manifest(network)
    return json.loads(json.dumps(manifest)), tensors


_MANIFEST, _TENSORS = _described()


def _write(path: Path, text: str, tensors: Tensors) -> Path:
    path.write_bytes(safetensors.numpy.save(tensors, metadata={"manifest": text}))
    return path


def _text(manifest: dict[str, Any]) -> str:
    return json.dumps({**manifest, "format": "bnnmcu-model", "version": 1})


def _op(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(o for o in manifest["network"]["ops"] if o["name"] == name)
    return found


def test_it_is_read_as_it_is(tmp_path: Path) -> None:
    source = read_source(_write(tmp_path / "m.safetensors", _text(_MANIFEST), _TENSORS))
    assert [op.name for op in source.network.ops][:3] == ["first", "norm1", "hard"]
    assert lower(source.network).graph.classes == 4


def test_what_to_remember_is_plain_data(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_network(path, small_network(), {"epochs": [1, 2]})
    assert read_source(path).training == {"epochs": [1, 2]}
    with pytest.raises(UsageError, match="no plain data"):
        save_network(path, small_network(), {"epochs": {1, 2}})


Damage = Callable[[dict[str, Any]], Any]
_DAMAGED: dict[str, tuple[Damage, str]] = {
    "true for a number": (lambda m: _op(m, "hard").update(low=True), "True is no number"),
    "text for a number": (lambda m: _op(m, "hard").update(low="-1"), "'-1' is no number"),
    "text for a padding value": (lambda m: _op(m, "pad").update(value="0"), "is no number"),
    "nothing between the ends": (
        lambda m: _op(m, "hard").update(low=float("inf"), high=None), "clamp to [inf, inf]",
    ),
    "a divisor without bounds": (
        lambda m: _op(m, "avg").update(divisor=10**300), "divisor 1",
    ),
    "true for a stride": (lambda m: _op(m, "avg").update(stride=[True, True]), "no list of 2"),
    "a negative stride": (lambda m: _op(m, "avg").update(stride=[-1, 1]), "stride, padding"),
    "a name that is a number": (lambda m: _op(m, "hard").update(name=3), "3 is no name"),
    "an operation of its own": (lambda m: _op(m, "hard").update(kind="decide"), "unknown op"),
    "a cycle": (lambda m: _op(m, "norm1").update(source="add"), "does not come before it"),
    "many operations": (
        lambda m: m["network"].update(ops=m["network"]["ops"][:3] * 2_000), "operations; 5,000",
    ),
    "a huge group": (lambda m: _op(m, "first").update(groups=10**30), "filters in"),
    "padding whose features overflow": (
        lambda m: _op(m, "pad").update(padding=[65535] * 4), "adds (6, ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", _DAMAGED)
def test_damage(case: str, tmp_path: Path) -> None:
    damage, words = _DAMAGED[case]
    manifest = copy.deepcopy(_MANIFEST)
    damage(manifest)
    with pytest.raises(ModelFileError) as caught:
        read_source(_write(tmp_path / "m.safetensors", _text(manifest), _TENSORS))
    assert words in caught.value.what


@pytest.mark.parametrize("depth", [400, 980, 100_000])
def test_nesting_as_deep_as_anyone_likes(depth: int, tmp_path: Path) -> None:
    manifest = copy.deepcopy(_MANIFEST)
    _op(manifest, "avg")["stride"] = "HERE"
    text = _text(manifest).replace('"HERE"', "[" * depth + "]" * depth)
    with pytest.raises(ModelFileError) as caught:
        read_source(_write(tmp_path / "m.safetensors", text, _TENSORS))
    assert len(str(caught.value)) < 1000


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from([10**400, 65535, 65536, -1, "input", "sign1", "add", "flatten", 1e308]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if not isinstance(value, dict | list):
        return []
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, inner in items:
        found += [(*path, key), *(_places(inner, (*path, key)) if inner else [])]
    return found


_PLACES = [("network", *place) for place in ((), *_places(_MANIFEST["network"]))]
_QUIET = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _only_ours(path: Path) -> None:
    with contextlib.suppress(BnnmcuError):
        lower(read_source(path).network)


@_QUIET
@given(place=st.sampled_from(_PLACES), value=_ANYTHING, gone=st.booleans())
def test_any_value_in_any_place(
    place: tuple[Any, ...], value: Any, gone: bool, tmp_path: Path
) -> None:
    manifest = copy.deepcopy(_MANIFEST)
    inside: Any = manifest
    for key in place[:-1]:
        inside = inside[key]
    if gone:
        del inside[place[-1]]
    else:
        inside[place[-1]] = value
    _only_ours(_write(tmp_path / "m.safetensors", _text(manifest), _TENSORS))


@_QUIET
@given(
    name=st.sampled_from(sorted(_TENSORS)),
    what=st.sampled_from(["gone", "flat", "empty", "scalar", "half", "tiny", "huge", "zero"]),
)
def test_any_damage_to_a_tensor(name: str, what: str, tmp_path: Path) -> None:
    tensors = dict(_TENSORS)
    given_one = tensors.pop(name)
    changed = {
        "flat": given_one.reshape(-1),
        "empty": np.zeros((0, 3)),
        "scalar": np.zeros(()),
        "half": given_one.astype(np.float16),
        "tiny": given_one * 1e-310,
        "huge": given_one / np.abs(given_one).max(initial=1e-9) * 1e307,
        "zero": given_one * 0,
    }
    if what != "gone":
        tensors[name] = changed[what]
    _only_ours(_write(tmp_path / "m.safetensors", _text(_MANIFEST), tensors))


@_QUIET
@given(at=st.integers(0, len(_text(_MANIFEST)) - 1), byte=st.integers(32, 126))
def test_any_byte_of_the_manifest(at: int, byte: int, tmp_path: Path) -> None:
    text = _text(_MANIFEST)
    _only_ours(_write(tmp_path / "m.safetensors", text[:at] + chr(byte) + text[at + 1 :], _TENSORS))
