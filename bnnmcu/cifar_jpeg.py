"""CIFAR-10 as JPEG files, one a picture: ``train|test/CLASS/NNNN.jpg``, as a folder or a tar file.

JPEG changes pixels, so that this is a copy of CIFAR-10 and not the data set: what
is measured on it must say so.  Decoders may differ in the last bit; the SHA-256
of the decoded images tells which ones a result is of.

Nothing of a file is believed: names, counts, sizes and formats are checked, and
an archive may not unpack to more than a few times what the real one does.
"""

from __future__ import annotations

import gzip
import io
import lzma
import re
import struct
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from bnnmcu.errors import DataError, MissingDependencyError

__all__ = ["CLASSES", "is_jpeg_copy", "read_jpeg_copy"]

#: In the order of CIFAR-10's labels.
CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_PER_CLASS = {"train": 5000, "test": 1000}
_SIDE = 32
_ARCHIVE = "cifar10-jpeg.tar.xz"
_SUFFIXES = (".tar", ".tar.xz", ".tar.gz")
# A 32 x 32 picture as JPEG takes about 1 KiB, at the best quality less than 8.
_MAX_FILE = 16 * 1024
# 60,000 files of two or three blocks are 100 MB.
_MAX_ARCHIVE = 256 * 1024 * 1024
_NAME = re.compile(r"(?:\./)?(train|test)/([a-z]{3,10})/(\d{4})\.jpg\Z")

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


def is_jpeg_copy(path: Path) -> bool:
    """Whether a path looks like such a folder or archive; its content is not read."""
    if path.is_file():
        return path.name.endswith(_SUFFIXES)
    return (path / "test" / CLASSES[0]).is_dir() or (path / _ARCHIVE).is_file()


class _Bounded(io.RawIOBase):
    """A stream that ends in an error where an archive grows beyond all reason."""

    def __init__(self, inner: IO[bytes]) -> None:
        self._inner = inner
        self._left = _MAX_ARCHIVE

    def read(self, size: int = -1) -> bytes:
        raw = self._inner.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(raw)
        if self._left < 0:
            raise DataError(f"unpacks to more than {_MAX_ARCHIVE >> 20} MiB")
        return raw


def _members(path: Path, split: str) -> Iterator[tuple[str, int, bytes]]:
    """(class, number, file) of an archive's pictures of one split; all names are checked."""
    openers: dict[str, Any] = {".xz": lzma.open, ".gz": gzip.open}
    with openers.get(path.suffix, open)(path, "rb") as packed:
        bounded = _Bounded(packed)
        with tarfile.open(fileobj=bounded, mode="r|") as archive:
            yield from _pictures(archive, split)
        # To the very end, where the checksums are.
        while bounded.read(1 << 20):
            pass


def _pictures(archive: tarfile.TarFile, split: str) -> Iterator[tuple[str, int, bytes]]:
    """As :func:`_members`."""
    for member in archive:
        if member.isdir():
            continue
        found = _NAME.match(member.name)
        if not found or found[2] not in CLASSES or not member.isreg():
            raise DataError(f"{member.name[:80]!r} is no file of train|test/CLASS/NNNN.jpg")
        if member.size > _MAX_FILE:
            raise DataError(f"{member.name} has {member.size} bytes, too many for its pixels")
        if found[1] == split:
            stream = archive.extractfile(member)
            assert stream is not None
            yield found[2], int(found[3]), stream.read()


def _files(folder: Path, split: str) -> Iterator[tuple[str, int, bytes]]:
    """(class, number, file) of a folder's pictures of one split."""
    for name in CLASSES:
        for path in sorted((folder / split / name).iterdir()):
            found = _NAME.match(f"{split}/{name}/{path.name}")
            if not found or not path.is_file():
                raise DataError(f"{path.name[:80]!r} in {split}/{name} is no file NNNN.jpg")
            with path.open("rb") as stream:
                raw = stream.read(_MAX_FILE + 1)
            if len(raw) > _MAX_FILE:
                raise DataError(f"{split}/{name}/{path.name} is too long for its pixels")
            yield name, int(found[3]), raw


def _decoded(raw: bytes, what: str) -> Images:
    """uint8 (32, 32, 3) of a JPEG file."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(raw), formats=("JPEG",)) as image:
            # Known from the header, before any pixel is decoded.
            if image.size != (_SIDE, _SIDE) or image.mode != "RGB":
                raise DataError(f"{what} is {image.size} {image.mode}, not 32 x 32 in colour")
            return np.asarray(image)
    except (
        OSError,
        ValueError,
        SyntaxError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:
        raise DataError(f"{what} is no sound JPEG file: {error}") from error


def read_jpeg_copy(path: Path, split: str) -> tuple[Images, Labels]:
    """All pictures of one split, the classes in turn: 0000 of each class, then 0001.

    So a prefix holds all classes alike, though the files lie class by class.

    Args:
        path: the folder, the archive, or the folder that holds the archive.
        split: ``"train"`` (50,000 pictures) or ``"test"`` (10,000).

    Returns:
        uint8 (N, 32, 32, 3) and int64 (N,).

    Raises:
        DataError: something is missing, damaged, or should not be there.
        MissingDependencyError: Pillow is not installed.
    """
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "JPEG files are read by Pillow, which is not installed",
            where=str(path),
            hint="pip install 'bnnmcu[paper]'",
        ) from error
    if path.is_dir() and not (path / "test" / CLASSES[0]).is_dir():
        path = path / _ARCHIVE
    count = _PER_CLASS[split]
    images: Images = np.zeros((count * len(CLASSES), _SIDE, _SIDE, 3), dtype=np.uint8)
    seen = np.zeros(len(images), dtype=np.bool_)
    try:
        for name, number, raw in (_files if path.is_dir() else _members)(path, split):
            what = f"{split}/{name}/{number:04d}.jpg"
            place = number * len(CLASSES) + CLASSES.index(name)
            if number >= count or seen[place]:
                raise DataError(f"{what} is there twice, or one too many")
            images[place] = _decoded(raw, what)
            seen[place] = True
    except DataError as error:
        raise DataError(error.what, where=str(path)) from error
    except (OSError, EOFError, lzma.LZMAError, zlib.error, tarfile.TarError, ValueError) as error:
        # ValueError: a header's number that is none.
        raise DataError(f"cannot be read: {error}", where=str(path)) from error
    if not seen.all():
        raise DataError(
            f"{np.count_nonzero(~seen)} of {len(seen)} pictures of {split} are missing",
            where=str(path),
        )
    return images, np.tile(np.arange(len(CLASSES), dtype=np.int64), count)
