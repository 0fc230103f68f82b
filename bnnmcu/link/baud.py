"""A faster line than the one that every board starts with, where board, bridge and host bear it.

The host asks the device whether it can make a baud, both go over to it, and it
is proven with large frames before anything relies on it.  What cannot be
proven is given up: the host goes back to the baud that it started with, and
the device follows by itself, since the host's frames are garbage to it at the
wrong baud.  docs/SPEC.md, section 7, has the rules of both.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from bnnmcu.errors import LinkError, LinkTimeoutError, PortGoneError, RemoteError
from bnnmcu.link.hello import DeviceInfo
from bnnmcu.link.protocol import BaudReply, BaudRequest, ErrorCode, MessageType

__all__ = ["LADDER", "BaudLine", "BaudPlan", "give_back", "negotiate"]

#: Rates that bridges know, fastest first.  FTDI's make up to 3 million, CH340 and ST-LINK/V2-1 up
#: to 2 million, a CP2102 921,600; the wires and isolators between may bear less.
LADDER = (3_000_000, 2_000_000, 1_500_000, 1_000_000, 921_600, 460_800, 230_400, 115_200, 57_600)

#: Bytes that a baud is proven with, each way.
PROOF_BYTES = 4096
#: And frames at least and at most: they are small where images are.
_PROOF_FRAMES = (4, 64)

#: Seconds for the device to go over: it waits for its last bit, and needs microseconds then.
_SETTLE = 0.005
#: One transmission each: what needs a second one is no proof.
_ASK = (2.0,)
#: Each greeting at the wrong baud is garbage, and brings the device nearer to its own.
_HOME = (0.2,) * 20 + (1.0, 2.0, 4.0)
#: A device may make a baud that is off by as much.
_OFF = 0.02


@dataclass(frozen=True)
class BaudPlan:
    """Between which bauds a connection may choose.

    Attributes:
        start: what the board has after a reset, and where every connection begins.
        most: the fastest one to try; not above ``start`` to stay there.
    """

    start: int
    most: int = 921_600


class BaudLine(Protocol):
    """What negotiating needs of a connection that has nothing in flight."""

    def exchange(self, kind: MessageType, payload: bytes, *, waits: tuple[float, ...]) -> bytes:
        """Send a request, and return the payload of its reply.

        It is transmitted at most ``len(waits)`` times, waiting that many
        seconds each: a frame that comes back corrupt may end a wait early, but
        calls for no transmission beyond these, or a bad line would look good.

        Raises:
            LinkTimeoutError: no transmission was answered.
            RemoteError: the device refused it.
        """

    def set_baud(self, baud: int) -> None:
        """Have this end use another baud from now on, and forget what it received.

        Raises:
            LinkError: the port cannot make it.
        """


def negotiate(line: BaudLine, plan: BaudPlan, note: Callable[[str], None]) -> int:
    """Find the fastest baud that board, bridge and host bear, and leave both ends at it.

    Args:
        line: to a device that was greeted, at ``plan.start``.
        plan: the limits.
        note: is told what was given up, and why, a line of text each.

    Returns:
        The baud now in use: ``plan.start`` where nothing faster works.

    Raises:
        LinkTimeoutError: the device was not heard again at ``plan.start``.
        PortGoneError: the port went away meanwhile.
    """
    for baud in _rungs(plan):
        trouble = _bridge_trouble(line, baud, plan.start)
        if trouble is None:
            try:
                trouble = _device_trouble(line, baud)
            except RemoteError as error:
                note(f"stays at {plan.start} baud: {error.what}")
                return plan.start
        if trouble is None:
            line.set_baud(baud)
            time.sleep(_SETTLE)
            trouble = _line_trouble(line, baud)
            if trouble is None:
                return baud
            _come_home(line, plan.start)
        note(f"not {baud} baud: {trouble}")
    return plan.start


def give_back(line: BaudLine, plan: BaudPlan, current: int) -> None:
    """Take both ends back to ``plan.start``, as well as that goes: for closing a connection."""
    if current == plan.start:
        return
    with contextlib.suppress(LinkError):
        # Unheard, the device finds back by itself as soon as somebody greets it.
        line.exchange(MessageType.BAUD, BaudRequest(plan.start).pack(), waits=(0.2, 0.2))
    with contextlib.suppress(LinkError):
        line.set_baud(plan.start)


def _rungs(plan: BaudPlan) -> Iterator[int]:
    if plan.most > plan.start and plan.most not in LADDER:
        yield plan.most
    yield from (baud for baud in LADDER if plan.start < baud <= plan.most)


def _bridge_trouble(line: BaudLine, baud: int, start: int) -> str | None:
    """Whether this end's port refuses a baud; tried before the device is asked to go over."""
    try:
        line.set_baud(baud)
    except PortGoneError:
        raise
    except LinkError as error:
        return error.what
    finally:
        line.set_baud(start)
    return None


def _device_trouble(line: BaudLine, baud: int) -> str | None:
    """Ask the device to go over.

    Raises:
        RemoteError: it does not know this request, or is beyond answering.
    """
    try:
        line.exchange(MessageType.BAUD, BaudRequest(baud).pack(), waits=_ASK)
    except LinkTimeoutError:
        # It may have gone over, and its answer been lost: the proof will tell.
        return None
    except RemoteError as error:
        if error.code == ErrorCode.BAD_ARGUMENT:
            return "the board's UART cannot make it"
        raise
    return None


def _line_trouble(line: BaudLine, baud: int) -> str | None:
    """Send large frames to and fro at the new baud; the first one tells how large."""
    try:
        info = DeviceInfo.unpack(line.exchange(MessageType.HELLO, b"", waits=_ASK))
        size = max(0, min(info.max_request, info.max_reply) - len(BaudRequest(0).pack()))
        fewest, most = _PROOF_FRAMES
        for number in range(min(most, max(fewest, -(-PROOF_BYTES // max(1, size))))):
            pattern = _pattern(size, number)
            request = BaudRequest(0, pattern).pack()
            reply = BaudReply.unpack(line.exchange(MessageType.BAUD, request, waits=_ASK))
            if reply.pattern != pattern or abs(reply.baud - baud) > _OFF * baud:
                return "the device answers something else"
    except PortGoneError:
        raise
    except LinkError:
        return "the line does not bear it"
    return None


def _come_home(line: BaudLine, start: int) -> None:
    line.set_baud(start)
    line.exchange(MessageType.HELLO, b"", waits=_HOME)


def _pattern(size: int, number: int) -> bytes:
    """Random bytes with runs of the hardest ones: no edge within a byte, and one at every bit."""
    noise = random.Random(number).randbytes(size)  # noqa: S311  # any bytes do, but the same
    runs = bytes((0x00, 0xFF, 0x55, 0x01)[at // 16 % 4] for at in range(size))
    return noise[: size // 2] + runs[size // 2 :]
