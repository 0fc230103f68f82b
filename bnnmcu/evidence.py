"""What a board did, as a report that its owner can send: the evidence for its level.

It says which board and firmware answered, with which tools it was looked at, how
many answers were compared with the reference, and what an inference costs.  It
names no user, host, folder or serial number.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bnnmcu import __version__
from bnnmcu.backend.project import Project
from bnnmcu.bench import bench
from bnnmcu.boards import all_boards
from bnnmcu.data import Dataset
from bnnmcu.errors import DataError, ToolchainError
from bnnmcu.link.hello import DeviceInfo, ImageState
from bnnmcu.target import Target
from bnnmcu.toolchain.detect import detect
from bnnmcu.verify import verify

__all__ = ["FORMAT", "HARDWARE", "Finding", "collect", "read_report"]

FORMAT = "bnnmcu-board-report"
_VERSION = 1
HARDWARE = "measured on hardware"
_EMULATED = "emulated"
_NOTHING = "nothing: it does not agree with the reference, or is not the firmware as generated"

# What docs/BOARDS.md promises of the level "measured on hardware".
_FEWEST_IMAGES = 200
# Enough to see whether the counter works.
_BENCHED = 5
# Listed by ``doctor``, but the owner's own business.
_PRIVATE = ("serial ports",)


def collect(
    project: Project,
    target: Target,
    images: Dataset,
    *,
    seeds: int = 5,
    draws: int = 5,
    notes: str = "",
    progress: Callable[[int], object] | None = None,
) -> dict[str, Any]:
    """Verify and measure a board, and put down what it is.

    Args:
        target: the open board.
        images: what it classifies, ``seeds`` times each where weights are drawn.
        notes: the owner's words: revision of the board, adapter, anything odd.

    Returns:
        A JSON object; ``level`` is what it is evidence for.

    Raises:
        LinkError: the board stopped answering.
    """
    kind = _EMULATED if target.emulated else "hardware"
    result = verify(
        project.graph,
        target.device,
        images,
        seeds=seeds,
        draws=draws,
        # Not the label, which may hold a path.
        target=kind,
        progress=progress,
    )
    cost = _cost(project, target, images)
    stats = target.device.stats
    sound = result.exact and not project.edited
    board = project.board
    return {
        "format": FORMAT,
        "version": _VERSION,
        "bnnmcu": __version__,
        "date": datetime.now(UTC).date().isoformat(),
        "level": (_EMULATED if target.emulated else HARDWARE) if sound else _NOTHING,
        "board": {"name": board.name, "chip": board.chip, "core": board.core},
        "board_file": board.source,
        "hello": _hello(target.device.info),
        "project": {
            "bnnmcu": project.manifest.get("bnnmcu"),
            "memory": project.manifest.get("memory"),
            "edited": list(project.edited),
        },
        "verify": result.to_dict(),
        "bench": cost | {"target": kind} if cost else None,
        "link": {
            "requests": stats.requests,
            "retries": stats.retries,
            "bad_frames": stats.bad_frames,
        },
        "tools": {
            tool.name: tool.version for tool in detect() if tool.found and tool.name not in _PRIVATE
        },
        "host": {"system": platform.system(), "machine": platform.machine()},
        "notes": notes,
    }


@dataclass(frozen=True)
class Finding:
    """What a report is evidence for.

    Attributes:
        shipped: whether its board file is the one that comes with this version;
            what was measured with another one says nothing of it.
        text: for ``evidence.text`` of the board file.
    """

    board: str
    date: str
    level: str
    shipped: bool
    text: str


def read_report(report: object, where: str) -> Finding:
    """Check a report that somebody sent, and say in a line what it shows.

    Args:
        report: the parsed JSON; it is not trusted to be one.
        where: the file, for messages.

    Raises:
        DataError: it is no report, or its level is not what its figures say.
    """

    def entry(table: object, key: str, kind: type) -> Any:
        value = table.get(key) if isinstance(table, Mapping) else None
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise DataError(
                f"no board report: {key!r} is missing or of another kind",
                where=where,
                hint="'bnnmcu boards report' writes one",
            )
        return value

    if entry(report, "format", str) != FORMAT or entry(report, "version", int) != _VERSION:
        raise DataError(f"not a {FORMAT} of version {_VERSION}", where=where)
    name = entry(entry(report, "board", dict), "name", str)
    hello, verified = entry(report, "hello", dict), entry(report, "verify", dict)
    edited = entry(entry(report, "project", dict), "edited", list)
    differing = entry(verified, "differing_logits", int) + entry(verified, "differing_words", int)
    logits, images = entry(verified, "logits", int), entry(verified, "images", int)
    clock, level = entry(hello, "clock_hz", int), entry(report, "level", str)
    if differing or edited or logits < 1 or entry(hello, "board", str) != name:
        shown = _NOTHING
    else:
        shown = HARDWARE if clock else _EMULATED
    if shown == level == HARDWARE and images < _FEWEST_IMAGES:
        raise DataError(
            f"it claims {level!r} with {images} images, which takes {_FEWEST_IMAGES}",
            where=where,
            hint=f"'bnnmcu boards report -n {_FEWEST_IMAGES}' compares enough",
        )
    if shown != level:
        raise DataError(f"it claims {level!r}, but its figures show {shown!r}", where=where)
    date, version = entry(report, "date", str), entry(report, "bnnmcu", str)
    source = entry(report, "board_file", str)
    return Finding(
        name,
        date,
        level,
        any(board.name == name and board.source == source for board in all_boards()),
        f"{date}, bnnmcu {version}: {entry(hello, 'model', str)}, {images} images, "
        f"{logits} logits, {differing} different, "
        + (f"{clock / 1e6:g} MHz" if clock else "emulated"),
    )


def _cost(project: Project, target: Target, images: Dataset) -> dict[str, Any] | None:
    try:
        few = images.stratified(min(_BENCHED, len(images)))
        return bench(project.plan, target, few).to_dict()
    except ToolchainError:
        # No counter, or none that stayed clean: the comparison is evidence all the same.
        return None


def _hello(info: DeviceInfo) -> dict[str, Any]:
    return {
        "protocol": info.protocol,
        "firmware": ".".join(map(str, info.firmware)),
        "board": info.board,
        "model": info.model,
        "model_sha256": info.model_sha256.hex(),
        "clock_hz": info.clock_hz,
        "counter": info.counter_text,
        "generator": info.generator_text,
        "stack_free": info.stack_free,
        "reset": info.reset_text,
        "flash_checked": ImageState.CHECKED in info.state,
    }
