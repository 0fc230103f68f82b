"""The board as an object: images in, logits out, over any transport.

    with Device(open_port("/dev/ttyACM0"), expect_model=sha256) as device:
        result = device.infer(image, seeds=[1, 2, 3])

Every request carries its seeds, so that an answer can be had again bit for bit;
only a board in field mode (``info.field``) draws its own, and of seeds only
their number counts.  Not for use from several threads at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from bnnmcu.errors import UsageError
from bnnmcu.link.baud import BaudPlan
from bnnmcu.link.complaints import located
from bnnmcu.link.fault import FaultReport
from bnnmcu.link.field import FieldInferReply, FieldInferRequest
from bnnmcu.link.hello import DeviceInfo, ImageState
from bnnmcu.link.protocol import (
    CheckReply,
    CountersReply,
    InferReply,
    InferRequest,
    MessageType,
    SampleReply,
    SampleRequest,
)
from bnnmcu.link.session import Session, damaged
from bnnmcu.link.stats import LinkStats
from bnnmcu.link.timing import Timing
from bnnmcu.link.transport import Transport
from bnnmcu.link.window import Reply

__all__ = ["Device", "Inference"]

_WORD_BYTES = 4


@dataclass(frozen=True)
class Inference:
    """What the device answered for one image.

    Attributes:
        logits: int64, shape ``(n_seeds, classes)``.
        ticks: uint32, shape ``(n_seeds,)``; what a tick is, ``DeviceInfo.counter`` says.
        polluted: bytes were received during a count, so ``ticks`` is too high
            somewhere.  Usual in :meth:`Device.infer_many` on a board.
        seconds: host time from sending the request to having the reply; with
            several requests in flight, waiting for the earlier ones included.
        attempts: transmissions of the request that it took, 1 if nothing was
            lost; where the seeds needed several requests, the most of them.
        counters: uint64, shape ``(n_seeds,)``: of a board in field mode, the value of
            its counter for each draw; None of any other.
    """

    logits: npt.NDArray[np.int64]
    ticks: npt.NDArray[np.uint32]
    polluted: bool
    seconds: float
    attempts: int = 1
    counters: npt.NDArray[np.uint64] | None = None


@dataclass(frozen=True)
class _Part:
    """A piece of a request: as many seeds as one frame holds."""

    image: bytes
    seeds: tuple[int, ...]
    last: bool


#: The answer to a part, the first value of the board's counter if it has one, and the reply.
_Done = tuple[InferReply, int | None, Reply]


class Device:
    """A connected board, emulator or host process that runs the bnnmcu server.

    Args:
        transport: from now on the device's: it is closed with it, also when
            connecting fails.
        expect_model: SHA-256 of the integer graph that the board must run.
        trace: every frame, and whatever went wrong, is written here as a line of text.
        timing: limits of patience.
        reopen: opens the same port again after it has gone, e.g. what
            :func:`bnnmcu.link.reconnect.port_opener` returns; requests in
            flight are then sent again, to the same board with the same
            firmware and to no other.  None to give up when the port goes.
        reconnect: seconds in which that must succeed.
        baud: go over to a faster line where the transport, the bridge and the
            board can; None to stay at the one that the port was opened with.

    Raises:
        LinkTimeoutError: nothing that speaks the protocol answers.
        DeviceMismatchError: another model, another protocol version, or a damaged firmware.
        LinkError: the connection is gone, or the answer makes no sense.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        expect_model: bytes | None = None,
        trace: TextIO | None = None,
        timing: Timing | None = None,
        reopen: Callable[[], Transport] | None = None,
        reconnect: float = 60.0,
        baud: BaudPlan | None = None,
    ) -> None:
        self._session = Session(
            transport,
            timing=timing or Timing(),
            trace=trace,
            expect_model=expect_model,
            reopen=reopen,
            reconnect=reconnect,
            baud=baud,
        )
        self._streaming = False
        try:
            self._session.connect()
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """What the transport calls itself, e.g. ``/dev/ttyACM0``."""
        return self._session.name

    @property
    def info(self) -> DeviceInfo:
        """What the device said of itself when it was last greeted."""
        return self._session.info

    @property
    def baud(self) -> int | None:
        """Bits per second of the line; None where ``baud`` was not given."""
        return self._session.baud

    @property
    def stats(self) -> LinkStats:
        """What the link had to put up with so far."""
        return self._session.stats

    def connect(self) -> DeviceInfo:
        """Find the frame boundary, greet the device and check what it is.

        Called on construction; call it again after the board was reset.
        """
        self._check_idle()
        return self._session.connect()

    def infer(self, image: npt.NDArray[np.uint8], seeds: Sequence[int]) -> Inference:
        """Classify one image, once per seed, with nothing else in flight.

        Args:
            image: uint8, shape ``info.input_shape``.
            seeds: any number of unsigned 64-bit integers, at least one.  A
                deterministic model ignores their values, as does a board in
                field mode: ``range(n)`` asks it for n draws.

        Raises:
            UsageError: an image or seeds that no device could take.
            LinkError: see :meth:`infer_many`.
        """
        (result,) = self._infer_all([(image, seeds)], window=1)
        return result

    def infer_many(
        self, requests: Iterable[tuple[npt.NDArray[np.uint8], Sequence[int]]]
    ) -> Iterator[Inference]:
        """Classify many images; the next one travels while this one is computed.

        Requests are drawn from the iterable as the device can take them, and
        answered in order.  Until the iterator is exhausted or closed, nothing
        else can be asked of the device.

        Raises:
            UsageError: an image or seeds that no device could take.
            RemoteError: the device refused a request or crashed.
            LinkTimeoutError: a request got no answer after all attempts.
            DeviceMismatchError: another board came back after the connection was lost.
            LinkError: the connection is gone for good.
        """
        return self._infer_all(requests, window=self._session.window)

    def counters(self) -> npt.NDArray[np.uint32]:
        """Ticks of every layer in the last inference: uint32, shape ``(layers,)``.

        Raises:
            RemoteError: nothing was inferred yet.
        """
        self._check_idle()
        payload = self._exchange(MessageType.COUNTERS, b"")
        with located(self.name):
            return CountersReply.unpack(payload, layers=len(self.info.layers)).ticks

    def sample(self, layer: int, seed: int, words: int | None = None) -> npt.NDArray[np.uint32]:
        """The weights that a seed draws for a layer, as packed words.

        Args:
            layer: its index in ``info.layers``.
            seed: unsigned 64-bit integer.
            words: how many, from the first on; all of them by default.

        Returns:
            uint32, shape ``(words,)``.

        Raises:
            UsageError: the layer draws no weights, or not that many.
        """
        self._check_idle()
        if not 0 <= layer < len(self.info.layers) or not self.info.layers[layer].sampled_words:
            names = [f"{i} ({x.name})" for i, x in enumerate(self.info.layers) if x.sampled_words]
            raise UsageError(
                f"layer {layer} draws no weights",
                hint=f"those that do: {', '.join(names) or 'none'}",
            )
        total = self.info.layers[layer].sampled_words
        count = total if words is None else words
        if not 1 <= count <= total:
            raise UsageError(f"{count} words wanted, but the layer draws {total}")
        most = min(self.info.max_reply // _WORD_BYTES, 0xFFFF)
        parts = []
        for first in range(0, count, most):
            size = min(most, count - first)
            request = SampleRequest(layer, _seed(seed), first, size)
            payload = self._exchange(MessageType.SAMPLE, request.pack())
            with located(self.name):
                parts.append(SampleReply.unpack(payload, count=size).words)
        return np.concatenate(parts)

    def check_image(self) -> CheckReply:
        """Have the device compute the checksum of the firmware in its flash, now.

        Raises:
            DeviceMismatchError: it is not the one that was recorded.
        """
        self._check_idle()
        payload = self._exchange(MessageType.CHECK, b"")
        with located(self.name):
            reply = CheckReply.unpack(payload)
        if reply.found != reply.expected:
            raise damaged(self.name)
        return reply

    def last_fault(self) -> FaultReport | None:
        """The fault that ended an earlier run, kept over the reset; None if there is none.

        It is told once: the device forgets it.
        """
        self._check_idle()
        if ImageState.FAULTED not in self.info.state:
            return None
        payload = self._exchange(MessageType.LAST_FAULT, b"")
        with located(self.name):
            return FaultReport.unpack(payload)

    def close(self) -> None:
        """Give the connection back; calling it twice does no harm."""
        self._session.close()

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _exchange(self, kind: MessageType, payload: bytes) -> bytes:
        try:
            self._session.submit(kind, payload)
            return self._session.collect().frame.payload
        finally:
            self._session.abandon()

    def _infer_all(
        self, requests: Iterable[tuple[npt.NDArray[np.uint8], Sequence[int]]], *, window: int
    ) -> Iterator[Inference]:
        self._check_idle()
        parts = (part for image, seeds in requests for part in self._split(image, seeds))
        sent: deque[_Part] = deque()
        done: list[_Done] = []
        self._streaming = True
        try:
            more = True
            while more or sent:
                while more and len(sent) < window:
                    part = next(parts, None)
                    if part is None:
                        more = False
                        break
                    request = self._request(part)
                    self._session.submit(MessageType.INFER, request, draws=len(part.seeds))
                    sent.append(part)
                if sent:
                    reply = self._session.collect()
                    part = sent.popleft()
                    done.append((*self._unpack(reply.frame.payload, len(part.seeds)), reply))
                    if part.last:
                        yield _join(done)
                        done = []
        finally:
            self._streaming = False
            self._session.abandon()

    def _split(self, image: npt.NDArray[Any], seeds: Sequence[int]) -> Iterator[_Part]:
        if image.dtype != np.uint8 or image.shape != self.info.input_shape:
            raise UsageError(
                f"an image of {image.dtype} {image.shape}; the board runs {self.info.model!r}, "
                f"which takes uint8 {self.info.input_shape}"
            )
        checked = tuple(_seed(seed) for seed in seeds)
        if not checked:
            raise UsageError("an inference needs at least one seed")
        pixels = image.tobytes()
        most = self.info.max_seeds
        for first in range(0, len(checked), most):
            yield _Part(pixels, checked[first : first + most], first + most >= len(checked))

    def _request(self, part: _Part) -> bytes:
        if self.info.field:
            return FieldInferRequest(part.image, len(part.seeds)).pack()
        return InferRequest(part.image, part.seeds).pack()

    def _unpack(self, payload: bytes, seeds: int) -> tuple[InferReply, int | None]:
        """The answer, and the first value of the counter of a board in field mode."""
        info = self.info
        with located(self.name):
            if info.field:
                found = FieldInferReply.unpack(
                    payload, draws=seeds, classes=info.classes, logit_bytes=info.logit_bytes
                )
                return found.answer, found.first
            answer = InferReply.unpack(
                payload, seeds=seeds, classes=info.classes, logit_bytes=info.logit_bytes
            )
            return answer, None

    def _check_idle(self) -> None:
        if self._streaming:
            raise UsageError(
                "the device is still answering an infer_many()",
                hint="exhaust that iterator, or close() it, before asking for something else",
            )


def _seed(seed: int) -> int:
    value = int(seed)  # numpy integers too
    if not 0 <= value < 1 << 64:
        raise UsageError(f"seed {seed} is not an unsigned 64-bit number")
    return value


def _join(parts: list[_Done]) -> Inference:
    counters = [
        np.uint64(first) + np.arange(len(answer.ticks), dtype=np.uint64)
        for answer, first, _ in parts
        if first is not None
    ]
    return Inference(
        np.concatenate([answer.logits for answer, _, _ in parts]),
        np.concatenate([answer.ticks for answer, _, _ in parts]),
        any(answer.polluted for answer, _, _ in parts),
        sum(reply.seconds for _, _, reply in parts),
        max(reply.attempts for _, _, reply in parts),
        np.concatenate(counters) if counters else None,
    )
