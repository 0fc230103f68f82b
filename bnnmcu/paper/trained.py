"""Trained networks of the paper, kept in a folder by what decides their weights.

A network is ``KEY-DIGEST.safetensors``, its name and the first digits of
:meth:`Trainable.digest`; beside it lies ``KEY-DIGEST.json`` with what the weights
do not tell: the core-seconds, the device.  While it is trained there are a
checkpoint, written after each epoch, and a lock, which goes with its process.

A file is used only if its manifest names exactly the network, the training and
the images that are asked for, and if it is the one that was written; the name
alone proves nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bnnmcu.data import Dataset
from bnnmcu.errors import DataError, MissingDependencyError, ModelFileError, StoreError
from bnnmcu.modelfile import ModelFile, read_model, write_model
from bnnmcu.nn.config import PaperConfig
from bnnmcu.nn.training_config import EpochReport
from bnnmcu.paper.receipt import Receipt
from bnnmcu.paper.recipes import Trainable
from bnnmcu.store.lock import Holder, holder_of, is_held

__all__ = ["Cache", "Trained", "default_folder"]

# Entries of a manifest's "training" that are of the images, not of the training.
_OF_DATA = ("data", "data_name", "data_sha256")
_DIGITS = 12
_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Trained:
    """A trained network in a file.

    Attributes:
        path: the model file.
        sha256: of the file, in hex.
        seconds: core-seconds that its training took, all sittings together (on a
            GPU: seconds by the clock), without epochs that were cut off; None if
            nobody wrote them down.
        epochs: that it was trained for.
        device: ``cpu`` or ``cuda``; None if nobody wrote it down.
    """

    path: Path
    sha256: str
    seconds: float | None
    epochs: int
    device: str | None = None


def default_folder() -> Path:
    """``$XDG_CACHE_HOME/bnnmcu/paper``, or the same below ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # A relative one is to be ignored (XDG Base Directory Specification).
    folder = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    return folder / "bnnmcu" / "paper"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Cache:
    """A folder of trained networks, all trained on the same images.

    Args:
        folder: made when the first network is trained.
        data: the training images.
        device: of the trainings, ``cpu`` or ``cuda``; no part of what is looked for.
    """

    def __init__(self, folder: Path, data: Dataset, *, device: str = "cpu") -> None:
        self.folder = folder
        self.data = data
        self.device = device

    @cached_property
    def _data_sha256(self) -> str:
        return self.data.sha256()

    def path(self, trainable: Trainable) -> Path:
        """Where the model file of a network is, or would be."""
        digest = trainable.digest(self._data_sha256)
        return self.folder / f"{trainable.key}-{digest[:_DIGITS]}.safetensors"

    def is_training(self, trainable: Trainable) -> bool:
        """Whether a process trains this network now."""
        return is_held(self.path(trainable))

    def find(self, trainable: Trainable) -> Trained | None:
        """The network if it is there and says that it is the one.

        Raises:
            ModelFileError: a file of its name is damaged, was changed, or is of
                another network, training or data set.
        """
        path = self.path(trainable)
        if not path.is_file():
            return None
        hint = f"remove {path} to train it again"
        try:
            model = read_model(path)
        except ModelFileError as error:
            raise ModelFileError(error.what, where=str(path), hint=hint) from error
        wrong = self._difference(trainable, model)
        if wrong is None and _data_entry(model) != self._data_sha256:
            wrong = "it does not say that it was trained on these images"
        if wrong:
            raise ModelFileError(wrong, where=str(path), hint=hint)
        sha256 = _sha256(path)
        receipt = Receipt.read(path.with_suffix(".json"), trainable.digest(self._data_sha256))
        if receipt is not None and receipt.model_sha256 != sha256:
            raise ModelFileError(
                "the file is not the one that was written here", where=str(path), hint=hint
            )
        seconds, device = (receipt.seconds, receipt.device) if receipt else (None, None)
        return Trained(path, sha256, seconds, trainable.training().epochs, device)

    def get(
        self,
        trainable: Trainable,
        progress: Callable[[EpochReport], None] | None = None,
        *,
        announce: Callable[[str], None] | None = None,
    ) -> Trained:
        """The network, trained now if it is not there, or gone on with if it was stopped.

        If another process trains it, its end is waited for.

        Args:
            progress: called every few steps and at the end of each epoch.
            announce: told, as a sentence, of a wait and of a training that goes on.

        Raises:
            DataError: the images do not suit the network.
            MissingDependencyError: torch is not installed.
            ModelFileError: see :meth:`find`; or a checkpoint is damaged, or the
                training diverged.
            StoreError: the folder cannot be written.
            UsageError: there is no such device.
        """
        tell = announce or (lambda text: None)
        if not (found := self.find(trainable)):
            with self._held(trainable, tell):
                # Meanwhile another process may have finished it.
                found = self.find(trainable) or self._train(trainable, progress, tell)
        return found

    def adopt(self, trainable: Trainable, source: Path, *, seconds: float | None = None) -> Trained:
        """Take in a model file that was trained elsewhere.

        Who calls this says that it was trained on these images, where the file
        itself only knows their name: files of before manifests held a digest.

        Args:
            source: written by ``bnnmcu train``; it stays as it is.
            seconds: core-seconds that its training took, if known.

        Raises:
            DataError: it was trained on images of another name or digest.
            ModelFileError: it is unsound, or of another network or training.
            StoreError: a process trains this network now, or the folder cannot be
                written.
        """
        model = read_model(source)
        if wrong := self._difference(trainable, model):
            raise ModelFileError(
                wrong, where=str(source), hint="adopt it as what it is, or train this one"
            )
        said = model.manifest["training"]
        if said.get("data_name") != self.data.name or _data_entry(model) not in (
            None,
            self._data_sha256,
        ):
            raise DataError(
                f"was trained on {said.get('data_name')!r}, not on these images of "
                f"{self.data.name!r}",
                where=str(source),
            )
        _check_tensors(model)
        manifest = {**model.manifest, "training": {**said, "data_sha256": self._data_sha256}}
        with self._held(trainable, None):
            self._keep(
                trainable,
                lambda path: write_model(path, manifest, model.tensors),
                Receipt(trainable.digest(self._data_sha256), "", seconds, None, adopted=True),
            )
            kept = self.find(trainable)
        assert kept is not None
        return kept

    def _difference(self, trainable: Trainable, model: ModelFile) -> str | None:
        """What a manifest says otherwise about network or training; None if nothing."""
        network, training = trainable.network(), trainable.training().to_dict()
        if PaperConfig.from_manifest(model.manifest, str(model.path)) != network:
            return f"holds another network than {network.name} of the recipe {trainable.recipe!r}"
        said = model.manifest.get("training")
        if not isinstance(said, dict):
            return "does not say how it was trained"
        said = {name: value for name, value in said.items() if name not in _OF_DATA}
        for name in sorted(training.keys() | said.keys()):
            if training.get(name) != said.get(name):
                return (
                    f"was trained otherwise: {name} {said.get(name)!r}, "
                    f"not {training.get(name)!r} as {trainable.key}"
                )
        return None

    @contextlib.contextmanager
    def _held(self, trainable: Trainable, tell: Callable[[str], None] | None) -> Iterator[None]:
        """Nobody else trains or writes this network meanwhile.

        Args:
            tell: of a wait; None refuses to wait.
        """
        path = self.path(trainable)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"cannot be made: {error.strerror}",
                where=str(self.folder),
                hint="choose another folder with --cache",
            ) from error
        told = False
        while True:
            try:
                holder = Holder(path)
                break
            except StoreError as error:
                if not is_held(path):
                    raise
                who = holder_of(path) or "another process"
                if tell is None:
                    raise StoreError(
                        f"{who} trains this network now", where=str(path), hint="wait for it"
                    ) from error
                if not told:
                    tell(f"{trainable.key} is being trained by {who}; waiting for it")
                    told = True
                time.sleep(_POLL_SECONDS)
        try:
            yield
        finally:
            holder.release()

    def _train(
        self,
        trainable: Trainable,
        progress: Callable[[EpochReport], None] | None,
        tell: Callable[[str], None],
    ) -> Trained:
        try:
            from bnnmcu.nn.checkpoint import spent_seconds
            from bnnmcu.nn.training import provenance, save_net, train
        except ImportError as error:
            raise MissingDependencyError(
                "training needs torch", hint="pip install 'bnnmcu[train]'"
            ) from error
        training = trainable.training()
        checkpoint = self.path(trainable).with_suffix(".checkpoint")
        if checkpoint.exists():
            tell(f"{trainable.key}: going on from {checkpoint}")
        net = train(
            trainable.network(),
            training,
            self.data,
            checkpoint=checkpoint,
            progress=progress,
            device=self.device,
        )
        spent = spent_seconds(checkpoint)
        digest = trainable.digest(self._data_sha256)
        self._keep(
            trainable,
            lambda path: save_net(path, net, training=provenance(training, self.data)),
            Receipt(digest, "", spent, self.device, adopted=False),
        )
        checkpoint.unlink(missing_ok=True)
        found = self.find(trainable)
        assert found is not None
        return found

    def _keep(self, trainable: Trainable, write: Callable[[Path], None], receipt: Receipt) -> None:
        """Write the receipt before the model: a killed process leaves no model without one."""
        path = self.path(trainable)
        fresh = path.with_name(f".{path.stem}.new.safetensors")
        try:
            write(fresh)
            receipt.signed(_sha256(fresh)).write(path.with_suffix(".json"))
            fresh.replace(path)
        except OSError as error:
            raise StoreError(
                f"cannot be written: {error.strerror}",
                where=str(path),
                hint="check the folder, its permissions and its free space",
            ) from error
        finally:
            fresh.unlink(missing_ok=True)


def _data_entry(model: ModelFile) -> Any:
    training = model.manifest.get("training")
    return training.get("data_sha256") if isinstance(training, dict) else None


def _check_tensors(model: ModelFile) -> None:
    """Refuse tensors that are not those of the network which the manifest names."""
    try:
        from bnnmcu.nn.training import load_net
    except ImportError as error:
        raise MissingDependencyError(
            "checking a trained network needs torch", hint="pip install 'bnnmcu[train]'"
        ) from error
    load_net(model)
