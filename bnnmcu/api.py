"""From a live ``torch.nn.Module`` to C: what ``import bnnmcu`` offers.

    bnnmcu.export(module, example_input, board="nucleo_f446re", output="net",
                  mean=0.1307, std=0.3081)
    bnnmcu.save(module, example_input, "net.safetensors", mean=0.1307, std=0.3081)

The module is traced as it stands, in eval mode; nothing in it is changed.  A
pixel p, 0 to 255, stands for ``(p / 255 - mean) / std``: the normalisation
that usually happens in the data loader, and that the device must know.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from bnnmcu.backend.library import write_library
from bnnmcu.backend.plan import KernelChoice, Plan
from bnnmcu.backend.project import write_project
from bnnmcu.boards import Board, all_boards, load_board
from bnnmcu.errors import BnnmcuWarning, UsageError
from bnnmcu.network import Network
from bnnmcu.network.file import save_network
from bnnmcu.passes import Lowering, Note, Quantization, lower

if TYPE_CHECKING:
    import torch

__all__ = ["Exported", "KernelChoice", "export", "save", "trace"]

Normalisation = float | Sequence[float]


@dataclass(frozen=True, eq=False)
class Exported:
    """What an export wrote.

    Attributes:
        folder: the project or the library.
        lowering: the integer graph, with quantisation errors.
        plan: kernels, tables and arena.
        notes: what is not exactly as in the module; each was a :class:`BnnmcuWarning` too.
    """

    folder: Path
    lowering: Lowering
    plan: Plan
    notes: tuple[Note, ...]


def _warn(notes: Iterable[Note]) -> tuple[Note, ...]:
    told = tuple(notes)
    for note in told:
        warnings.warn(f"{note.where}: {note.text}", BnnmcuWarning, stacklevel=3)
    return told


def trace(
    module: torch.nn.Module,
    example_input: torch.Tensor,
    *,
    name: str | None = None,
    mean: Normalisation = 0.0,
    std: Normalisation = 1.0,
) -> Network:
    """The float network of a live module.

    Args:
        module: any ``nn.Module`` that gives one tensor of logits (N, classes).
        example_input: float, shape (1, C, H, W), (1, C, L) or (1, F); its values do not matter.
        name: of the network, 1 to 31 plain characters; None for the class's.
        mean, std: a pixel p stands for (p / 255 - mean) / std; one number, or one a channel.

    Raises:
        UnsupportedModelError: a layer cannot be expressed; names it, and the nearest rewrite.
        UsageError: the example does not suit the module.
        MissingDependencyError: torch is not installed.
    """
    from bnnmcu.frontend.trace import trace_with_notes

    traced = trace_with_notes(module, example_input, name=name, mean=mean, std=std)
    _warn(Note(where, text) for where, text in traced.notes)
    return traced.network


def save(
    module: torch.nn.Module,
    example_input: torch.Tensor,
    path: str | Path,
    *,
    name: str | None = None,
    mean: Normalisation = 0.0,
    std: Normalisation = 1.0,
    training: Mapping[str, Any] | None = None,
) -> Network:
    """Trace a module and store it as a model file that every bnnmcu command reads.

    Args:
        path: ends in ``.safetensors`` or ``.pt``; nothing in the file is code.
        training: what to remember of its training, plain values.

    Raises:
        as :func:`trace`; ModelFileError for another suffix.
    """
    network = trace(module, example_input, name=name, mean=mean, std=std)
    save_network(Path(path), network, dict(training) if training else None)
    return network


def export(
    module: torch.nn.Module,
    example_input: torch.Tensor,
    *,
    output: str | Path,
    board: str | Board | None = None,
    format: Literal["firmware", "library"] = "firmware",
    name: str | None = None,
    mean: Normalisation = 0.0,
    std: Normalisation = 1.0,
    options: Quantization | None = None,
    kernels: KernelChoice | None = None,
    calibration: npt.NDArray[np.uint8] | None = None,
    prefix: str | None = None,
    force: bool = False,
    training: Mapping[str, Any] | None = None,
) -> Exported:
    """Trace, compile and write a module as a firmware project or a C library.

    Args:
        output: the folder to write.
        board: name of a board, or a .toml file; for a firmware.
        format: ``firmware`` or ``library``.
        options: of quantisation; None for the defaults.
        kernels: what the C is optimised for, and what of its way no image may change, as in
            ``KernelChoice("speed", constant="time")``; None for a balance of speed and flash,
            with as many instructions for every image.
        calibration: uint8 images (N, H, W, C) for a calibrated first layer.
        prefix: of a library's names, so that several fit one firmware.
        force: replace generated files even if they were edited.

    Raises:
        as :func:`trace`; DoesNotFitError, BoardError, and UsageError for the folder.
    """
    if format == "firmware" and (board is None or prefix is not None):
        raise UsageError(
            "a firmware is for a board, and takes no prefix"
            if prefix is not None
            else "a firmware is for a board",
            where="board",
            hint="export(..., board='nucleo_f446re'), or format='library'",
        )
    from bnnmcu.frontend.trace import trace_with_notes

    traced = trace_with_notes(module, example_input, name=name, mean=mean, std=std)
    lowering = lower(traced.network, options, calibration=calibration)
    notes = _warn((*(Note(where, text) for where, text in traced.notes), *lowering.notes))
    folder, choice = Path(output), kernels or KernelChoice()
    if format == "library":
        plan = write_library(
            lowering.graph, folder, prefix=prefix, force=force, training=training, choice=choice
        )
        return Exported(folder, lowering, plan, notes)
    if format != "firmware":
        raise UsageError(f"unknown format {format!r}", hint="use firmware or library")
    assert board is not None
    target = board if isinstance(board, Board) else load_board(str(board))
    plan, _ = write_project(
        lowering.graph,
        target,
        folder,
        boards=all_boards(),
        force=force,
        training=training,
        choice=choice,
    )
    return Exported(folder, lowering, plan, notes)
