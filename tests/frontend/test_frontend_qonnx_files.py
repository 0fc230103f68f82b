"""Files that are damaged, dishonest or hostile: an error of ours, never a traceback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bnnmcu.errors import BnnmcuError, MissingDependencyError, ModelFileError, UnsupportedModelError
from bnnmcu.frontend.qonnx import layers, nodes, read, read_qonnx
from tests.support.onnx_models import QONNX, Model

RNG = np.random.default_rng(2)


def _model() -> Model:
    m = Model((1, 2, 8, 8))
    w = m("BipolarQuant", m.constant(RNG.normal(size=(4, 2, 3, 3))), np.float32(0.1), domain=QONNX)
    x = m("Conv", "x", w, pads=[1, 1, 1, 1], strides=[2, 2])
    x = m("BatchNormalization", x, *RNG.random((4, 4)))
    x = m("BipolarQuant", x, np.float32(1), domain=QONNX)
    x = m("MaxPool", x, kernel_shape=[2, 2])
    x = m("Reshape", x, [1, -1])
    m("Gemm", x, RNG.normal(size=(3, 36)), RNG.normal(size=3), transB=1)
    return m


def _weight(model: Any) -> Any:
    return model.graph.initializer[0]


def _external(model: Any) -> None:
    tensor = _weight(model)
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"


def _cycle(model: Any) -> None:
    model.graph.node[1].input[0] = model.graph.node[3].output[0]


def _set(path: str, value: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        tensor = _weight(model)
        if path == "dims":
            tensor.dims[:] = value
        else:
            setattr(tensor, path, value)

    return change


def _nan(model: Any) -> None:
    raw = bytearray(model.graph.initializer[2].raw_data)
    raw[:4] = np.array(np.nan, "<f4").tobytes()
    model.graph.initializer[2].raw_data = bytes(raw)


def _declare(model: Any) -> None:
    from onnx import helper

    shape = [1, 4, 9, 9]
    model.graph.value_info.append(helper.make_tensor_value_info("v1", 1, shape))


def _attribute(model: Any, index: int, name: str, **values: Any) -> None:
    for attribute in model.graph.node[index].attribute:
        if attribute.name == name:
            for key, value in values.items():
                field = getattr(attribute, key)
                if isinstance(value, list):
                    field[:] = value
                else:
                    setattr(attribute, key, value)


# What is done to a sound file, and words of the error.
DAMAGE: dict[str, tuple[Callable[[Any], Any], str]] = {
    "external data": (_external, "files that a model names are not opened"),
    "dims too large": (_set("dims", [4, 2, 3, 2**40]), "bytes of data for shape"),
    "dims negative": (_set("dims", [4, 2, -3, -3]), "a tensor of shape"),
    "dims too many": (_set("dims", [1] * 9), "a tensor of shape"),
    "bytes missing": (_set("raw_data", b"123"), "3 bytes of data for shape"),
    "no data": (lambda model: _weight(model).ClearField("raw_data"), "0 values for shape"),
    "cycle": (_cycle, "a cycle"),
    "made twice": (lambda model: model.graph.node.append(model.graph.node[0]), "made twice"),
    "two initialisers": (
        lambda model: model.graph.initializer.append(_weight(model)), "two initialisers"),
    "no output": (lambda model: setattr(model.graph.output[0], "name", "z"), "no node makes"),
    "no graph": (lambda model: model.ClearField("graph"), "no ONNX graph"),
    "nan": (_nan, "NaN or infinite"),
    "wrong statement": (_declare, "the file says that it gives shape"),
    "pads": (lambda model: _attribute(model, 1, "pads", ints=[1, 1]), "padding"),
    "huge stride": (lambda model: _attribute(model, 1, "strides", ints=[2, 2**40]), "strides"),
    "stride zero": (lambda model: _attribute(model, 1, "strides", ints=[0, 1]), "strides"),
    "kernel": (lambda model: _attribute(model, 4, "kernel_shape", ints=[99, 1]), "kernel"),
    "type of attribute": (lambda model: _attribute(model, 1, "pads", type=2), "attribute pads"),
    "two operator sets": (
        lambda model: model.opset_import.add(version=20), "two versions of ONNX's"),
    "channels": (_set("dims", [8, 1, 3, 3]), "channels"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named(name: str, tmp_path: Path) -> None:
    change, words = DAMAGE[name]
    with pytest.raises(ModelFileError) as caught:
        read_qonnx(_model().save(tmp_path, change))
    assert words in caught.value.what
    assert caught.value.where


def test_other_structure_is_refused(tmp_path: Path) -> None:
    def sparse(model: Any) -> None:
        model.graph.sparse_initializer.add().dims[:] = [2**40]

    def function(model: Any) -> None:
        model.functions.add().name = "mine"

    def text(model: Any) -> None:
        model.graph.initializer[0].data_type = 8

    for change, words in ((sparse, "sparse"), (function, "operators of its own"), (text, "type 8")):
        with pytest.raises(UnsupportedModelError, match=words):
            read_qonnx(_model().save(tmp_path, change))


def test_files_that_are_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such file"):
        read_qonnx(tmp_path / "absent.onnx")
    path = tmp_path / "model.onnx"
    for data in (b"", b"hello, I am text\n" * 9, b"\x80\x04pickle", b"PK\x03\x04" + b"\0" * 60):
        path.write_bytes(data)
        with pytest.raises(ModelFileError):
            read_qonnx(path)
    with path.open("wb") as stream:
        stream.truncate((256 << 20) + 1)
    with pytest.raises(ModelFileError, match="are not read"):
        read_qonnx(path)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda m: m("Expand", np.float32(1), [2**30, 2**30]), "larger than anything"),
        (lambda m: m("ConstantOfShape", [2**20, 2**20]), "larger than anything"),
        (lambda m: m("Mul", np.ones((900, 1)), np.ones((1, 900))), "larger than anything"),
        (lambda m: m("Gather", np.ones(900), np.zeros(900, np.int64)), "larger than anything"),
        (lambda m: m("Reshape", np.ones(4), [3]), "shape"),
        (lambda m: m("Transpose", np.ones((2, 2)), perm=[0, 5]), "do not fit"),
        (lambda m: m("Div", [1], [0]), "do not fit"),
        (lambda m: m("Add", np.ones(2), np.ones(3)), "do not fit"),
        (lambda m: m("Concat", np.ones(2), np.ones((2, 2)), axis=0), "do not fit"),
        (lambda m: m("Squeeze", np.ones(2), [0]), "do not fit"),
        (lambda m: m("ReduceMean", np.ones(2), [4]), "axes"),
    ],
)
def test_constants_cannot_ask_for_more_than_the_file_holds(
    build: Callable[[Model], str], words: str, tmp_path: Path
) -> None:
    m = Model((1, 3))
    m("Add", "x", build(m))
    with pytest.raises(ModelFileError) as caught:
        read_qonnx(m.save(tmp_path))
    assert words in caught.value.what


def test_a_misread_operator_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison with ONNX's reference has teeth: begins and ends of padding swapped."""
    right = layers._four

    def wrong(node: Any, values: Any, axes: int) -> Any:
        top, left, bottom, end = right(node, values, axes)
        return bottom, end, top, left

    m = Model((1, 2, 8, 8))
    m("Flatten", m("Conv", "x", RNG.normal(size=(4, 2, 3, 3)), pads=[1, 0, 0, 0], name="c"))
    path = m.save(tmp_path)
    read_qonnx(path)
    monkeypatch.setattr(layers, "_four", wrong)
    with pytest.raises(ModelFileError, match=r"c \(Conv\).*reference"):
        read_qonnx(path)
    monkeypatch.setattr(read, "check", lambda *_: None)
    read_qonnx(path)


