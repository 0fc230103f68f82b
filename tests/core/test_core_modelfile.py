"""Model files: nothing in them is run, nothing broken gets through, nothing is half-written."""

from __future__ import annotations

import json
import os
import pickle
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnnmcu.errors import ModelFileError, UsageError
from bnnmcu.modelfile import FORMAT, ModelFile, atomic_write, read_model, write_model

torch = pytest.importorskip("torch", reason="torch is not installed")

_MANIFEST = {"architecture": "paper", "network": {"kind": "B", "filters": 2}}
_HEAD = json.dumps({"format": FORMAT, "version": 1})


def _tensors() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "a.weight": rng.normal(size=(2, 3, 4)).astype(np.float32),
        "b.value": np.array(0.25, dtype=np.float32),
        "c": rng.normal(size=7),
    }


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_round_trip(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / "deep" / f"model{suffix}"
    write_model(path, _MANIFEST, _tensors())
    model = read_model(path)
    assert isinstance(model, ModelFile)
    assert model.manifest == {**_MANIFEST, "format": FORMAT, "version": 1}
    assert model.tensors.keys() == _tensors().keys()
    for name, array in _tensors().items():
        assert model.tensors[name].dtype == array.dtype
        assert np.array_equal(model.tensors[name], array)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_float_types_lose_nothing(dtype: str, tmp_path: Path) -> None:
    values = torch.tensor([1.5, -0.25, 3.0], dtype=getattr(torch, dtype))
    path = _torch_file(tmp_path, {"manifest": _HEAD, "state_dict": {"w": values}})
    assert read_model(path).tensors["w"].tolist() == [1.5, -0.25, 3.0]


def test_a_channels_last_tensor_is_read_in_order(tmp_path: Path) -> None:
    values = torch.arange(24.0).reshape(1, 2, 3, 4)
    turned = values.to(memory_format=torch.channels_last)
    path = _torch_file(tmp_path, {"manifest": _HEAD, "state_dict": {"w": turned}})
    assert np.array_equal(read_model(path).tensors["w"], values.numpy())


def _torch_file(folder: Path, content: Any, **more: Any) -> Path:
    path = folder / "x.pt"
    torch.save(content, path, **more)
    return path


class _Payload:
    """A pickle that creates a file when it is loaded without restrictions."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize("where", ["whole", "manifest", "tensor", "extra", "legacy", "plain"])
def test_a_pickle_is_never_run(where: str, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    payload = _Payload(ran)
    content: Any = {"manifest": _HEAD, "state_dict": {"w": torch.zeros(1)}}
    if where in ("whole", "plain"):
        content = payload
    elif where in ("manifest", "extra"):
        content[where] = payload
    else:
        content["state_dict"]["w"] = payload
    path = tmp_path / "x.pt"
    if where == "plain":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=where != "legacy")
    with pytest.raises(ModelFileError, match="could run code"):
        read_model(path)
    assert not ran.exists(), "the payload was run"
    # The payload works: without the restriction it would have been run.
    if where == "plain":
        pickle.loads(path.read_bytes())
        assert ran.exists()


def test_suffixes(tmp_path: Path) -> None:
    good = tmp_path / "good.pt"
    write_model(good, _MANIFEST, _tensors())
    for name, words in (
        ("x.pt2", "pt2 archives are refused"),
        ("x.pth", "unknown kind"),
        ("x.onnx", "unknown kind"),
        ("x", "unknown kind"),
    ):
        path = tmp_path / name
        path.write_bytes(good.read_bytes())
        with pytest.raises(ModelFileError, match=words):
            read_model(path)
        with pytest.raises(ModelFileError, match="cannot write"):
            write_model(path, _MANIFEST, _tensors())
    for name in ("none.pt", "none.safetensors"):
        with pytest.raises(ModelFileError, match="no such file"):
            read_model(tmp_path / name)
    (tmp_path / "dir.pt").mkdir()
    with pytest.raises(ModelFileError, match="no such file"):
        read_model(tmp_path / "dir.pt")


def _state(**tensors: Any) -> dict[str, Any]:
    return {"manifest": _HEAD, "state_dict": tensors}


_UNSOUND: dict[str, tuple[Callable[[], Any], str]] = {
    "bare state dict": (lambda: {"w": torch.zeros(1)}, "no manifest"),
    "tensor": (lambda: torch.zeros(3), "no manifest"),
    "list": (lambda: [1, 2], "no manifest"),
    "no tensors": (lambda: {"manifest": _HEAD}, "no manifest and state_dict"),
    "manifest of bytes": (lambda: {"manifest": b"{}", "state_dict": {}}, "wrong type"),
    "state of a list": (lambda: {"manifest": _HEAD, "state_dict": [1]}, "wrong type"),
    "number for a tensor": (lambda: _state(w=3.0), "is not a tensor"),
    "numbered tensor": (
        lambda: {"manifest": _HEAD, "state_dict": {1: torch.zeros(1)}}, "1 is not a tensor"),
    "int tensor": (lambda: _state(w=torch.zeros(2, dtype=torch.int64)), "torch.int64"),
    "bool tensor": (lambda: _state(w=torch.zeros(2, dtype=torch.bool)), "torch.bool"),
    "complex tensor": (lambda: _state(w=torch.zeros(2, dtype=torch.complex64)), "complex64"),
    "sparse tensor": (lambda: _state(w=torch.eye(3).to_sparse()), "not a dense"),
    "meta tensor": (lambda: _state(w=torch.zeros(3, device="meta")), "not a dense"),
    "huge tensor in few bytes": (
        lambda: _state(w=torch.zeros(1).expand(1 << 40)), "more values than the file holds"),
    "nan": (lambda: _state(w=torch.tensor([1.0, float("nan")])), "'w' has 1 NaN"),
    "infinite": (lambda: _state(w=torch.tensor([float("inf")] * 3)), "'w' has 3 NaN or infinite"),
    "no json": (lambda: {"manifest": "{", "state_dict": {}}, "not JSON"),
    "deep json": (lambda: {"manifest": "[" * 100_000, "state_dict": {}}, "not JSON"),
    "json list": (lambda: {"manifest": "[]", "state_dict": {}}, "not of format"),
    "other format": (lambda: {"manifest": '{"format": "x"}', "state_dict": {}}, "not of format"),
    "no version": (
        lambda: {"manifest": json.dumps({"format": FORMAT}), "state_dict": {}}, "version None"),
    "next version": (
        lambda: {"manifest": json.dumps({"format": FORMAT, "version": 2}), "state_dict": {}},
        "version 2"),
}  # fmt: skip


@pytest.mark.parametrize("case", _UNSOUND)
def test_unsound_torch_files(case: str, tmp_path: Path) -> None:
    make, words = _UNSOUND[case]
    path = _torch_file(tmp_path, make())
    with pytest.raises(ModelFileError) as caught:
        read_model(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def _cuts(size: int) -> list[int]:
    return sorted({0, 1, 2, 4, 7, 8, 9, 30, 64, 100, size // 3, size // 2, size - 30, size - 1})


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_truncated_files(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    write_model(path, _MANIFEST, _tensors())
    whole = path.read_bytes()
    for cut in _cuts(len(whole)):
        path.write_bytes(whole[:cut])
        with pytest.raises(ModelFileError):
            read_model(path)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_random_bytes(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    rng = np.random.default_rng(0)
    for i in range(150):
        raw = rng.bytes(int(rng.integers(1, 80)))
        if suffix == ".pt":
            head = (b"", b"\x80\x02", b"PK\x03\x04")[i % 3]
        else:
            head = (b"", struct.pack("<Q", 40) + b"{", struct.pack("<Q", 1 << 62))[i % 3]
        path.write_bytes(head + raw)
        with pytest.raises(ModelFileError):
            read_model(path)


def test_flipped_bytes_are_refused_or_harmless(tmp_path: Path) -> None:
    """A damaged archive is refused, or what is read has the checked form."""
    path = tmp_path / "x.pt"
    write_model(path, _MANIFEST, _tensors())
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(120):
        raw = bytearray(whole)
        raw[int(rng.integers(len(raw)))] ^= int(rng.integers(1, 256))
        path.write_bytes(raw)
        try:
            model = read_model(path)
        except ModelFileError:
            refused += 1
        else:
            assert all(np.isfinite(tensor).all() for tensor in model.tensors.values())
    assert refused


def test_zip_that_is_no_torch_file(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", b"junk")
    with pytest.raises(ModelFileError):
        read_model(path)


def _safetensors(header: Any, data: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def _entry(dtype: str, shape: list[int], size: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}


_UNSOUND_SAFETENSORS = {
    "no manifest": _safetensors({"w": _entry("F32", [1], 4)}, bytes(4)),
    "int tensor": _safetensors(
        {"__metadata__": {"manifest": _HEAD}, "w": _entry("I32", [1], 4)}, bytes(4)),
    "bfloat16": _safetensors(
        {"__metadata__": {"manifest": _HEAD}, "w": _entry("BF16", [2], 4)}, bytes(4)),
    "float8": _safetensors(
        {"__metadata__": {"manifest": _HEAD}, "w": _entry("F8_E4M3", [4], 4)}, bytes(4)),
    "nan": _safetensors(
        {"__metadata__": {"manifest": _HEAD}, "w": _entry("F32", [1], 4)}, b"\xff" * 4),
    "shape beyond the data": _safetensors(
        {"__metadata__": {"manifest": _HEAD}, "w": _entry("F32", [1 << 40], 4)}, bytes(4)),
    "unknown type": _safetensors(
        {"__metadata__": {"manifest": _HEAD}, "w": _entry("X9", [1], 4)}, bytes(4)),
    "header is a list": _safetensors([1]),
    "manifest is a number": _safetensors({"__metadata__": {"manifest": 3}}),
    "manifest is no json": _safetensors({"__metadata__": {"manifest": "{"}}),
    "deep header": _safetensors(b"[" * 100_000),
}  # fmt: skip


@pytest.mark.parametrize("case", _UNSOUND_SAFETENSORS)
def test_unsound_safetensors(case: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(_UNSOUND_SAFETENSORS[case])
    with pytest.raises(ModelFileError):
        read_model(path)


@pytest.mark.parametrize("fails", ["fsync", "replace", "chmod"])
def test_a_failed_write_leaves_the_old_file(
    fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.bin"
    atomic_write(path, b"old")

    def broken(*args: Any, **more: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os if fails == "fsync" else Path, fails, broken)
    with pytest.raises(OSError, match="disk full"):
        atomic_write(path, b"new and longer")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["x.bin"], "a temporary file was left"
    atomic_write(path, b"new")
    assert path.read_bytes() == b"new"


def test_an_interrupt_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.bin"
    atomic_write(path, b"old")

    def interrupted(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(os.name == "nt", reason="no FIFOs, and links are for administrators")
def test_only_files_are_replaced(tmp_path: Path) -> None:
    far = tmp_path / "far"
    far.mkdir()
    os.mkfifo(far / "fifo")
    for name in ("x", "fifo", "missing"):
        (tmp_path / name).symlink_to(Path("far", name))
    (tmp_path / "round").symlink_to("round")
    (far / "x").write_bytes(b"old")
    for path in (tmp_path / "fifo", far / "fifo"):
        with pytest.raises(UsageError, match=r"is a pipe \(FIFO\), not a file") as caught:
            atomic_write(path, b"new")
        assert caught.value.where == str(path)
    with pytest.raises(UsageError, match="is a folder, not a file"):
        atomic_write(far, b"new")
    with pytest.raises(OSError, match="symbolic links") as refused:
        atomic_write(tmp_path / "round", b"new")
    assert refused.value.filename == str(tmp_path / "round")
    for name in ("x", "missing"):
        atomic_write(tmp_path / name, b"new")
        assert (far / name).read_bytes() == b"new"
    assert sorted(file.name for file in far.iterdir()) == ["fifo", "missing", "x"]
    assert stat.S_ISFIFO(os.lstat(far / "fifo").st_mode)
    assert all(file.is_symlink() for file in tmp_path.iterdir() if file != far)


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_files_are_as_readable_as_any_other(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        atomic_write(tmp_path / "x", b"")
        (tmp_path / "y").touch()
    finally:
        os.umask(old)
    modes = {(tmp_path / name).stat().st_mode & 0o777 for name in "xy"}
    assert modes == {0o640}


def test_written_models_do_not_depend_on_the_order_of_the_manifest(tmp_path: Path) -> None:
    write_model(tmp_path / "a.safetensors", {"x": 1, "y": 2}, _tensors())
    write_model(tmp_path / "b.safetensors", {"y": 2, "x": 1}, _tensors())
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_view_is_written_without_what_lies_around_it(suffix: str, tmp_path: Path) -> None:
    base = np.arange(1_000_000, dtype=np.float32)
    path = tmp_path / f"x{suffix}"
    write_model(path, _MANIFEST, {"w": base[3:13], "turned": base[:6].reshape(2, 3).T})
    assert path.stat().st_size < 10_000
    assert read_model(path).tensors["w"].tolist() == list(range(3, 13))
    assert read_model(path).tensors["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]
