"""Requests in flight: sequence numbers, retries, and replies in order.

The device answers in the order in which requests reach it, and answers a
request as often as it gets it.  So a retry is always the same bytes, a reply
to nothing that is in flight is stale, and a reply to a request that was sent
later than another one means that the other one, or its answer, was lost.

Time is counted while listening only: a host that was busy, or asleep, has not
waited, and what has come in the meantime is read before anything is sent again.
"""

from __future__ import annotations

import secrets
from collections import deque
from dataclasses import dataclass

from bnnmcu.errors import LinkTimeoutError, UsageError
from bnnmcu.link.complaints import crashed, no_answer, refused, version_mismatch
from bnnmcu.link.fault import FaultReport
from bnnmcu.link.frame import VERSION, Frame, FrameDecoder, encode_frame
from bnnmcu.link.protocol import REPLY, ErrorCode, ErrorReport, MessageType
from bnnmcu.link.stats import LinkStats
from bnnmcu.link.timing import LatencyEstimate, Stopwatch, Timing
from bnnmcu.link.trace import Trace
from bnnmcu.link.transport import Transport

__all__ = ["Reply", "RequestWindow", "SilenceError"]

_READ_SIZE = 65536

#: Seconds of one read at most, so that a clock that jumps ends no more than that.
_SLICE = 1.0

#: Seconds that are nothing: sums of laps may miss a wait by a rounding error.
_HAIR = 1e-6

#: Waits in vain for one request before the device is asked whether it is there at all.
_UNHEARD = 2


class SilenceError(LinkTimeoutError):
    """Too quiet to send a request again before knowing whether anybody is there."""


@dataclass(frozen=True)
class Reply:
    """The answer to a request.

    Attributes:
        frame: as it came.
        seconds: from first sending the request to it.
        attempts: transmissions of the request, 1 if none was lost.
    """

    frame: Frame
    seconds: float
    attempts: int


@dataclass
class _Pending:
    type: MessageType
    sequence: int
    wire: bytes
    draws: int = 0
    reply: Frame | None = None
    on_line: bool = False  # sent over the connection that there is now
    ordinal: int = 0
    attempts: int = 0
    repairs: int = 0
    unheard: int = 0
    first_sent: float = 0.0
    since: float = 0.0  # when the device could start on it, as far as the host knows
    waiting_since: float = 0.0  # the same, in seconds of listening
    late_start: bool = False  # the device may have started on it long before that
    answered: float = 0.0
    answered_after: float = 0.0  # the same, in seconds of listening


