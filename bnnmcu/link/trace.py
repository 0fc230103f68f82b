"""The log of a link: every frame, and whatever went wrong, a line each."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from io import TextIOWrapper
from typing import IO, TextIO

from bnnmcu.link.frame import Frame
from bnnmcu.link.protocol import REPLY, MessageType

__all__ = ["Trace", "TraceFile"]

_BYTES = 16
_NAMES = {int(member): member.name for member in MessageType}


class Trace:
    """Writes the log; does nothing without a file.

    Lines begin with seconds since the connection was made.  Those of frames go
    on with ``>`` (to the device) or ``<``; all others with ``!``, and they end
    in the time of day (UTC), to be held against other logs.

    Args:
        stream: takes the lines.
        clock: seconds.
    """

    def __init__(self, stream: TextIO | None, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._clock = clock
        self._started = clock()

    def sent(self, frame: Frame, size: int) -> None:
        """A request went out, ``size`` bytes on the wire."""
        if self._stream is not None:
            self._frame(">", frame, size, "")

    def received(self, frame: Frame) -> None:
        """A sound frame came in."""
        if self._stream is not None:
            head = frame.payload[:_BYTES].hex()
            self._frame("<", frame, len(frame.payload), head)

    def event(self, text: str) -> None:
        """Anything else worth a line."""
        if self._stream is not None:
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            self._line(f"! {text} ({now})")
            # What led to a hang or a kill is wanted most of all.
            self._stream.flush()

    def _frame(self, way: str, frame: Frame, size: int, head: str) -> None:
        bare = frame.type if frame.type >= MessageType.FAULT else frame.type & ~REPLY
        name = _NAMES.get(bare, f"0x{frame.type:02x}")
        self._line(f"{way} {name} seq={frame.sequence} size={size} {head}".rstrip())

    def _line(self, text: str) -> None:
        if self._stream is not None:
            self._stream.write(f"{self._clock() - self._started:10.4f} {text}\n")


class TraceFile(TextIOWrapper):
    """The file of a log, which never fails the run that it tells of.

    What cannot be written, on a full disk for example, is announced once; the
    log ends there, and the run goes on.

    Args:
        file: open for writing bytes; closed with this.
        name: of the file, for people.
        log: takes the warning.
    """

    def __init__(self, file: IO[bytes], name: str, log: Callable[[str], None]) -> None:
        super().__init__(file, encoding="utf-8")
        self._file = name
        self._log = log
        self._failed = False

    def write(self, text: str, /) -> int:
        """Add text; nothing once the file has failed."""
        if not self._failed:
            try:
                super().write(text)
            except OSError as error:
                self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """See :meth:`io.IOBase.flush`."""
        if not self._failed:
            try:
                super().flush()
            except OSError as error:
                self._give_up(error)

    def close(self) -> None:
        """See :meth:`io.IOBase.close`."""
        try:
            # What a full disk did not take is tried again here.
            super().close()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        if not self._failed:
            self._failed = True
            why = error.strerror or str(error)
            self._log(f"warning: {self._file}: {why}: the log ends here, and the run goes on")
