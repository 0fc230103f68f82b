"""The cache: what it finds, what it refuses, and that a stopped training loses nothing."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnnmcu.data import Dataset
from bnnmcu.errors import DataError, ModelFileError, StoreError
from bnnmcu.modelfile import read_model, write_model
from bnnmcu.paper import recipes, trained
from bnnmcu.paper.recipes import Trainable
from bnnmcu.paper.trained import Cache, Trained, default_folder
from bnnmcu.store.lock import Holder

torch = pytest.importorskip("torch", reason="torch is not installed")

from bnnmcu.nn.training import save_net, train  # noqa: E402

B4 = Trainable("B", 4)


def _two_epochs(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(recipes, "_EPOCHS", {"mnist": 2, "cifar10": 2})
    patch.setattr(recipes, "_BEST_CLEAN_EPOCHS", dict.fromkeys("ABCS", 2))
    patch.setattr(recipes, "_PAPER_CLEAN_EPOCHS", dict.fromkeys("ABCS", 2))


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two epochs are enough; the files are those of the recipes with so many."""
    _two_epochs(monkeypatch)
    monkeypatch.setattr(trained, "_POLL_SECONDS", 0.02)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _noise(seed: int = 0, name: str = "noise") -> Dataset:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (256, 28, 28, 1), dtype=np.uint8)
    return Dataset(name, images, rng.integers(0, 10, 256).astype(np.int64))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trained]:
    """A folder with one trained network; read only."""
    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        _two_epochs(patch)
        return folder, Cache(folder, _noise()).get(B4)


def test_trained_once_and_then_found(kept: tuple[Path, Trained]) -> None:
    folder, made = kept
    cache = Cache(folder, _noise())
    assert cache.find(B4) == made == cache.get(B4, progress=pytest.fail)
    assert made.path.name.startswith("B4-clean-best-1-")
    assert made.epochs == 2
    assert made.device == "cpu"
    assert made.seconds is not None
    assert 0 < made.seconds < 60
    names = sorted(path.name for path in folder.iterdir())
    assert names == [made.path.with_suffix(".json").name, made.path.name], "nothing is left over"
    manifest = read_model(made.path).manifest
    assert manifest["training"]["data_sha256"] == _noise().sha256()
    # Neither another network nor other images, of whatever name, are found there.
    assert cache.find(Trainable("B", 4, seed=2)) is None
    assert cache.find(Trainable("B", 4, recipe="paper")) is None
    assert Cache(folder, _noise(1)).find(B4) is None
    assert Cache(folder, _noise(0, "other name")).find(B4) == made


class _Killed(BaseException):
    pass


def test_a_killed_training_goes_on_to_the_same_bytes(
    kept: tuple[Path, Trained], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path, _noise())

    def killed_in_the_second_epoch(report: Any) -> None:
        if report.epoch == 2:
            raise _Killed

    with pytest.raises(_Killed):
        cache.get(B4, killed_in_the_second_epoch)
    assert cache.find(B4) is None
    assert not cache.is_training(B4), "the lock goes with whoever held it"
    with monkeypatch.context() as patch:  # after the last epoch
        patch.setattr("bnnmcu.nn.training.save_net", _raise_killed)
        with pytest.raises(_Killed):
            cache.get(B4)
    assert cache.find(B4) is None
    epochs: list[int] = []
    told: list[str] = []
    made = cache.get(B4, lambda report: epochs.append(report.epoch), announce=told.append)
    assert epochs == [], "both epochs were done"
    assert len(told) == 1
    assert "going on from" in told[0]
    assert made.sha256 == kept[1].sha256
    assert made.seconds is not None
    assert made.seconds > 0


def _raise_killed(*args: Any, **others: Any) -> None:
    raise _Killed


def _copied(kept: tuple[Path, Trained], folder: Path) -> Path:
    shutil.copytree(kept[0], folder, dirs_exist_ok=True)
    return folder / kept[1].path.name


def _edit_manifest(path: Path, **training: Any) -> None:
    model = read_model(path)
    entries = {**model.manifest["training"], **training}
    given = {name: value for name, value in entries.items() if value is not None}
    write_model(path, {**model.manifest, "training": given}, model.tensors)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("cut short", "corrupt or cut short"),
        ("other weights", "not the one that was written"),
        ("other network", "holds another network"),
        ("other rate", "trained otherwise: learning_rate 0.5"),
        ("unknown setting", "trained otherwise: dropout 0.5"),
        ("no digest", "does not say that it was trained on these images"),
        ("other digest", "does not say that it was trained on these images"),
        ("no training", "does not say how"),
    ],
)
def test_a_file_that_is_not_the_one_is_refused(
    case: str, message: str, kept: tuple[Path, Trained], tmp_path: Path
) -> None:
    path = _copied(kept, tmp_path)
    model = read_model(path)
    if case == "cut short":
        path.write_bytes(path.read_bytes()[:-1])
    elif case == "other weights":
        changed = {**model.tensors, "norm2.bias": model.tensors["norm2.bias"] + 1}
        write_model(path, model.manifest, changed)
    elif case == "other network":
        network = {**model.manifest["network"], "filters": 5}
        write_model(path, {**model.manifest, "network": network}, model.tensors)
    elif case == "no training":
        write_model(path, {**model.manifest, "training": 3}, model.tensors)
    else:
        entry: dict[str, Any] = {
            "other rate": {"learning_rate": 0.5},
            "unknown setting": {"dropout": 0.5},
            "no digest": {"data_sha256": None},
            "other digest": {"data_sha256": "0" * 64},
        }[case]
        _edit_manifest(path, **entry)
    with pytest.raises(ModelFileError, match=message) as refused:
        Cache(tmp_path, _noise()).find(B4)
    assert refused.value.where == str(path)
    assert "to train it again" in str(refused.value.hint)


