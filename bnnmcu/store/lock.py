"""Who holds a results file: one process at a time, and its number for the others.

The lock is the operating system's, on a small file beside the results
(``NAME.lock``): it goes with the process, however that ends, so nothing is to
be cleaned up after a kill.  SQLite's own locks stay free for readers.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import stat
import sys
import time
from pathlib import Path

from bnnmcu.errors import StoreError

__all__ = ["Holder", "holder_of", "is_held", "lock_path"]

_WAITS = (0.01, 0.04, 0.1)
_TEXT = re.compile(r"\A(?:pid (\d{1,10}) on ([A-Za-z0-9_.-]{1,255})\n)?\Z")

if sys.platform == "win32":
    import msvcrt

    # Far behind the text, which others must be able to read: locks are mandatory there.
    _LOCKED_BYTE = 1 << 30

    def _try_lock(handle: int) -> bool:
        os.lseek(handle, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(handle, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _try_lock(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def lock_path(path: Path) -> Path:
    """The file whose lock stands for ``path``, whatever link leads there."""
    real = path.resolve()
    return real.with_name(f"{real.name}.lock")


def holder_of(path: Path) -> str:
    """``pid 12 on host`` of the process that last held the file; empty if it is not known."""
    try:
        with lock_path(path).open("rb") as stream:
            found = _TEXT.match(stream.read(300).decode("ascii"))
    except (OSError, ValueError):
        return ""
    return f"pid {found[1]} on {found[2]}" if found and found[1] else ""


def is_held(path: Path) -> bool:
    """Whether a process is writing the file now."""
    try:
        handle = os.open(lock_path(path), os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        # No lock was taken, or it is another user's and cannot be tried.
        return False
    try:
        return not _try_lock(handle)
    finally:
        os.close(handle)


class Holder:
    """Holds a results file until :meth:`release` or the end of the process.

    Raises:
        StoreError: another process holds it, or the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._lock = lock_path(path)
        try:
            self._handle = self._acquire(path)
        except OSError as error:
            raise StoreError(
                f"cannot be written: {error.strerror}",
                where=str(path),
                hint="check the folder, its permissions and its free space",
            ) from error
        # Only for the message that others give; on a full disk they do without it.
        node = re.sub(r"[^A-Za-z0-9_.-]", "_", platform.node())[:255] or "unknown"
        with contextlib.suppress(OSError):
            os.ftruncate(self._handle, 0)
            os.write(self._handle, f"pid {os.getpid()} on {node}\n".encode())

    def _acquire(self, path: Path) -> int:
        # A link in place of the lock could make us overwrite what it leads to.
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        while True:
            handle = os.open(self._lock, flags, 0o666)
            try:
                if not self._locked(handle):
                    who = holder_of(path)
                    raise StoreError(
                        "another process is using this store" + (f" ({who})" if who else ""),
                        where=str(path),
                        hint="wait for it, or stop it; 'bnnmcu runs show' works meanwhile",
                    )
                self._check_ours(handle)
                # The last holder may have removed the file between our two steps: a lock
                # on a file without a name would keep nobody out.
                if self._is_named(handle):
                    return handle
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)

    def _check_ours(self, handle: int) -> None:
        """Nobody's file is overwritten because of its name."""
        if stat.S_ISREG(os.fstat(handle).st_mode):
            text = os.read(handle, 300).decode("ascii", "replace")
            os.lseek(handle, 0, os.SEEK_SET)
            if _TEXT.match(text):
                return
        raise StoreError(
            "cannot be locked: this is no lock of bnnmcu's",
            where=str(self._lock),
            hint="rename or remove it",
        )

    @staticmethod
    def _locked(handle: int) -> bool:
        # Whoever only asks whether it is held (is_held) has it for an instant.
        for wait in _WAITS:
            if _try_lock(handle):
                return True
            time.sleep(wait)
        return _try_lock(handle)

    def _is_named(self, handle: int) -> bool:
        try:
            return os.path.samestat(os.fstat(handle), self._lock.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let others have the file; may be called twice."""
        if self._handle < 0:
            return
        # While it is still held: see _acquire().  Windows refuses, and leaves it there.
        with contextlib.suppress(OSError):
            self._lock.unlink()
        os.close(self._handle)
        self._handle = -1
