"""Where answers came from: what a session of a run writes down, and never compares."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from bnnmcu.backend.project import Project
from bnnmcu.errors import RemoteError
from bnnmcu.graph import Graph
from bnnmcu.graphfile import graph_sha256
from bnnmcu.target import Target

__all__ = ["git_revision", "provenance"]

_GIT_TIMEOUT = 10.0


def provenance(graph: Graph, project: Project | None, target: Target | None) -> dict[str, Any]:
    """Plain JSON values about this session.

    Args:
        graph: the network that answers.
        project: what it was exported to, if it was.
        target: the board; None where the generated C runs on this machine.

    Raises:
        DeviceMismatchError: the firmware in the board's flash is damaged.
        LinkError: the board stopped answering.
    """
    about: dict[str, Any] = {"command": sys.argv[1:], "model_sha256": graph_sha256(graph).hex()}
    if project is not None:
        about["edited_files"] = list(project.edited)
        about["project_revision"] = git_revision(project.folder)
    if target is None:
        return about
    info = target.device.info
    return about | {
        "board": info.board,
        "target": target.label,
        "port": target.port,
        "usb_serial": target.usb_serial,
        "firmware": ".".join(map(str, info.firmware)),
        "protocol": info.protocol,
        "baud": target.baud,
        "image_crc": _image_crc(target),
    }


def _image_crc(target: Target) -> str | None:
    """The checksum of the firmware in flash, computed now; None where none was recorded."""
    try:
        image = target.device.check_image()
    except RemoteError:
        # A firmware of before there were checksums.
        return None
    return f"{image.found:08x}" if image.size else None


def git_revision(folder: Path) -> str | None:
    """The commit that a folder's checkout is at; None if it is in none, or git is not there."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_GIT_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