def test_what_follows_a_layer_too_large_to_check_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    m = Model((1, 16, 32, 32))
    x = m("Conv", "x", RNG.normal(size=(64, 16, 5, 5)), pads=[2, 2, 2, 2])
    x = m("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], name="pool")
    m("Flatten", x)
    path = m.save(tmp_path)
    read_qonnx(path)
    handlers = {**read._HANDLERS, "MaxPool": lambda b, node: b.value(node, 0)}
    monkeypatch.setattr(read, "_HANDLERS", handlers)
    monkeypatch.setattr(nodes.Node, "finish", lambda _: None)
    with pytest.raises(ModelFileError, match=r"pool \(MaxPool\).*reference"):
        read_qonnx(path)


def test_without_onnx_the_hint_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _model().save(tmp_path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependencyError) as caught:
        read_qonnx(path)
    assert "pip install 'bnnmcu[onnx]'" in str(caught.value)


def test_importing_the_reader_imports_neither_onnx_nor_torch() -> None:
    code = "import sys, bnnmcu.frontend.qonnx; print({'onnx', 'torch'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@cache
def _bytes() -> bytes:
    return _model().proto().SerializeToString()


def _read(folder: Path, data: bytes) -> None:
    path = folder / "fuzz.onnx"
    path.write_bytes(data)
    said = ""
    try:
        read_qonnx(path)
    except BnnmcuError as error:
        said = str(error)
    assert "\x1b" not in said


_FUZZ = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@_FUZZ
@given(data=st.data())
def test_damaged_bytes_never_end_in_a_traceback(tmp_path: Path, data: st.DataObject) -> None:
    """Bytes changed, removed and inserted anywhere outside and inside the weights."""
    raw = bytearray(_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw) - 1))
        kind = data.draw(st.sampled_from(["change", "remove", "insert", "cut"]))
        if kind == "change":
            raw[place] = data.draw(st.integers(0, 255))
        elif kind == "remove":
            del raw[place : place + data.draw(st.integers(1, 8))]
        elif kind == "insert":
            raw[place:place] = data.draw(st.binary(min_size=1, max_size=6))
        else:
            del raw[place:]
        if not raw:
            break
    _read(tmp_path, bytes(raw))


