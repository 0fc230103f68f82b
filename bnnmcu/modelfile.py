"""Model files: named tensors plus a JSON manifest, in ``.pt`` or ``.safetensors``.

A ``.pt`` file holds ``{"manifest": str, "state_dict": {name: tensor}}`` and is
read with ``weights_only=True``, so that loading it cannot run code.  A
``.safetensors`` file holds the same tensors, the manifest under the metadata
key ``manifest``; reading it does not need torch.  Files are written to a
temporary name and renamed, so that none is ever half there.
"""

from __future__ import annotations

import json
import os
import pickle
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.errors import MissingDependencyError, ModelFileError
from bnnmcu.outputs import output_path

_SAVE = "save the module from Python: bnnmcu.save(module, example_input, 'net.safetensors')"

__all__ = ["FORMAT", "ModelFile", "atomic_write", "read_model", "write_model"]

FORMAT = "bnnmcu-model"
VERSION = 1
_SUFFIXES = (".pt", ".safetensors")


@dataclass(frozen=True)
class ModelFile:
    """A model as it stands in a file.

    Attributes:
        path: where it was read from.
        manifest: names the architecture (``architecture``) and how it came
            about (``training``, ``metrics``).
        tensors: float arrays by their state-dict name, all finite.
    """

    path: Path
    manifest: dict[str, Any]
    tensors: dict[str, npt.NDArray[Any]]


def atomic_write(path: Path, data: bytes) -> None:
    """Write a whole file or nothing: a temporary file beside it, then a rename.

    A symbolic link stays, and what it leads to is written.

    Raises:
        UsageError: a folder, a device or a pipe is there.
        OSError: the disk refuses.
    """
    try:
        target = output_path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        # The user knows the file, not its temporary name.
        raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes private files; a result should be as readable as any other.
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_model(path: Path) -> ModelFile:
    """Read and check a model file; nothing in it is ever executed.

    Raises:
        ModelFileError: it is missing, corrupt, of an unsafe or unknown
            format, or has tensors that are not finite.
        MissingDependencyError: a ``.pt`` file and torch is not installed.
    """
    if path.suffix == ".pt2":
        raise ModelFileError(
            ".pt2 archives are refused: torch unpickles them without restrictions",
            where=str(path),
            hint=_SAVE,
        )
    if path.suffix not in _SUFFIXES:
        raise ModelFileError(
            f"unknown kind of model file {path.suffix!r}",
            where=str(path),
            hint="give a .pt, .safetensors or .onnx file",
        )
    if not path.is_file():
        raise ModelFileError("no such file", where=str(path), hint="check the path")
    manifest, tensors = _read_pt(path) if path.suffix == ".pt" else _read_safetensors(path)
    return ModelFile(path, _checked_manifest(path, manifest), _checked_tensors(path, tensors))


def write_model(
    path: Path, manifest: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]
) -> None:
    """Write a model file; the suffix chooses the format.

    Raises:
        ModelFileError: the suffix is neither ``.pt`` nor ``.safetensors``.
    """
    text = json.dumps({**manifest, "format": FORMAT, "version": VERSION}, sort_keys=True)
    arrays = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    if path.suffix == ".safetensors":
        import safetensors.numpy

        data = safetensors.numpy.save(arrays, metadata={"manifest": text})
    elif path.suffix == ".pt":
        import io

        import torch

        state = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        buffer = io.BytesIO()
        torch.save({"manifest": text, "state_dict": state}, buffer)
        data = buffer.getvalue()
    else:
        raise ModelFileError(
            f"cannot write {path.suffix!r}", where=str(path), hint="use .pt or .safetensors"
        )
    atomic_write(path, data)


