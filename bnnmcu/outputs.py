"""Where a file may be written: never in place of anything but a file.

Files are written under another name and renamed, which would put a file where a
device or a pipe was, and leave a symbolic link's target as it is.  So what is
no file is refused, and of a link it is the target that is written.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from bnnmcu.errors import UsageError

__all__ = ["output_path"]

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe (FIFO)"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)
_HINT = "give the name of a file"


def output_path(path: Path, *, hint: str = _HINT) -> Path:
    """The file that is made or replaced by writing to ``path``, behind all links.

    Args:
        path: as the user gave it; its folder need not be there.
        hint: what to do where it is refused.

    Raises:
        UsageError: there is something that is no regular file.
        OSError: a folder on the way is none, may not be searched, or links go in a circle.
    """
    try:
        # Through links: what /dev/stdout leads to has no name that could be looked up.
        mode = path.stat().st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "something else")
        raise UsageError(f"is {kind}, not a file", where=str(path), hint=hint)
    return Path(os.path.realpath(path))
