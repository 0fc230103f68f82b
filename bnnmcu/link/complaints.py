"""The errors that a device's frames, or their absence, amount to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bnnmcu.errors import DeviceMismatchError, LinkError, LinkTimeoutError, RemoteError
from bnnmcu.link.fault import FaultReport
from bnnmcu.link.frame import VERSION
from bnnmcu.link.protocol import ErrorCode, ErrorReport, MessageType

__all__ = ["crashed", "located", "no_answer", "refused", "version_mismatch"]


_FIELD_HINTS = {
    int(ErrorCode.FIELD): "flash a firmware that was exported without --field",
    int(ErrorCode.COUNTER): "docs/FIELD.md says how many answers a board has, and what to do then",
}


@contextmanager
def located(where: str) -> Iterator[None]:
    """What is wrong with a message is wrong at the device at ``where``."""
    try:
        yield
    except LinkError as error:
        error.where = error.where or where
        raise


def no_answer(where: str, kind: MessageType, attempts: int, seconds: float) -> LinkTimeoutError:
    """A request was sent so many times, and given up after that many seconds."""
    times = "attempt" if attempts == 1 else "attempts"
    return LinkTimeoutError(
        f"no answer to {kind.name} after {attempts} {times} in {seconds:.1f} s",
        where=where,
        hint="press the board's reset button, or unplug it and plug it in, "
        "and start again; finished results are kept",
    )


def crashed(where: str, fault: FaultReport) -> RemoteError:
    """The device sent a FAULT frame."""
    hint = "press the board's reset button"
    if fault.pc:
        hint += f"; 'arm-none-eabi-addr2line -e firmware.elf 0x{fault.pc:08x}' names the line"
    return RemoteError(
        f"the firmware crashed: {fault.text}", code=MessageType.FAULT, where=where, hint=hint
    )


def refused(where: str, kind: MessageType, report: ErrorReport) -> LinkError:
    """The device answered a request of that type with an ERROR frame."""
    if report.code == ErrorCode.BAD_VERSION:
        return version_mismatch(where, report.detail)
    return RemoteError(
        f"the device refused {kind.name}: {report.text}",
        code=report.code,
        where=where,
        hint=_FIELD_HINTS.get(report.code, "rebuild the firmware with this bnnmcu and flash it"),
    )


def version_mismatch(where: str, version: int) -> DeviceMismatchError:
    """The device at ``where`` speaks another protocol version."""
    return DeviceMismatchError(
        f"the firmware speaks protocol version {version}, this bnnmcu version {VERSION}",
        where=where,
        hint="export, build and flash the firmware again with this bnnmcu",
    )
