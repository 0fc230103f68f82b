"""Whether this user may use serial ports and debug probes, and what to do if not.

Windows and macOS let everybody; on Linux a port belongs to a group, and a probe
to root unless a udev rule says otherwise.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

__all__ = ["UDEV_FOLDERS", "port_holder", "port_problem", "udev_problem"]

#: Where Linux keeps udev rules.
UDEV_FOLDERS = (
    Path("/etc/udev/rules.d"),
    Path("/run/udev/rules.d"),
    Path("/usr/lib/udev/rules.d"),
    Path("/lib/udev/rules.d"),
)

#: Where PlatformIO describes its rules, which cover all probes that it drives.
_RULES_PAGE = "https://docs.platformio.org/en/latest/core/installation/udev-rules.html"


def port_problem(device: str) -> str | None:
    """Why this process could not open a port, and what helps; None if it could.

    Looks at permissions only and does not open it: opening may reset a board.
    """
    if sys.platform == "win32":
        return None
    try:
        status = Path(device).stat()
    except OSError as error:
        return f"cannot be looked at: {error.strerror or error}"
    if os.access(device, os.R_OK | os.W_OK):
        return None
    group, members = _group(status.st_gid)
    if not status.st_mode & 0o020 or group == "root":
        return "no permission: it is for root alone; a udev rule must give it to a group"
    user = _user()
    if user in members:
        # Groups are given at login.
        return f"no permission yet: you are in the group {group} now, log out and in again"
    return f"no permission: sudo usermod -aG {group} {user}, then log out and in again"


def port_holder(device: str, proc: Path = Path("/proc")) -> str | None:
    """Who has a port open, as ``minicom (process 123)``; None if that cannot be seen.

    Linux shows it of the user's own processes.
    """
    if not sys.platform.startswith("linux"):
        return None
    wanted = os.path.realpath(device)
    for process in sorted(proc.glob("[0-9]*")):
        if process.name == str(os.getpid()):
            continue
        try:
            if any(os.path.realpath(entry) == wanted for entry in (process / "fd").iterdir()):
                name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
                return f"{name} (process {process.name})"
        except OSError:
            # Somebody else's, or it has just ended.
            continue
    return None


def udev_problem(usb_ids: Iterable[str], folders: Iterable[Path] = UDEV_FOLDERS) -> str | None:
    """What is missing so that probes with these ids can be used; None if nothing is.

    A rule names the vendor or the product of a probe; where none names either,
    uploads fail with "permission denied" or "no device" unless run as root.
    """
    if not sys.platform.startswith("linux"):
        return None
    wanted = {usb_id.partition(":")[0] for usb_id in usb_ids}
    if not wanted:
        return None
    rules = "".join(_rules(folders)).lower()
    missing = sorted(vendor for vendor in wanted if f'"{vendor}"' not in rules)
    if not missing:
        return None
    return f"no udev rule for vendor {', '.join(missing)}: install PlatformIO's, {_RULES_PAGE}"


def _rules(folders: Iterable[Path]) -> Iterable[str]:
    for folder in folders:
        try:
            files = sorted(folder.glob("*.rules"))
            texts = [file.read_text(encoding="utf-8", errors="replace") for file in files]
        except OSError:
            continue
        for text in texts:
            for line in text.replace("\\\n", " ").splitlines():
                # Other rules name vendors too (ModemManager's), but give nobody access.
                gives = any(word in line for word in ("MODE", "GROUP", "uaccess"))
                if gives and not line.lstrip().startswith("#"):
                    yield line + "\n"


def _group(gid: int) -> tuple[str, tuple[str, ...]]:
    if sys.platform == "win32":
        return str(gid), ()
    import grp

    try:
        entry = grp.getgrgid(gid)
    except KeyError:
        return str(gid), ()
    return entry.gr_name, tuple(entry.gr_mem)


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "$USER"
