"""What the passes refuse: the layer, what was seen, and what to do instead."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bnnmcu.errors import BnnmcuError, UnsupportedModelError, UsageError
from bnnmcu.network import (
    Affine,
    AvgPool,
    Clamp,
    Conv,
    Flatten,
    Linear,
    MaxPool,
    Network,
    Op,
    Pad,
    Sign,
)
from bnnmcu.passes import PASSES, Lowering, Quantization, lower


def _network(*ops: Op, shape: tuple[int, int, int] = (1, 8, 8), offset: float = 0.0) -> Network:
    channels = shape[0]
    return Network(
        "net", shape, ops, np.full(channels, 1 / 255), np.full(channels, offset)
    )  # fmt: skip


def _conv(
    name: str, source: str, outputs: int, inputs: int, kernel: int = 3, **more: object
) -> Conv:
    rng = np.random.default_rng(len(name))
    return Conv(name, source, rng.normal(size=(outputs, inputs, kernel, kernel)), **more)  # type: ignore[arg-type]


def _binary(name: str, source: str, outputs: int, inputs: int, **more: object) -> Conv:
    rng = np.random.default_rng(len(name))
    weights = np.where(rng.random((outputs, inputs, 3, 3)) < 0.5, 1.0, -1.0)
    return Conv(name, source, weights, **more)  # type: ignore[arg-type]


def _end(source: str, features: int) -> tuple[Op, ...]:
    rng = np.random.default_rng(0)
    return Flatten("flatten", source), Linear("fc", "flatten", rng.normal(size=(3, features)))


_ONES, _ZEROS = np.ones(4), np.zeros(4)
_REFUSED: dict[str, tuple[Callable[[], Network], str, str, str]] = {
    "padding with one": (
        lambda: _network(
            _conv("c", "input", 4, 1), Sign("s", "c"), Pad("block.pad", "s", (1, 1, 1, 1), 1.0),
            _binary("d", "block.pad", 4, 4), *_end("d", 144),
        ),
        "block.pad", "pads with 1", "pad with zeros",
    ),
    "padding before a pool": (
        lambda: _network(
            _conv("c", "input", 4, 1), Sign("s", "c"), Pad("p", "s", (1, 1, 1, 1)),
            MaxPool("m", "p", (2, 2), (2, 2)), *_end("m", 64),
        ),
        "p", "zero padding before maxpool", "right before a convolution",
    ),
    "padding before a sign that has no zero": (
        lambda: _network(
            _conv("c", "input", 4, 1), Pad("p", "c", (1, 1, 1, 1)), Sign("s", "p", 1),
            *_end("s", 256),
        ),
        "p", "zero padding before sign", "right before a convolution",
    ),
    "padding of an image that was shifted out of range": (
        lambda: _network(
            _conv("c", "input", 4, 1, padding=(1, 1, 1, 1)), Sign("s", "c"), *_end("s", 256),
            offset=0.5,
        ),
        "c", "pads with zeros", "mean within [0, 1]",
    ),
    "drawn weights on real values": (
        lambda: _network(
            _conv("c", "input", 4, 1),
            Conv("body.drawn", "c", np.full((4, 4, 3, 3), 0.3), drawn=True),
            *_end("body.drawn", 64),
        ),
        "body.drawn", "draws its weights", "sign activation before it",
    ),
    "torch.sign behind a ReLU": (
        lambda: _network(
            _conv("c", "input", 4, 1), Clamp("relu", "c", 0.0, np.inf), Sign("act", "relu", 0),
            *_end("act", 144),
        ),
        "act", "different sums", "torch.where(x >= 0",
    ),
    "torch.sign behind a zero gamma": (
        lambda: _network(
            _conv("c", "input", 4, 1), Affine("bn", "c", _ZEROS, _ZEROS), Sign("act", "bn", 0),
            *_end("act", 144),
        ),
        "act", "different sums", "torch.where(x >= 0",
    ),
    "an affine operation for each position": (
        lambda: _network(
            _conv("c", "input", 4, 1), Flatten("f", "c"),
            Affine("bn1d", "f", np.linspace(1, 2, 144), np.zeros(144)), Sign("act", "bn1d"),
            Linear("fc", "act", np.ones((3, 144))),
        ),
        "f", "flatten cannot stand here", "flatten right before a linear layer",
    ),
    "flattened maps as logits": (
        lambda: _network(
            _conv("c", "input", 4, 1), Flatten("f", "c"), Affine("bn1d", "f", np.full(144, 2.0),
            np.zeros(144)),
        ),
        "f", "flatten cannot stand here", "right before a linear layer",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", _REFUSED)
def test_refusals(case: str) -> None:
    make, where, what, hint = _REFUSED[case]
    network = make()
    with pytest.raises(UnsupportedModelError) as caught:
        lower(network)
    assert caught.value.where == where
    assert what in caught.value.what
    assert hint in (caught.value.hint or "")


def test_a_sign_with_zero_is_noted_where_it_can_happen() -> None:
    network = _network(
        Conv("c", "input", np.ones((4, 1, 1, 1))), Affine("bn", "c", _ONES, -_ONES * 0.2),
        Sign("s", "bn", 0), _binary("d", "s", 4, 4), Sign("t", "d", 0), *_end("t", 144),
    )  # fmt: skip
    notes = [n for n in lower(network).notes if "torch.sign(0)" in n.text]
    # 51 / 255 is 0.2 to the last bit or beside it; a sum of 36 signs can be zero anyway.
    assert "t" in {n.where for n in notes}
    assert all("4 of 4 channels" in n.text for n in notes if n.where == "t")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"first_layer_bits": 7}, "8 to 14"),
        ({"hidden_bits": 15}, "8 to 14"),
        ({"planes": 1}, "2 to 8"),
        ({"generator": "mt19937"}, "unknown generator"),
        ({"first_layer": "magic"}, "per-channel or calibrated"),
    ],
)
def test_options(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Quantization(**options)  # type: ignore[arg-type]


def _sound() -> Network:
    return _network(
        _conv("c", "input", 4, 1), Sign("s", "c"), AvgPool("a", "s", (2, 2), (2, 2)), *_end("a", 36)
    )


def test_calibration_needs_images() -> None:
    options = Quantization(first_layer="calibrated", first_layer_bits=8)
    with pytest.raises(UsageError, match="needs images"):
        lower(_sound(), options)
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    plain = lower(_sound(), Quantization(first_layer_bits=8))
    calibrated = lower(_sound(), options, calibration=images)
    assert [e.layer for e in calibrated.errors] == ["c", "fc"]
    assert 0 < plain.errors[0].rms < 0.01
    assert plain.errors[0].bits == 8


def test_after_names_a_pass() -> None:
    lowering: Lowering = lower(_sound())
    assert [s.name for s in lowering.snapshots] == list(PASSES)
    with pytest.raises(UsageError, match="no pass 'magic' ran"):
        lowering.after("magic")


def test_every_refusal_is_one_of_ours() -> None:
    for make, *_ in _REFUSED.values():
        with pytest.raises(BnnmcuError) as caught:
            lower(make())
        assert caught.value.exit_code == 4
