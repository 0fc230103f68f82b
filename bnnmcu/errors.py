"""Every error a user can meet, with the exit code a script can act on.

The text of an error has three parts: *what* went wrong, *where* (a layer, a
file, an option), and *what to do next*.  The command line prints them without
a traceback; anything that is not a :class:`BnnmcuError` is a bug of ours.
"""

from __future__ import annotations

__all__ = [
    "BnnmcuError",
    "BnnmcuWarning",
    "BoardError",
    "ClusterError",
    "DataError",
    "DeviceMismatchError",
    "DoesNotFitError",
    "GraphError",
    "LinkError",
    "LinkTimeoutError",
    "MismatchFoundError",
    "MissingDependencyError",
    "ModelFileError",
    "PortGoneError",
    "QueryBudgetError",
    "RemoteError",
    "StoreError",
    "ToolchainError",
    "UnsupportedModelError",
    "UsageError",
]


class BnnmcuError(Exception):
    """Base of all errors that are reported to the user without a traceback.

    Args:
        what: one sentence saying what went wrong.
        where: the layer, file or option concerned, if there is one.
        hint: what to do next, ideally a command to type.
    """

    #: The system or the installation is at fault; 1 is kept for differences found.
    exit_code = 14

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  next: {self.hint}" if self.hint else text

    def as_dict(self) -> dict[str, str | int | None]:
        """The error as the object that ``--json`` prints."""
        return {
            "error": type(self).__name__,
            "what": self.what,
            "where": self.where,
            "hint": self.hint,
            "exit_code": self.exit_code,
        }


class BnnmcuWarning(UserWarning):
    """What a caller from Python should know of a network; the command line prints notes."""


class MismatchFoundError(BnnmcuError):
    """A check ran to its end and found a difference."""

    exit_code = 1


class UsageError(BnnmcuError):
    """Options that contradict each other or are out of range (as click: 2)."""

    exit_code = 2


class ModelFileError(BnnmcuError):
    """A model file that is missing, corrupt, unsafe or incomplete."""

    exit_code = 3


class UnsupportedModelError(BnnmcuError):
    """A sound model with a layer that cannot be expressed on the device."""

    exit_code = 4


class GraphError(BnnmcuError):
    """An integer graph that breaks its own contract."""

    exit_code = 5


class DoesNotFitError(BnnmcuError):
    """A network that is larger than the board's flash or RAM."""

    exit_code = 6


class BoardError(BnnmcuError):
    """An unknown board or an unsound board file."""

    exit_code = 7


class ToolchainError(BnnmcuError):
    """A compiler, PlatformIO or an emulator failed."""

    exit_code = 8


class MissingDependencyError(ToolchainError):
    """An optional package or program is not installed."""

    exit_code = 9


class LinkError(BnnmcuError):
    """The serial port is busy, has vanished, or carries nonsense."""

    exit_code = 10


class LinkTimeoutError(LinkError):
    """The board did not answer within the time allowed."""


class PortGoneError(LinkError):
    """The connection itself is lost: unplugged, closed by the other side, or cut."""


class RemoteError(LinkError):
    """The board answered with an error or fault frame.

    Args:
        code: the numeric code the board sent.
    """

    def __init__(
        self, what: str, *, code: int, where: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(what, where=where, hint=hint)
        self.code = code


class DeviceMismatchError(LinkError):
    """The board runs another model or protocol version than expected."""

    exit_code = 11


class DataError(BnnmcuError):
    """Images or labels that are missing or have the wrong shape."""

    exit_code = 12


class StoreError(BnnmcuError):
    """A results file that cannot be used, or belongs to another run."""

    exit_code = 13


class QueryBudgetError(BnnmcuError):
    """A query that would cost more inferences than its image may; it was not asked."""

    exit_code = 15


class ClusterError(BnnmcuError):
    """Workers or their scheduler are gone, or do not agree; what is stored goes on."""

    exit_code = 16