class RequestWindow:
    """Sends requests and hands out their replies in the same order.

    Args:
        transport: not closed here.
        timing: limits of patience.
        trace: is told of every frame.
    """

    def __init__(self, transport: Transport, timing: Timing, trace: Trace) -> None:
        self.size = 1
        self.stats = LinkStats()
        self._transport = transport
        self._timing = timing
        self._trace = trace
        self._clock = timing.clock
        self._latency: dict[MessageType, LatencyEstimate] = {}
        self._decoder = FrameDecoder()
        self._pending: deque[_Pending] = deque()
        self._urgent: _Pending | None = None
        self._ordinal = 0
        # A random start keeps the late answers to an earlier program apart from ours.
        self._sequence = secrets.randbelow(1 << 16)
        self._listening = Stopwatch(self._clock)
        self._heard = 0.0  # seconds of listening at the last answer to something in flight
        self._strays = 0

    @property
    def in_flight(self) -> int:
        """Requests whose reply was not collected yet."""
        return len(self._pending)

    @property
    def strays(self) -> bool:
        """Whether the device may still be at requests that were abandoned."""
        return self._strays > 0

    @property
    def head_wait(self) -> float:
        """Seconds in which the oldest request in flight should be answered."""
        head = self._pending[0]
        return self._estimate(head.type).wait(head.draws)

    @property
    def stray_wait(self) -> float:
        """Seconds in which it should have answered those."""
        return self._estimate(MessageType.INFER).wait(self._strays)

    def submit(self, kind: MessageType, payload: bytes, *, draws: int = 0) -> None:
        """Send a request.

        Args:
            kind: its type.
            payload: its payload.
            draws: inferences it asks for, which sets how long it may take; 0
                for requests that say nothing about the time of inferences.

        Raises:
            LinkError: it could not be sent; it is in flight all the same, see :meth:`resend`.
        """
        if len(self._pending) >= self.size:
            raise UsageError("more requests in flight than the device can hold")
        item = self._new(kind, payload, draws)
        if not self._pending:
            self._heard = self._listening.total
        self._pending.append(item)
        self._transmit(item)

    def collect(self) -> Reply:
        """Wait for the reply to the oldest request.

        Raises:
            SilenceError: find out whether the device is there, then call :meth:`resend`
                and this again.
            RemoteError: the device refused the request, or crashed.
            LinkTimeoutError: no answer after all attempts.
            DeviceMismatchError: it speaks another version of the protocol.
            PortGoneError: the connection is gone.
        """
        head = self._pending[0]
        while head.reply is None:
            waited = self._listening.total - head.waiting_since
            left = self._estimate(head.type).wait(head.draws) - waited
            if left > _HAIR:
                self._listen(left)
            else:
                self._late(head)
        self._pending.popleft()
        if self._pending:
            # The next one is computed only from now on.
            following = self._pending[0]
            # If the answer before it was read late, it may be there by now, too.
            following.late_start = head.answered > following.since and not _prompt(head)
            following.since = max(following.since, head.answered)
            following.waiting_since = max(following.waiting_since, head.answered_after)
        if head.reply.type == MessageType.ERROR:
            raise refused(self._transport.name, head.type, ErrorReport.unpack(head.reply.payload))
        if head.attempts == 1 and not head.late_start:
            self._observe(head)
        return Reply(head.reply, max(0.0, head.answered - head.first_sent), head.attempts)

    def ask(
        self, kind: MessageType, payload: bytes, waits: tuple[float, ...], *, repair: bool = False
    ) -> bytes:
        """Send a request past those in flight, and wait for its reply.

        Replies to the others are taken, but nothing of theirs is sent again.

        Args:
            kind: its type.
            payload: its payload.
            waits: seconds for each transmission.
            repair: send it again at once, too, where a frame was corrupt.

        Returns:
            The reply's payload.

        Raises:
            LinkError: see :meth:`collect`.
        """
        item = self._new(kind, payload, 0)
        if not repair:
            item.repairs = self._timing.repairs
        self._urgent = item
        began = self._listening.total
        try:
            for wait in waits:
                self._transmit(item)
                while item.reply is None:
                    left = wait - (self._listening.total - item.waiting_since)
                    if left <= _HAIR:
                        break
                    self._listen(left)
                if item.reply is not None:
                    break
                self._in_vain(item, wait)
        finally:
            self._urgent = None
            # Those in flight were not waited for meanwhile.
            now = self._listening.total
            self._heard = min(now, self._heard + now - began)
        if item.reply is None:
            raise self._no_answer(item)
        if item.reply.type == MessageType.ERROR:
            raise refused(self._transport.name, kind, ErrorReport.unpack(item.reply.payload))
        return item.reply.payload

    def resend(self) -> None:
        """Send all requests in flight again that were not answered, the oldest first.

        Raises:
            LinkError: that did not work; the rest is still in flight.
        """
        for item in self._pending:
            if item.reply is None:
                self._transmit(item)

    def attach(self, transport: Transport) -> None:
        """Go on over another connection; what came over the old one is done with."""
        self._transport = transport
        self._decoder.reset()
        for item in self._pending:
            item.on_line = False

    def abandon(self) -> None:
        """Forget the requests in flight, e.g. because nobody wants their replies any more.

        The device still works on them; before the next request it must be
        waited for (:attr:`strays`), so that its buffer does not overflow.
        """
        self._strays += sum(max(1, item.draws) for item in self._pending if item.reply is None)
        self._pending.clear()

    def forget_strays(self) -> None:
        """The device is known to be idle."""
        self._strays = 0

    def unanswered(self) -> LinkTimeoutError:
        """The error that gives up the oldest request in flight."""
        return self._no_answer(self._pending[0])

    def _estimate(self, kind: MessageType) -> LatencyEstimate:
        return self._latency.setdefault(kind, LatencyEstimate(self._timing))

    def _observe(self, item: _Pending) -> None:
        listened = item.answered_after - item.waiting_since
        seconds = max(listened, item.answered - item.since)
        self._estimate(item.type).observe(item.draws, seconds, exact=_prompt(item))

    def _new(self, kind: MessageType, payload: bytes, draws: int) -> _Pending:
        self._sequence = (self._sequence + 1) & 0xFFFF
        wire = encode_frame(Frame(kind, self._sequence, payload))
        self.stats.requests += 1
        return _Pending(kind, self._sequence, wire, draws)

    def _transmit(self, item: _Pending) -> None:
        self._ordinal += 1
        item.ordinal = self._ordinal
        item.attempts += 1
        if item.attempts == 1:
            item.first_sent = self._clock()
        else:
            self.stats.retries += 1
        item.on_line = True
        self._trace.sent(Frame(item.type, item.sequence, b""), len(item.wire))
        # Before writing, too: it may fail half-way.
        item.since, item.waiting_since = self._clock(), self._listening.total
        self.stats.bytes_out += len(item.wire)
        try:
            self._transport.write(item.wire)
        except LinkTimeoutError as error:
            raise SilenceError(error.what, where=error.where, hint=error.hint) from error
        # After it again: it may block for as long as the line is busy.
        item.since = self._clock()

    def _late(self, item: _Pending) -> None:
        estimate = self._estimate(item.type)
        self._in_vain(item, estimate.wait(item.draws))
        estimate.in_vain()
        quiet = self._listening.total - self._heard
        error = self._no_answer(item)
        if item.attempts >= self._timing.attempts and quiet >= self._timing.patience:
            raise error
        item.unheard += 1
        if item.unheard >= _UNHEARD:
            # Its buffers, or the line's, may be full of transmissions of this.
            item.unheard = 0
            raise SilenceError(error.what, where=error.where, hint=error.hint)
        self._transmit(item)

    def _no_answer(self, item: _Pending) -> LinkTimeoutError:
        seconds = max(0.0, self._clock() - item.first_sent)
        return no_answer(self._transport.name, item.type, item.attempts, seconds)

    def _in_vain(self, item: _Pending, seconds: float) -> None:
        self.stats.timeouts += 1
        self._trace.event(f"{item.type.name} seq={item.sequence}: no answer in {seconds:.3f} s")

    def _listen(self, seconds: float) -> None:
        """Take what comes, waiting at most so long for it."""
        asked = min(seconds, _SLICE)
        self._listening.start()
        data = self._transport.read(_READ_SIZE, asked)
        self._listening.lap(asked)
        if data:
            self._take(data)
            # Or a flood that takes long to read would never come to an end.
            self._listening.lap(_SLICE)

    def _take(self, data: bytes) -> None:
        self.stats.bytes_in += len(data)
        before = self.stats.reported
        for frame in self._decoder.feed(data):
            self._accept(frame)
        corrupt = self._decoder.bad_frames - self.stats.bad_frames
        if corrupt:
            self.stats.bad_frames += corrupt
            self._trace.event(f"{corrupt} corrupt frames received")
        if corrupt or self.stats.reported > before:
            # Once, however many pieces one loss was received in.
            self._repair_oldest()

    def _accept(self, frame: Frame) -> None:
        self._trace.received(frame)
        if frame.version != VERSION:
            raise version_mismatch(self._transport.name, frame.version)
        if frame.type == MessageType.FAULT:
            self.abandon()
            raise crashed(self._transport.name, FaultReport.unpack(frame.payload))
        if frame.type == MessageType.ERROR:
            report = ErrorReport.unpack(frame.payload)
            if report.code in (ErrorCode.BAD_FRAME, ErrorCode.OVERRUN):
                self.stats.reported += 1
                return
        item = self._addressee(frame)
        if item is None:
            self.stats.stale += 1
            return
        item.reply = frame
        item.answered = self._clock()
        item.answered_after = self._listening.total
        if item is not self._urgent:
            self._heard = self._listening.total
        for other in self._pending:
            other.unheard = 0
            if other.reply is None and other.ordinal < item.ordinal:
                self._repair(other)

    def _addressee(self, frame: Frame) -> _Pending | None:
        """What a frame answers of what is waiting for an answer."""
        for item in (self._urgent, *self._pending):
            if item is None or item.sequence != frame.sequence or item.reply is not None:
                continue
            if item.on_line and frame.type in (item.type | REPLY, MessageType.ERROR):
                return item
        return None

    def _repair_oldest(self) -> None:
        # The device works in order, so of those in flight the oldest is the one concerned.
        item = next((x for x in (self._urgent, *self._pending) if x and x.reply is None), None)
        if item is not None:
            self._repair(item)

    def _repair(self, item: _Pending) -> None:
        """Send again at once what must have been lost; the timeout still bounds it all."""
        # While something is asked, the rest waits: it is sent again afterwards.
        if self._urgent is not None and item is not self._urgent:
            return
        if item.repairs < self._timing.repairs:
            item.repairs += 1
            self._transmit(item)


def _prompt(item: _Pending) -> bool:
    """Whether an answer was read as soon as it came.

    Where the host was away for most of the time (or the clock jumped), it may
    have been there long before.
    """
    listened = item.answered_after - item.waiting_since
    return listened > 0 and 2 * listened >= item.answered - item.since
