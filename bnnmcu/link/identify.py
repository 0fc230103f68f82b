"""Asks a port who is behind it: the greeting alone, with little patience."""

from __future__ import annotations

from collections.abc import Callable

from bnnmcu.errors import LinkError
from bnnmcu.link.device import Device
from bnnmcu.link.hello import DeviceInfo
from bnnmcu.link.timing import Timing
from bnnmcu.link.transport import Transport, open_port

__all__ = ["identify"]

#: A board that runs the firmware answers within milliseconds, unless it is
#: still busy with an inference; opening the port may also have reset it.
_PATIENCE = Timing(hello=(0.5, 1.0, 1.5))


def identify(
    device: str,
    baud: int = 115200,
    *,
    timing: Timing = _PATIENCE,
    opener: Callable[[str, int], Transport] = open_port,
) -> DeviceInfo:
    """The HELLO of the firmware behind a port.

    Sends bytes to whatever is there, so that it is only for ports that may be
    a board's.

    Raises:
        LinkError: it does not open, or nothing of ours answers.
    """
    with Device(opener(device, baud), timing=timing) as found:
        if not found.info.board:
            raise LinkError("the firmware does not name its board", where=device)
        return found.info