_SMALL = st.one_of(st.integers(-3, 9), st.sampled_from([2**31, 2**62, -(2**62)]))


@_FUZZ
@given(data=st.data())
def test_absurd_fields_never_end_in_a_traceback(tmp_path: Path, data: st.DataObject) -> None:
    """What parses but makes no sense: operators, attributes, names and shapes exchanged."""
    import onnx

    model = onnx.ModelProto()
    model.ParseFromString(_bytes())
    graph = model.graph
    names = [name for node in graph.node for name in (*node.input, *node.output)]
    ops = sorted({*read._HANDLERS, "Constant", "Softmax", "Expand", "Concat", "Gather", "Slice"})
    for _ in range(data.draw(st.integers(1, 3))):
        node = data.draw(st.sampled_from(list(graph.node)))
        kind = data.draw(st.sampled_from(["op", "input", "attribute", "dims", "shape", "more"]))
        if kind == "op":
            node.op_type = data.draw(st.sampled_from(ops))
            quantizer = "Quant" in node.op_type
            node.domain = QONNX if quantizer else ""
            if data.draw(st.booleans()):
                del node.attribute[:]
        elif kind == "input" and node.input:
            slot = data.draw(st.integers(0, len(node.input) - 1))
            node.input[slot] = data.draw(st.sampled_from(names))
        elif kind == "attribute" and node.attribute:
            attribute = data.draw(st.sampled_from(list(node.attribute)))
            attribute.i = data.draw(_SMALL)
            attribute.ints[:] = data.draw(st.lists(_SMALL, max_size=5))
            attribute.f = data.draw(st.floats(width=32))
        elif kind == "dims":
            tensor = data.draw(st.sampled_from(list(graph.initializer)))
            count = int(np.prod(tensor.dims))
            tensor.dims[:] = data.draw(st.sampled_from([[count], [1, count], [count, 1, 1], []]))
            if not tensor.dims and count != 1:
                tensor.raw_data = tensor.raw_data[:4]
        elif kind == "shape":
            dims = graph.input[0].type.tensor_type.shape.dim
            data.draw(st.sampled_from(list(dims))).dim_value = data.draw(_SMALL)
        elif kind == "more":
            node.input.append(data.draw(st.sampled_from([*names, ""])))
    _read(tmp_path, model.SerializeToString())