@pytest.mark.parametrize(
    "change",
    [
        {"seconds": "1"},
        {"seconds": -1.0},
        {"seconds": True},
        {"seconds": float("nan")},
        {"digest": "0" * 64},
        {"digest": 3},
        {"model_sha256": "x"},
        {"device": "tpu"},
        {"device": [1]},
        {"adopted": 0},
        {"more": 1},
        {"version": 2},
    ],
    ids=str,
)
def test_a_receipt_is_not_believed(
    change: dict[str, Any], kept: tuple[Path, Trained], tmp_path: Path
) -> None:
    path = _copied(kept, tmp_path).with_suffix(".json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelFileError, match="not the receipt of this training"):
        Cache(tmp_path, _noise()).find(B4)
    for raw in (b"", b"[" * 4000, b"x" * 5000, b"[]"):
        path.write_bytes(raw)
        with pytest.raises(ModelFileError, match="not the receipt of this training"):
            Cache(tmp_path, _noise()).find(B4)
    path.unlink()
    found = Cache(tmp_path, _noise()).find(B4)
    assert found is not None
    assert (found.seconds, found.device) == (None, None), "without it, only these are not known"


def _old_file(path: Path, trainable: Trainable, data: Dataset) -> None:
    """As written before manifests held the digest of the images."""
    training = trainable.training()
    net = train(trainable.network(), training, data)
    said = {"data": "all", "data_name": data.name, **training.to_dict()}
    save_net(path, net, training=said)


def test_adoption(kept: tuple[Path, Trained], tmp_path: Path) -> None:
    source, data = tmp_path / "old.pt", _noise()
    _old_file(source, B4, data)
    before = source.read_bytes()
    cache = Cache(tmp_path / "cache", data)
    for trainable, images, error, message in (
        (Trainable("B", 5), data, ModelFileError, "holds another network than B5"),
        (Trainable("B", 4, recipe="paper"), data, ModelFileError, "another network than B4 of"),
        (Trainable("B", 4, seed=2), data, ModelFileError, "seed 1, not 2"),
        (Trainable("B", 4, "pgd20-long"), data, ModelFileError, "adversarial None, not"),
        (B4, _noise(0, "other"), DataError, "was trained on 'noise'"),
    ):
        with pytest.raises(error, match=message):
            Cache(tmp_path / "cache", images).adopt(trainable, source)
    assert not cache.folder.exists()
    adopted = cache.adopt(B4, source, seconds=12.5)
    assert source.read_bytes() == before
    assert adopted.seconds == 12.5
    assert cache.find(B4) == adopted
    model, same = read_model(adopted.path), read_model(kept[1].path)
    assert all(np.array_equal(model.tensors[name], same.tensors[name]) for name in same.tensors)
    # A file that names its images is held to them.
    digested = tmp_path / "digested.safetensors"
    shutil.copy(kept[1].path, digested)
    with pytest.raises(DataError, match="not on these images"):
        Cache(tmp_path / "b", _noise(1)).adopt(B4, digested)
    assert Cache(tmp_path / "b", data).adopt(B4, digested).sha256 == kept[1].sha256


def test_adopted_tensors_must_fit(kept: tuple[Path, Trained], tmp_path: Path) -> None:
    model = read_model(kept[1].path)
    source = tmp_path / "x.safetensors"
    write_model(source, model.manifest, {**model.tensors, "dense.weight": np.zeros((10, 9))})
    with pytest.raises(ModelFileError, match="tensors do not fit"):
        Cache(tmp_path / "cache", _noise()).adopt(B4, source)


def test_two_do_not_train_the_same(kept: tuple[Path, Trained], tmp_path: Path) -> None:
    cache = Cache(tmp_path, _noise())
    holder = Holder(cache.path(B4))
    assert cache.is_training(B4)
    with pytest.raises(StoreError, match="trains this network now"):
        cache.adopt(B4, kept[1].path)
    told: list[str] = []
    found: list[Trained] = []
    waits = threading.Event()

    def tell(text: str) -> None:
        told.append(text)
        waits.set()

    thread = threading.Thread(
        target=lambda: found.append(cache.get(B4, pytest.fail, announce=tell)), daemon=True
    )
    thread.start()
    assert waits.wait(20)
    _copied(kept, tmp_path)  # the other one finishes ...
    holder.release()  # ... and goes
    thread.join(20)
    assert found == [cache.find(B4)]
    assert found[0].sha256 == kept[1].sha256
    assert len(told) == 1
    assert "is being trained by pid" in told[0]


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be made"):
        Cache(tmp_path / "file" / "x", _noise()).get(B4)


@pytest.mark.parametrize(("value", "used"), [("/var/own", True), ("own", False), ("", False)])
def test_the_default_folder(value: str, used: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    base = Path(value) if used else Path.home() / ".cache"
    assert default_folder() == base / "bnnmcu" / "paper"
