"""Requests in flight: sequence numbers, retries, and replies in order.

The device answers in the order in which requests reach it, and answers a
request as often as it gets it.  So a retry is always the same bytes, a reply
to nothing that is in flight is stale, and a reply to a request that was sent
later than another one means that the other one, or its answer, was lost.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from dataclasses import dataclass
from typing import TextIO

from bnnmcu.errors import (
    DeviceMismatchError,
    LinkError,
    LinkTimeoutError,
    RemoteError,
    UsageError,
)
from bnnmcu.link.fault import FaultReport
from bnnmcu.link.frame import VERSION, Frame, FrameDecoder, encode_frame
from bnnmcu.link.protocol import REPLY, ErrorCode, ErrorReport, MessageType
from bnnmcu.link.timing import LatencyEstimate, Timing
from bnnmcu.link.transport import Transport

__all__ = ["LinkStats", "RequestWindow", "version_mismatch"]

_READ_SIZE = 65536
_TRACE_BYTES = 16
_NAMES = {int(member): member.name for member in MessageType}


@dataclass
class LinkStats:
    """What the link had to put up with.

    Attributes:
        requests: different requests sent.
        retries: transmissions beyond the first of each.
        bad_frames: corrupt frames received.
        stale: sound frames that answered nothing in flight.
    """

    requests: int = 0
    retries: int = 0
    bad_frames: int = 0
    stale: int = 0


@dataclass
class _Pending:
    type: MessageType
    sequence: int
    wire: bytes
    draws: int
    waits: tuple[float, ...]
    reply: Frame | None = None
    ordinal: int = 0
    attempts: int = 0
    repairs: int = 0
    first_sent: float = 0.0
    since: float = 0.0  # when the device could start on it, as far as the host knows
    answered: float = 0.0

    @property
    def name(self) -> str:
        return self.type.name


class RequestWindow:
    """Sends requests and hands out their replies in the same order.

    Args:
        transport: not closed here.
        timing: limits of patience.
        trace: every frame is written here as a line of text.
    """

    def __init__(
        self, transport: Transport, *, timing: Timing | None = None, trace: TextIO | None = None
    ) -> None:
        self.size = 1
        self.stats = LinkStats()
        self._transport = transport
        self._timing = timing or Timing()
        self._trace = trace
        self._latency = LatencyEstimate(self._timing)
        self._decoder = FrameDecoder()
        self._pending: deque[_Pending] = deque()
        self._ordinal = 0
        self._started = time.monotonic()
        # A random start keeps the late answers to an earlier program apart from ours.
        self._sequence = secrets.randbelow(1 << 16)
        self._received = 0
        self._strays = 0

    @property
    def in_flight(self) -> int:
        """Requests whose reply was not collected yet."""
        return len(self._pending)

    @property
    def received(self) -> int:
        """Bytes received so far, sound or not."""
        return self._received

    def submit(
        self, kind: MessageType, payload: bytes, *, draws: int = 0, waits: tuple[float, ...] = ()
    ) -> None:
        """Send a request.

        Args:
            kind: its type.
            payload: its payload.
            draws: inferences it asks for, which sets how long it may take; 0
                for requests that say nothing about the time of inferences.
            waits: seconds for each attempt, instead of measured ones.
        """
        if len(self._pending) >= self.size:
            raise UsageError("more requests in flight than the device can hold")
        if self._strays:
            self._settle()
        self._send_new(kind, payload, draws, waits)

    def collect(self) -> tuple[Frame, float]:
        """Wait for the reply to the oldest request.

        Returns:
            The reply, and the seconds from first sending the request to it.

        Raises:
            RemoteError: the device refused the request, or crashed.
            LinkTimeoutError: no answer after all attempts.
            DeviceMismatchError: it speaks another version of the protocol.
            LinkError: the connection is gone.
        """
        head = self._pending[0]
        while head.reply is None:
            left = head.since + self._patience(head) - time.monotonic()
            if left <= 0:
                self._retry(head)
                continue
            self._take(self._transport.read(_READ_SIZE, left))
        self._pending.popleft()
        if self._pending:
            # The next one is computed only from now on.
            following = self._pending[0]
            following.since = max(following.since, head.answered)
        if head.reply.type == MessageType.ERROR:
            raise self._refusal(head, ErrorReport.unpack(head.reply.payload))
        if head.draws and head.attempts == 1 and not head.repairs:
            self._latency.observe(head.draws, head.answered - head.since)
        return head.reply, head.answered - head.first_sent

    def abandon(self) -> None:
        """Forget the requests in flight, e.g. because nobody wants their replies any more.

        The device still works on them; the next request first waits until it
        is through, so that its buffer does not overflow.
        """
        self._strays += sum(max(1, item.draws) for item in self._pending if item.reply is None)
        self._pending.clear()

    def forget_strays(self) -> None:
        """Let the next request not wait for abandoned ones, e.g. since the board was reset."""
        self._strays = 0

    def _settle(self) -> None:
        draws, self._strays = self._strays, 0
        patience = self._latency.timeout(draws)
        # The device works in order: when this is answered, all the others were.
        self._send_new(MessageType.HELLO, b"", 0, (patience, *self._timing.hello))
        try:
            self.collect()
        except BaseException:
            self._pending.clear()
            self._strays = draws
            raise

    def _send_new(
        self, kind: MessageType, payload: bytes, draws: int, waits: tuple[float, ...]
    ) -> None:
        self._sequence = (self._sequence + 1) & 0xFFFF
        wire = encode_frame(Frame(kind, self._sequence, payload))
        item = _Pending(kind, self._sequence, wire, draws, waits)
        self._pending.append(item)
        self.stats.requests += 1
        item.attempts = 1
        item.first_sent = time.monotonic()
        self._transmit(item)

    def _transmit(self, item: _Pending) -> None:
        self._ordinal += 1
        item.ordinal = self._ordinal
        self._note(">", Frame(item.type, item.sequence, b""), len(item.wire), "")
        self._transport.write(item.wire)
        # After the write, which may block for as long as the line is busy.
        item.since = time.monotonic()

    def _patience(self, item: _Pending) -> float:
        if item.waits:
            return item.waits[item.attempts - 1]
        return float(self._latency.timeout(item.draws) * 2 ** (item.attempts - 1))

    def _retry(self, item: _Pending) -> None:
        limit = len(item.waits) or self._timing.attempts
        if item.attempts >= limit:
            seconds = time.monotonic() - item.first_sent
            raise LinkTimeoutError(
                f"no answer to {item.name} after {item.attempts} attempts in {seconds:.1f} s",
                where=self._transport.name,
                hint="press the board's reset button, or unplug it and plug it in, "
                "and start again; finished results are kept",
            )
        item.attempts += 1
        self.stats.retries += 1
        self._transmit(item)

    def _repair(self, item: _Pending) -> None:
        """Send again at once what must have been lost; the timeout still bounds it all."""
        if item.repairs < self._timing.repairs:
            item.repairs += 1
            self.stats.retries += 1
            self._transmit(item)

    def _take(self, data: bytes) -> None:
        self._received += len(data)
        frames = self._decoder.feed(data)
        for frame in frames:
            self._accept(frame)
        corrupt = self._decoder.bad_frames - self.stats.bad_frames
        if corrupt:
            self.stats.bad_frames += corrupt
            self._say(f"{corrupt} corrupt frames received")
            self._repair_oldest()

    def _accept(self, frame: Frame) -> None:
        self._note("<", frame, len(frame.payload), frame.payload[:_TRACE_BYTES].hex())
        if frame.version != VERSION:
            raise version_mismatch(self._transport.name, frame.version)
        if frame.type == MessageType.FAULT:
            raise self._crash(FaultReport.unpack(frame.payload))
        if frame.type == MessageType.ERROR:
            report = ErrorReport.unpack(frame.payload)
            if report.code in (ErrorCode.BAD_FRAME, ErrorCode.OVERRUN):
                self._repair_oldest()
                return
        item = next((x for x in self._pending if x.sequence == frame.sequence), None)
        answers = item is not None and frame.type in (item.type | REPLY, MessageType.ERROR)
        if item is None or not answers or item.reply is not None:
            self.stats.stale += 1
            return
        item.reply = frame
        item.answered = time.monotonic()
        for other in self._pending:
            if other.reply is None and other.ordinal < item.ordinal:
                self._repair(other)

    def _repair_oldest(self) -> None:
        # The device works in order, so of those in flight the oldest is the one concerned.
        item = next((x for x in self._pending if x.reply is None), None)
        if item is not None:
            self._repair(item)

    def _crash(self, fault: FaultReport) -> RemoteError:
        self.abandon()
        hint = "press the board's reset button"
        if fault.pc:
            hint += f"; 'arm-none-eabi-addr2line -e firmware.elf 0x{fault.pc:08x}' names the line"
        return RemoteError(
            f"the firmware crashed: {fault.text}",
            code=MessageType.FAULT,
            where=self._transport.name,
            hint=hint,
        )

    def _refusal(self, item: _Pending, report: ErrorReport) -> LinkError:
        if report.code == ErrorCode.BAD_VERSION:
            return version_mismatch(self._transport.name, report.detail)
        return RemoteError(
            f"the device refused {item.name}: {report.text}",
            code=report.code,
            where=self._transport.name,
            hint="rebuild the firmware with this bnnmcu and flash it",
        )

    def _note(self, way: str, frame: Frame, size: int, head: str) -> None:
        if self._trace is not None:
            bare = frame.type if frame.type >= MessageType.FAULT else frame.type & ~REPLY
            name = _NAMES.get(bare, f"0x{frame.type:02x}")
            self._say(f"{way} {name} seq={frame.sequence} size={size} {head}".rstrip())

    def _say(self, text: str) -> None:
        if self._trace is not None:
            self._trace.write(f"{time.monotonic() - self._started:10.4f} {text}\n")


def version_mismatch(where: str, version: int) -> DeviceMismatchError:
    """The error for a device at ``where`` that speaks another protocol version."""
    return DeviceMismatchError(
        f"the firmware speaks protocol version {version}, this bnnmcu version {VERSION}",
        where=where,
        hint="export, build and flash the firmware again with this bnnmcu",
    )
