"""The state of a training between two epochs, in one file: weights, Adam's moments, time spent."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import torch

from bnnmcu.errors import ModelFileError
from bnnmcu.modelfile import atomic_write
from bnnmcu.nn.paper import PaperNet

__all__ = ["Progressed", "restore_state", "save_state", "spent_seconds"]

#: Finished epochs, and the seconds that they took (None: the file does not say).
Progressed = tuple[int, float | None]


def save_state(
    path: Path,
    identity: dict[str, Any],
    progressed: Progressed,
    net: PaperNet,
    optimizer: torch.optim.Adam,
) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        identity: what the training is of; plain values.

    Raises:
        OSError: the disk refuses.
    """
    buffer = io.BytesIO()
    torch.save(
        {
            "identity": identity,
            "epoch": progressed[0],
            "seconds": progressed[1],
            "state_dict": net.state_dict(),
            "optimizer": optimizer.state_dict(),
        },
        buffer,
    )
    atomic_write(path, buffer.getvalue())


def _progressed(state: dict[str, Any]) -> Progressed:
    # Checkpoints of before seconds were counted have none.
    seconds = state.get("seconds")
    sound = isinstance(seconds, float) and math.isfinite(seconds) and seconds >= 0
    return int(state["epoch"]), seconds if sound else None


def spent_seconds(path: Path) -> float | None:
    """Core-seconds of the epochs that a checkpoint holds; None if it does not say.

    Args:
        path: a checkpoint that :func:`restore_state` or :func:`save_state` has just seen.
    """
    return _progressed(torch.load(path, map_location="cpu", weights_only=True))[1]


def restore_state(
    path: Path, identity: dict[str, Any], net: PaperNet, optimizer: torch.optim.Adam
) -> Progressed:
    """Go on from a checkpoint, on whatever device the network is.

    Raises:
        ModelFileError: it is damaged, or of another network, data set or
            configuration.
    """
    hint = f"remove {path} to train from scratch"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["identity"] != identity:
            raise ModelFileError(
                "this checkpoint is of another network, data set or configuration",
                where=str(path),
                hint=hint,
            )
        net.load_state_dict(state["state_dict"])
        optimizer.load_state_dict(state["optimizer"])
        return _progressed(state)
    except ModelFileError:
        raise
    except Exception as error:  # torch raises a dozen kinds for a damaged file
        raise ModelFileError(
            f"cannot read the checkpoint: {(str(error) or type(error).__name__).splitlines()[0]}",
            where=str(path),
            hint=hint,
        ) from error