def _read_pt(path: Path) -> tuple[str, dict[str, npt.NDArray[Any]]]:
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError(
            "reading a .pt file needs torch",
            where=str(path),
            hint="pip install 'bnnmcu[train]', or convert the model to .safetensors",
        ) from error
    if not zipfile.is_zipfile(path):
        raise ModelFileError(
            "not a file as torch.save writes it: cut short, something else, or a bare pickle, "
            "which is refused, since loading it could run code",
            where=str(path),
            hint=_SAVE,
        )
    try:
        with warnings.catch_warnings():
            # torch asks to be told of unusual pickles; they are refused here anyway.
            warnings.simplefilter("ignore")
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelFileError(
            "this pickle holds more than tensors and plain values, and is refused, "
            "since loading it could run code",
            where=str(path),
            hint=_SAVE,
        ) from error
    except Exception as error:  # torch raises a dozen kinds for a damaged file
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelFileError(
            f"corrupt or cut short: {first}", where=str(path), hint="copy or train it again"
        ) from error
    if not isinstance(loaded, dict) or not {"manifest", "state_dict"} <= loaded.keys():
        raise ModelFileError(
            f"a torch file, but not a bnnmcu model: {_what_it_is(loaded)}",
            where=str(path),
            hint=_SAVE,
        )
    state = loaded["state_dict"]
    if not isinstance(loaded["manifest"], str) or not isinstance(state, dict):
        raise ModelFileError("manifest or state_dict has the wrong type", where=str(path))
    tensors = {}
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise ModelFileError(f"state_dict entry {name!r} is not a tensor", where=str(path))
        if (
            not tensor.dtype.is_floating_point
            or tensor.layout != torch.strided
            or tensor.device.type != "cpu"
        ):
            raise ModelFileError(
                f"tensor {name!r} is {tensor.dtype}, not a dense float tensor", where=str(path)
            )
        # A stride of zero lets a small file claim terabytes.
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ModelFileError(
                f"tensor {name!r} claims more values than the file holds", where=str(path)
            )
        # bfloat16 does not exist in numpy; every float type fits float64 or float32.
        wide = torch.float64 if tensor.dtype == torch.float64 else torch.float32
        tensors[name] = tensor.detach().to(wide).numpy()
    return loaded["manifest"], tensors


def _what_it_is(loaded: object) -> str:
    """What a foreign torch file holds, for people."""
    if isinstance(loaded, dict) and loaded and all(isinstance(name, str) for name in loaded):
        names = ", ".join(sorted(loaded)[:4])
        return f"it has no manifest and state_dict, but {names}, ..."
    return f"it holds a {type(loaded).__name__}, no manifest and state_dict"


def _read_safetensors(path: Path) -> tuple[str, dict[str, npt.NDArray[Any]]]:
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as archive:
            metadata = archive.metadata() or {}
            tensors = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118
    except (OSError, ValueError, TypeError, AttributeError, safetensors.SafetensorError) as error:
        # AttributeError: a float type that numpy does not have.
        raise ModelFileError(
            f"corrupt or cut short: {error}", where=str(path), hint="copy or train it again"
        ) from error
    if "manifest" not in metadata:
        raise ModelFileError(
            "safetensors file without a manifest, so its architecture is unknown",
            where=str(path),
            hint=_SAVE,
        )
    return metadata["manifest"], tensors


def _checked_manifest(path: Path, text: str) -> dict[str, Any]:
    try:
        manifest = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"manifest is not JSON: {error}", where=str(path)) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ModelFileError(f"manifest is not of format {FORMAT!r}", where=str(path))
    if manifest.get("version") != VERSION:
        raise ModelFileError(
            f"manifest version {manifest.get('version')!r}; this bnnmcu reads {VERSION}",
            where=str(path),
            hint="upgrade bnnmcu",
        )
    return manifest


def _checked_tensors(
    path: Path, tensors: dict[str, npt.NDArray[Any]]
) -> dict[str, npt.NDArray[Any]]:
    for name, tensor in tensors.items():
        if tensor.dtype.kind != "f":
            raise ModelFileError(f"tensor {name!r} is {tensor.dtype}, not float", where=str(path))
        bad = int(np.count_nonzero(~np.isfinite(tensor)))
        if bad:
            raise ModelFileError(
                f"tensor {name!r} has {bad} NaN or infinite values of {tensor.size}",
                where=str(path),
                hint="the training diverged: train again with a lower learning rate",
            )
    return tensors
