"""CIFAR-10 as JPEG files: order, folder and archive alike, and all that is refused."""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnnmcu import cifar_jpeg
from bnnmcu.cifar_jpeg import CLASSES
from bnnmcu.data import load_dataset
from bnnmcu.errors import DataError, MissingDependencyError

pytest.importorskip("PIL", reason="Pillow is not installed")
from PIL import Image

_COUNTS = {"train": 3, "test": 2}


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar_jpeg, "_PER_CLASS", _COUNTS)


def _colour(split: str, label: int, number: int) -> tuple[int, int, int]:
    return (20 * label + 10, 60 * number + 20, 40 if split == "train" else 200)


def _jpeg(
    colour: tuple[int, int, int], size: tuple[int, int] = (32, 32), mode: str = "RGB"
) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).convert(mode).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def _pictures() -> dict[str, bytes]:
    return {
        f"{split}/{name}/{number:04d}.jpg": _jpeg(_colour(split, label, number))
        for split, count in _COUNTS.items()
        for label, name in enumerate(CLASSES)
        for number in range(count)
    }


def _tar(path: Path, files: dict[str, bytes], *more: tarfile.TarInfo) -> None:
    kind = {".xz": "w:xz", ".gz": "w:gz"}.get(path.suffix, "w")
    with tarfile.open(path, kind) as archive:  # type: ignore[call-overload]
        folder = tarfile.TarInfo("train/airplane/")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, raw in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
        for info in more:
            archive.addfile(info)


def _folder(path: Path, files: dict[str, bytes]) -> None:
    for name, raw in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(raw)


@pytest.mark.parametrize("form", ["folder", "c.tar", "c.tar.xz", "c.tar.gz", "folder of it"])
def test_forms(form: str, tmp_path: Path) -> None:
    source = tmp_path / form
    if form == "folder":
        _folder(source, _pictures())
    elif form == "folder of it":
        source.mkdir()
        _tar(source / "cifar10-jpeg.tar.xz", _pictures())
    else:
        _tar(source, _pictures())
    for split, count in _COUNTS.items():
        data = load_dataset(f"{source}:{split}")
        assert data.name == f"CIFAR-10 {split} (JPEG copy)"
        assert data.images.shape == (10 * count, 32, 32, 3)
        assert data.labels.tolist() == list(range(10)) * count, "the classes in turn"
        for index, image in enumerate(data.images):
            wanted = _colour(split, index % 10, index // 10)
            assert np.abs(image.astype(int) - wanted).max() <= 3, "but for what JPEG changes"
    assert load_dataset(str(source)).name == "CIFAR-10 test (JPEG copy)"


_ONE = "test/cat/0001.jpg"
_SOUND = _jpeg((1, 2, 3))
_BROKEN: dict[str, tuple[dict[str, bytes | None], str]] = {
    "missing": ({_ONE: None}, "1 of 20 pictures of test are missing"),
    "one too many": ({"test/cat/0002.jpg": _SOUND}, "one too many"),
    "cut short": ({_ONE: _SOUND[: len(_SOUND) // 2]}, "no sound JPEG"),
    "no JPEG": ({_ONE: b"junk"}, "no sound JPEG"),
    "empty": ({_ONE: b""}, "no sound JPEG"),
    "another format": ({_ONE: b"GIF89a" + bytes(20)}, "no sound JPEG"),
    "larger": ({_ONE: _jpeg((1, 2, 3), (64, 32))}, "not 32 x 32"),
    "grey": ({_ONE: _jpeg((1, 2, 3), mode="L")}, "not 32 x 32 in colour"),
    "far too long": ({_ONE: _SOUND + bytes(20_000)}, "too (many|long) for its pixels"),
    "no number": ({"test/cat/x.jpg": _SOUND}, "is no file"),
}


@pytest.mark.parametrize("archive", [False, True])
@pytest.mark.parametrize("case", _BROKEN)
def test_broken_pictures(case: str, archive: bool, tmp_path: Path) -> None:
    change, message = _BROKEN[case]
    files = {name: raw for name, raw in {**_pictures(), **change}.items() if raw is not None}
    source = tmp_path / ("x.tar" if archive else "x")
    (_tar if archive else _folder)(source, files)
    with pytest.raises(DataError, match=message) as refused:
        load_dataset(f"{source}:test")
    assert refused.value.where == str(source)


def _entry(name: str, kind: bytes = tarfile.REGTYPE, **others: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in others.items():
        setattr(info, field, value)
    return info


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (_entry("../test/cat/0001.jpg"), "is no file"),
        (_entry("/test/cat/0001.jpg"), "is no file"),
        (_entry("test/cat/0001.jpg/x"), "is no file"),
        (_entry("test/lion/0001.jpg"), "is no file"),
        (_entry("README"), "is no file"),
        (_entry("test/cat/0001.jpg", tarfile.SYMTYPE, linkname="/etc/passwd"), "is no file"),
        (_entry("test/cat/0001.jpg", tarfile.FIFOTYPE), "is no file"),
        (_entry("test/cat/0001.jpg", pax_headers={"comment": "x" * 40_000}), "unpacks to more"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_hostile_archives(
    entry: tarfile.TarInfo, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.tar.xz"
    files = _pictures()
    if message == "unpacks to more":
        monkeypatch.setattr(cifar_jpeg, "_MAX_ARCHIVE", 30_000)
        files = {}
    _tar(path, files, entry)
    with pytest.raises(DataError, match=message):
        load_dataset(f"{path}:test")


def test_twice_and_cut_archives(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    _tar(path, _pictures(), _entry("test/cat/0001.jpg"))
    with pytest.raises(DataError, match="there twice"):
        load_dataset(f"{path}:test")
    path = tmp_path / "x.tar.xz"
    _tar(path, _pictures())
    whole = path.read_bytes()
    for raw in (b"", b"junk", whole[: len(whole) // 2], whole[:-1], bytes(2000)):
        path.write_bytes(raw)
        with pytest.raises(DataError, match=r"cannot be read|are missing"):
            load_dataset(f"{path}:test")


def test_without_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.tar"
    _tar(path, _pictures())
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingDependencyError, match="Pillow"):
        load_dataset(f"{path}:test")
