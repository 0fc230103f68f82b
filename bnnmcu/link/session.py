"""A conversation with one board that outlives its connection.

Finds the board, checks what it is, and agrees on a baud.  When the port goes,
or the board falls silent (it was reset, and forgot the baud, too), it does all
of that again, and then sends once more what was not answered.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import TextIO

from bnnmcu.errors import (
    DeviceMismatchError,
    LinkError,
    LinkTimeoutError,
    PortGoneError,
    RemoteError,
)
from bnnmcu.link.baud import BaudPlan, give_back, negotiate
from bnnmcu.link.complaints import located, version_mismatch
from bnnmcu.link.frame import VERSION
from bnnmcu.link.hello import DeviceInfo, ImageState
from bnnmcu.link.protocol import MessageType
from bnnmcu.link.stats import LinkStats
from bnnmcu.link.timing import Stopwatch, Timing
from bnnmcu.link.trace import Trace
from bnnmcu.link.transport import Transport
from bnnmcu.link.window import Reply, RequestWindow, SilenceError

__all__ = ["MAX_WINDOW", "Session", "damaged"]

#: Requests in flight at most, however many the device would take: more would
#: only sit in its buffers.
MAX_WINDOW = 8

#: Seconds of one try to reconnect at most, so that a clock that jumps ends no more than that.
_TRY = 60.0

#: Seconds that closing may take to find the device idle, so that its baud can be given back.
_FAREWELL = 1.0

#: A baud that carried fewer answers than this before the line fell silent is not tried again.
_PROOF = 50


class Session:
    """Greets a device, and keeps the conversation going.

    Args:
        transport: from now on the session's.
        timing: limits of patience.
        trace: takes the log.
        expect_model: SHA-256 of the integer graph that the board must run.
        reopen: opens the same port again after it has gone; None to give up then.
        reconnect: seconds in which that must succeed.
        baud: which bauds to choose from; None to stay.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        timing: Timing,
        trace: TextIO | None = None,
        expect_model: bytes | None = None,
        reopen: Callable[[], Transport] | None = None,
        reconnect: float = 60.0,
        baud: BaudPlan | None = None,
    ) -> None:
        self._transport = transport
        self._timing = timing
        self._trace = Trace(trace, timing.clock)
        self._window = RequestWindow(transport, timing, self._trace)
        self._expect_model = expect_model
        self._reopen = reopen
        self._reconnect = reconnect
        self._plan = baud
        self._baud = baud.start if baud else 0
        self._proven = 0
        self._fruitless = 0
        self._answered = 0
        self._heard = 0.0  # by the clock, when it answered last
        self._retries = 0  # when it was greeted last
        self._info: DeviceInfo | None = None
        self._lost: LinkError | None = None  # why nobody is known to be there now

    @property
    def name(self) -> str:
        """What the transport calls itself."""
        return self._transport.name

    @property
    def stats(self) -> LinkStats:
        """What the link had to put up with so far."""
        return self._window.stats

    @property
    def baud(self) -> int | None:
        """Bits per second of the line; None where nothing was to be agreed on."""
        return self._baud or None

    @property
    def window(self) -> int:
        """Requests that may be in flight."""
        return self._window.size

    @property
    def info(self) -> DeviceInfo:
        """What the device said of itself when it was last greeted."""
        assert self._info is not None, "not connected yet"
        return self._info

    def connect(self) -> DeviceInfo:
        """Forget all requests, find the frame boundary, greet the device and check what it is.

        Raises:
            LinkTimeoutError: nothing that speaks the protocol answers.
            DeviceMismatchError: another model or protocol version, or a damaged firmware.
            LinkError: the connection is gone, or the answer makes no sense.
        """
        window = self._window
        window.abandon()
        window.forget_strays()  # the greeting itself waits for whatever is still being worked on
        self._info = None
        self._fruitless = 0
        if self._lost is not None:
            self._recover(self._lost)
            return self.info
        try:
            self._transport.reset_input()
            self._meet()
        except PortGoneError as error:
            self._recover(error)
        return self.info

    def submit(self, kind: MessageType, payload: bytes, *, draws: int = 0) -> None:
        """Send a request; see :meth:`RequestWindow.submit`."""
        if self._lost is not None:
            # Whoever is there now was not checked.
            self._recover(self._lost)
        if self._window.strays:
            self._settle()
        else:
            self._look_again()
        try:
            self._window.submit(kind, payload, draws=draws)
        except (PortGoneError, SilenceError) as error:
            self._recover(error)

    def collect(self) -> Reply:
        """The reply to the oldest request, whatever it takes.

        Raises:
            RemoteError: the device refused the request, or crashed.
            LinkTimeoutError: no answer after all attempts.
            DeviceMismatchError: another board, or another firmware, has come back.
            LinkError: the connection is gone for good.
        """
        while True:
            try:
                reply = self._window.collect()
            except (PortGoneError, SilenceError) as error:
                self._recover(error)
            else:
                self._answered += 1
                self._fruitless = 0
                if self.stats.retries != self._retries:
                    # Something was lost: if that was a reset, the firmware may be another one.
                    waits = (self._window.head_wait,) if self._window.in_flight else ()
                    self._ask_again((*waits, *self._timing.hello))
                self._heard = self._timing.clock()
                return reply

    def abandon(self) -> None:
        """Forget the requests in flight; see :meth:`RequestWindow.abandon`."""
        self._window.abandon()

    def exchange(self, kind: MessageType, payload: bytes, *, waits: tuple[float, ...]) -> bytes:
        """See :class:`~bnnmcu.link.baud.BaudLine`."""
        return self._window.ask(kind, payload, waits)

    def set_baud(self, baud: int) -> None:
        """See :class:`~bnnmcu.link.baud.BaudLine`."""
        self._transport.set_baud(baud)  # type: ignore[attr-defined]  # looked for before
        self._baud = baud
        self._trace.event(f"the line is at {baud} baud")

    def close(self) -> None:
        """Leave the device as it was found, and give the connection back."""
        try:
            if self._plan is not None and self._baud != self._plan.start:
                with contextlib.suppress(LinkError):
                    # It may still be at what was in flight when we were interrupted.
                    self._window.ask(MessageType.HELLO, b"", (_FAREWELL,))
                    give_back(self, self._plan, self._baud)
                self._baud = self._plan.start
        finally:
            self._transport.close()

    def _look_again(self) -> None:
        """After a pause: somebody may have changed what is on the board."""
        if abs(self._timing.clock() - self._heard) >= self._timing.idle:
            # A board that is not at work answers at once.
            self._ask_again(self._timing.hello[: None if self._window.in_flight else 2])

    def _ask_again(self, waits: tuple[float, ...]) -> None:
        """Greet the device and compare."""
        try:
            self._checked(self._window.ask(MessageType.HELLO, b"", waits, repair=True))
        except DeviceMismatchError as error:
            # Nothing is asked of it, now or later, before it was seen to be the right one.
            self._lost = error
            raise
        except (PortGoneError, LinkTimeoutError) as error:
            self._recover(error)
        self._heard = self._timing.clock()
        self._retries = self.stats.retries

    def _settle(self) -> None:
        """Wait until the device is through with what was abandoned."""
        # It works in order: when this is answered, all the others were.
        self._ask_again((self._window.stray_wait, *self._timing.hello))
        self._window.forget_strays()

    def _recover(self, cause: LinkError) -> None:
        """Find the board again, and send what it did not answer."""
        gone = isinstance(cause, PortGoneError)
        if gone and self._reopen is None:
            raise cause
        self._lost = cause
        self._trace.event(f"{cause.what}; looking for the board")
        limit = self._reconnect if self._reopen else self._timing.patience
        watch = Stopwatch(self._timing.clock)
        while self._lost is not None:
            if self._fruitless > self._timing.repairs:
                raise cause
            try:
                if gone and self._reopen is not None:
                    self._open(self._reopen)
                self._meet()
                self._fruitless += 1
                self._window.forget_strays()
                self._window.resend()
                self._lost = None
                self._trace.event("the board is back")
            except (DeviceMismatchError, RemoteError):
                raise
            except LinkError as error:
                # A port that carries nothing any more may be worth opening again.
                gone = self._reopen is not None
                watch.lap(_TRY)
                if watch.total >= limit:
                    raise self._given_up(cause, error, watch.total) from error
                self._timing.sleep(self._timing.pause)

    def _open(self, reopen: Callable[[], Transport]) -> None:
        self._transport.close()
        self._transport = reopen()
        self._window.attach(self._transport)
        self._transport.reset_input()
        if self._plan is not None:
            self._baud = self._plan.start
        self.stats.reconnects += 1
        self._trace.event(f"connected again to {self.name}")

    def _meet(self) -> None:
        """Greet the device, and agree on a baud.  Requests in flight stay where they are."""
        plan, payload = self._plan, b""
        if plan is not None and self._baud != plan.start:
            with contextlib.suppress(LinkTimeoutError):
                payload = self._window.ask(MessageType.HELLO, b"", self._timing.hello[:1])
            if not payload:
                if self._answered - self._proven < _PROOF:
                    self._plan = replace(plan, most=plan.start)
                # After a reset the board has forgotten; otherwise it follows by itself.
                self.set_baud(plan.start)
        info = self._checked(payload or self._greet())
        self._window.size = min(info.window, MAX_WINDOW)
        self._info = info
        self._heard = self._timing.clock()
        self._retries = self.stats.retries
        if ImageState.FAULTED in info.state:
            self._trace.event("an earlier run of the firmware ended in a crash")
        if self._plan is not None and self._baud == self._plan.start:
            self._speed_up(self._plan)

    def _greet(self) -> bytes:
        before = self.stats.bytes_in
        try:
            return self._window.ask(MessageType.HELLO, b"", self._timing.hello, repair=True)
        except SilenceError:
            raise
        except LinkTimeoutError as error:
            raise self._silent(self.stats.bytes_in - before) from error

    def _speed_up(self, plan: BaudPlan) -> None:
        if plan.most <= plan.start or not hasattr(self._transport, "set_baud"):
            return
        try:
            self._baud = negotiate(self, plan, self._trace.event)
            self._proven = self._answered
        except LinkTimeoutError:
            # Whatever is in the way of a faster line, the slow one worked.
            self._plan = replace(plan, most=plan.start)
            self.set_baud(plan.start)
            self._greet()

    def _checked(self, payload: bytes) -> DeviceInfo:
        # Before unpacking: another version may lay out the rest in another way.
        if not payload or payload[0] != VERSION:
            raise version_mismatch(self.name, payload[0] if payload else 0)
        with located(self.name):
            info = DeviceInfo.unpack(payload)
        if self._expect_model is not None and info.model_sha256 != self._expect_model:
            raise DeviceMismatchError(
                f"the board runs {info.model!r} ({info.model_sha256.hex()[:16]}...), "
                f"expected was {self._expect_model.hex()[:16]}...",
                where=self.name,
                hint="flash the firmware of this model, or name the project that is on the board",
            )
        if ImageState.CORRUPT in info.state:
            raise damaged(self.name)
        if self._info is not None:
            self._compare(self._info, info)
        return info

    def _compare(self, before: DeviceInfo, now: DeviceInfo) -> None:
        """What comes back must be what went."""
        for what, old, new in (
            ("board", before.board, now.board),
            ("model", before.model_sha256.hex()[:16], now.model_sha256.hex()[:16]),
            ("firmware", before.firmware, now.firmware),
            ("build", _fixed(before), _fixed(now)),
        ):
            if old != new:
                detail = "" if what == "build" else f": {new}, before it was {old}"
                raise DeviceMismatchError(
                    f"another {what} answers than before the connection was lost{detail}",
                    where=self.name,
                    hint="connect the board that this was begun with, and start again; "
                    "finished results are kept",
                )

    def _given_up(self, cause: LinkError, last: LinkError, seconds: float) -> LinkError:
        if isinstance(cause, PortGoneError):
            return PortGoneError(
                f"{cause.what}, and did not come back within {seconds:.0f} s: {last.what}",
                where=cause.where,
                hint=last.hint,
            )
        if self._window.in_flight:
            return self._window.unanswered()
        return last

    def _silent(self, received: int) -> LinkTimeoutError:
        if received:
            return LinkTimeoutError(
                f"{received} bytes came, but no valid answer: not the bnnmcu firmware, "
                "or another baud rate",
                where=self.name,
                hint="check --baud (115200 unless the board file says otherwise), or flash "
                "the firmware",
            )
        return LinkTimeoutError(
            "nothing answers",
            where=self.name,
            hint="check that this is the board's port and that the firmware is flashed, and "
            "press its reset button",
        )


def damaged(where: str) -> DeviceMismatchError:
    """The firmware in the flash of the board at ``where`` is not what was built."""
    return DeviceMismatchError(
        "the firmware in the board's flash is damaged: it does not match the checksum that "
        "it was built with, so no answer of it could be trusted",
        where=where,
        hint="flash it again; if that does not help, the flash is worn out or broken",
    )


def _fixed(info: DeviceInfo) -> DeviceInfo:
    """What a reset changes nothing of."""
    return replace(info, stack_free=0, reset=0, state=ImageState(0))
