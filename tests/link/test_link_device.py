"""Device against the C server, over connections that behave and that do not."""

from __future__ import annotations

import io
import time
from dataclasses import replace

import numpy as np
import pytest
from link_rig import (
    FAKE_SHA,
    HASTY,
    INFO,
    QUICK,
    SEED_ERROR,
    SEED_FAULT,
    SEED_VANISH,
    Scripted,
    ServerTransport,
    Spoiler,
    digits,
    fake_logits,
    fake_words,
)

from bnnmcu.errors import (
    DeviceMismatchError,
    LinkError,
    LinkTimeoutError,
    RemoteError,
    UsageError,
)
from bnnmcu.link.device import Device
from bnnmcu.link.frame import Frame, encode_frame
from bnnmcu.link.protocol import ErrorCode, ErrorReport, InferReply, MessageType

IMAGES = digits(60)


def expected(image: np.ndarray, seeds: list[int]) -> list[list[int]]:
    return [fake_logits(image, seed) for seed in seeds]


def test_one_image_several_seeds(server: ServerTransport) -> None:
    with Device(server, expect_model=FAKE_SHA, timing=QUICK) as device:
        result = device.infer(IMAGES[0], [1, 2, np.uint64(2**64 - 1)])
        assert result.logits.dtype == np.int64
        assert result.logits[:, :-1].tolist() == expected(IMAGES[0], [1, 2, 2**64 - 1])
        assert result.ticks.dtype == np.uint32
        assert result.ticks.shape == (3,)
        assert not result.polluted
        assert result.seconds > 0
        ticks = device.counters()
        assert ticks.shape == (3,)
        assert 0 < ticks.sum() <= result.ticks[-1]


@pytest.mark.parametrize("count", [1, 20, 21, 45])
def test_more_seeds_than_a_frame_holds_are_split(server: ServerTransport, count: int) -> None:
    seeds = list(range(100, 100 + count))
    with Device(server, timing=QUICK) as device:
        results = list(device.infer_many([(IMAGES[0], seeds), (IMAGES[1], [7])]))
        assert results[0].logits[:, :-1].tolist() == expected(IMAGES[0], seeds)
        assert results[0].ticks.shape == (count,)
        assert results[1].logits[:, :-1].tolist() == expected(IMAGES[1], [7])
        # Every draw once: nothing was sent twice.
        assert results[1].logits[0, -1] == count + 1


def test_infer_many_keeps_the_order_and_fills_the_window(server: ServerTransport) -> None:
    with Device(server, timing=QUICK) as device:
        most = 0
        for index, result in enumerate(device.infer_many((x, [i]) for i, x in enumerate(IMAGES))):
            assert result.logits[:, :-1].tolist() == expected(IMAGES[index], [index])
            most = max(most, device._session._window.in_flight)
        assert index == len(IMAGES) - 1
        assert device.info.window == 5
        assert most == 4  # one of the five was just collected


def test_requests_are_drawn_as_they_are_needed(server: ServerTransport) -> None:
    drawn = []

    def requests():  # type: ignore[no-untyped-def]
        for i, image in enumerate(IMAGES):
            drawn.append(i)
            yield image, [i]

    with Device(server, timing=QUICK) as device:
        results = device.infer_many(requests())
        next(results)
        assert len(drawn) <= 5
        results.close()


def test_sampled_weights(server: ServerTransport) -> None:
    with Device(server, timing=QUICK) as device:
        assert device.sample(1, 77).tolist() == fake_words(1, 77, 0, 1000)
        assert device.sample(1, 77, words=3).tolist() == fake_words(1, 77, 0, 3)
        for layer, words in [(0, None), (3, None), (-1, None)]:
            with pytest.raises(UsageError, match="draws no weights"):
                device.sample(layer, 77, words=words)
        for words in (0, 1001):
            with pytest.raises(UsageError, match="draws 1000"):
                device.sample(1, 77, words=words)


def test_cifar(cifar: ServerTransport) -> None:
    images = digits(10, (32, 32, 3))
    with Device(cifar, timing=QUICK) as device:
        results = list(device.infer_many((image, [3, 4]) for image in images))
        for image, result in zip(images, results, strict=True):
            assert result.logits[:, :-1].tolist() == expected(image, [3, 4])


@pytest.mark.parametrize(
    "kinds",
    [("drop",), ("double",), ("corrupt",), ("cut",), ("split",), ("noise",),
     ("drop", "double", "corrupt", "cut", "split", "noise")],
    ids="+".join,
)  # fmt: skip
def test_every_answer_comes_through_a_bad_line(
    server: ServerTransport, kinds: tuple[str, ...]
) -> None:
    line = Spoiler(server, kinds, rate=0.1)
    with Device(line, timing=QUICK) as device:
        results = list(device.infer_many((x, [i, 5]) for i, x in enumerate(IMAGES)))
        assert [r.logits[:, :-1].tolist() for r in results] == [
            expected(x, [i, 5]) for i, x in enumerate(IMAGES)
        ]
        assert line.spoiled > 5
        stats = device.stats
        assert stats.retries + stats.stale + stats.bad_frames + stats.reported > 0
        assert device.sample(1, 5).tolist() == fake_words(1, 5, 0, 1000)


def test_a_lost_reply_is_not_computed_again(server: ServerTransport) -> None:
    class Lossy:
        """Once told to, loses all that comes until something is sent again."""

        name, lose, sent = "lossy", False, 0

        def __getattr__(self, name):  # type: ignore[no-untyped-def]
            return getattr(server, name)

        def write(self, data: bytes) -> None:
            self.sent += 1
            self.lose = self.lose and self.sent < 2
            server.write(data)

        def read(self, size: int, timeout: float) -> bytes:
            data = server.read(size, timeout)
            return b"" if self.lose else data

    line = Lossy()
    with Device(line, timing=QUICK) as device:
        line.lose, line.sent = True, 0
        assert device.infer(IMAGES[0], [1]).logits[0, -1] == 1
        assert device.stats.retries == 1
        assert device.infer(IMAGES[0], [1]).logits[0, -1] == 2


def test_a_retry_is_the_same_bytes() -> None:
    seen = []

    def answer(frame: Frame) -> list[Frame | bytes]:
        if frame.type == MessageType.HELLO:
            return [Frame(0x81, frame.sequence, INFO.pack())]
        seen.append(encode_frame(frame))
        return []

    device = Device(Scripted(answer), timing=HASTY)
    with pytest.raises(LinkTimeoutError, match="no answer to INFER after 2 attempts"):
        device.infer(IMAGES[0], [1])
    assert len(seen) == 2
    assert seen[0] == seen[1]


def test_a_half_sent_frame_and_stale_replies_do_no_harm(server: ServerTransport) -> None:
    # As a host leaves a board that was killed while sending, with a reply on its way.
    server.write(encode_frame(Frame(MessageType.HELLO, 1, b"")))
    server.write(encode_frame(Frame(MessageType.INFER, 2, b"\0\1" + b"p" * 700))[:-100])
    with Device(server, timing=QUICK) as device:
        assert device.infer(IMAGES[3], [4]).logits[:, :-1].tolist() == expected(IMAGES[3], [4])


def test_an_abandoned_stream_leaves_the_device_usable(server: ServerTransport) -> None:
    with Device(server, timing=QUICK) as device:
        stream = device.infer_many((image, [1]) for image in IMAGES)
        next(stream)
        with pytest.raises(UsageError, match="still answering"):
            device.counters()
        with pytest.raises(UsageError, match="still answering"):
            device.infer(IMAGES[0], [1])
        stream.close()
        assert device.infer(IMAGES[5], [9]).logits[:, :-1].tolist() == expected(IMAGES[5], [9])


def test_an_error_in_mid_stream_leaves_the_device_usable(server: ServerTransport) -> None:
    seeds = [1, 2, SEED_ERROR, 4, 5, 6]
    with Device(server, timing=QUICK) as device:
        done = []
        stream = device.infer_many((IMAGES[0], [seed]) for seed in seeds)
        with pytest.raises(RemoteError, match="runtime failed with error -3") as caught:
            done.extend(stream)
        assert caught.value.code == ErrorCode.MODEL
        assert len(done) == 2
        assert device.infer(IMAGES[5], [9]).logits[:, :-1].tolist() == expected(IMAGES[5], [9])


def test_an_interrupt_leaves_the_device_usable(server: ServerTransport) -> None:
    def requests():  # type: ignore[no-untyped-def]
        yield IMAGES[0], [1]
        yield IMAGES[1], [1]
        raise KeyboardInterrupt

    with Device(server, timing=QUICK) as device:
        with pytest.raises(KeyboardInterrupt):
            list(device.infer_many(requests()))
        assert device.infer(IMAGES[5], [9]).logits[:, :-1].tolist() == expected(IMAGES[5], [9])


@pytest.mark.parametrize(
    ("image", "seeds", "match"),
    [
        (IMAGES[0, :, :, 0], [1], "takes uint8"),
        (IMAGES[0].astype(np.int64), [1], "takes uint8"),
        (IMAGES[0], [], "at least one seed"),
        (IMAGES[0], [-1], "unsigned 64-bit"),
        (IMAGES[0], [2**64], "unsigned 64-bit"),
    ],
)
def test_impossible_requests_are_not_sent(server, image, seeds, match) -> None:  # type: ignore[no-untyped-def]
    with Device(server, timing=QUICK) as device:
        with pytest.raises(UsageError, match=match):
            device.infer(image, seeds)
        assert device.stats.requests == 1  # the HELLO


def test_counters_before_an_inference(server: ServerTransport) -> None:
    with (
        Device(server, timing=QUICK) as device,
        pytest.raises(RemoteError, match="before the first"),
    ):
        device.counters()


def test_a_crash_is_reported_at_once(server: ServerTransport) -> None:
    with Device(server, timing=QUICK) as device:
        with pytest.raises(
            RemoteError, match="precise bus fault at address 0x20020000; pc=0x08000200"
        ):
            device.infer(IMAGES[0], [SEED_FAULT])
        assert device.stats.retries == 0


def test_a_vanished_device(server: ServerTransport) -> None:
    with Device(server, timing=QUICK) as device, pytest.raises(LinkError, match="has ended"):
        device.infer(IMAGES[0], [SEED_VANISH])


def test_another_model_is_refused_naming_both(server: ServerTransport) -> None:
    wanted = bytes(32)
    with pytest.raises(DeviceMismatchError) as caught:
        Device(server, expect_model=wanted, timing=QUICK)
    assert FAKE_SHA.hex()[:16] in str(caught.value)
    assert wanted.hex()[:16] in str(caught.value)
    assert server.process.poll() is not None  # the transport was closed


def test_a_silent_port() -> None:
    transport = Scripted(lambda frame: [])
    with pytest.raises(LinkTimeoutError, match="nothing answers"):
        Device(transport, timing=HASTY)
    assert len(transport.requests) == 2
    assert transport.closed


def test_a_port_with_something_else_on_it() -> None:
    with pytest.raises(LinkTimeoutError, match=r"13 bytes came.*or another baud rate"):
        Device(
            Scripted(lambda frame: [b"\0bootloader>\0"]),
            timing=replace(HASTY, hello=(0.05,), repairs=0),
        )


OTHER = replace(INFO, protocol=2)


@pytest.mark.parametrize(
    "reply",
    [
        lambda frame: Frame(0x81, frame.sequence, b"whatever", version=2),
        lambda frame: Frame(0x81, frame.sequence, OTHER.pack()),
        lambda frame: Frame(0xFF, frame.sequence, ErrorReport(ErrorCode.BAD_VERSION, 1, 2).pack()),
    ],
    ids=["in its frames", "in its greeting", "by refusing ours"],
)
def test_another_protocol_version(reply) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(
        DeviceMismatchError, match="speaks protocol version 2, this bnnmcu version 1"
    ):
        Device(Scripted(lambda frame: [reply(frame)]), timing=HASTY)


def scripted(infer) -> Device:  # type: ignore[no-untyped-def]
    def answer(frame: Frame) -> list[Frame | bytes]:
        if frame.type == MessageType.HELLO:
            return [Frame(0x81, frame.sequence, INFO.pack())]
        return list(infer(frame))

    return Device(Scripted(answer), timing=HASTY)


def zeros(seeds: int) -> bytes:
    return InferReply(np.zeros((seeds, 10), np.int64), np.zeros(seeds, np.uint32), False).pack(8)


def test_replies_to_other_requests_are_stale() -> None:
    def infer(frame: Frame) -> list[Frame]:
        return [
            Frame(0x82, (frame.sequence - 1) % 65536, b"of an earlier request"),
            Frame(0x83, frame.sequence, b"of another type"),
            Frame(0xFF, (frame.sequence + 7) % 65536, ErrorReport(ErrorCode.MODEL, 2, 1).pack()),
            Frame(0x82, frame.sequence, zeros(1)),
            Frame(0x82, frame.sequence, zeros(1)),
        ]

    device = scripted(infer)
    assert device.infer(IMAGES[0], [1]).logits.shape == (1, 10)
    assert device.stats.stale == 4


@pytest.mark.parametrize("payload", [b"", zeros(2), zeros(1)[:-1], zeros(1) + b"\0"])
def test_a_malformed_reply_is_an_error(payload: bytes) -> None:
    device = scripted(lambda frame: [Frame(0x82, frame.sequence, payload)])
    with pytest.raises(LinkError, match="disagree"):
        device.infer(IMAGES[0], [1])


def test_a_babbling_device_is_given_up() -> None:
    device = scripted(lambda frame: [b"\0babble" * 20])
    with pytest.raises(LinkTimeoutError, match="no answer"):
        device.infer(IMAGES[0], [1])


def test_the_trace_shows_every_frame(server: ServerTransport) -> None:
    trace = io.StringIO()
    with Device(server, timing=QUICK, trace=trace) as device:
        device.infer(IMAGES[0], [1])
    lines = trace.getvalue().splitlines()
    assert any("> HELLO seq=" in line for line in lines)
    assert any("> INFER seq=" in line for line in lines)
    assert any("< INFER seq=" in line and "size=88" in line for line in lines)


def test_a_slow_first_answer_is_waited_for(server: ServerTransport) -> None:
    class Slow:
        name, until = "slow", 0.0

        def __getattr__(self, name):  # type: ignore[no-untyped-def]
            return getattr(server, name)

        def read(self, size: int, timeout: float) -> bytes:
            if time.monotonic() < self.until:
                time.sleep(min(timeout, 0.05))
                return b""
            return server.read(size, timeout)

    line = Slow()
    with Device(line, timing=replace(QUICK, first=10.0, floor=0.1)) as device:
        line.until = time.monotonic() + 0.4
        assert device.infer(IMAGES[0], [1]).seconds > 0.4
        assert device.stats.retries == 0


def test_after_abandoned_requests_the_device_is_asked_to_catch_up() -> None:
    seen = []

    def infer(frame: Frame) -> list[Frame]:
        seen.append(frame)
        return [Frame(0x82, frame.sequence, zeros(1))] if len(seen) != 2 else []

    device = scripted(infer)
    stream = device.infer_many((image, [1]) for image in IMAGES[:4])
    next(stream)
    stream.close()
    device.infer(IMAGES[0], [1])
    types = [frame.type for frame in device._session._transport.requests]  # type: ignore[attr-defined]
    assert types == [1, 2, 2, 1, 2]


@pytest.mark.parametrize("code", [ErrorCode.BAD_FRAME, ErrorCode.OVERRUN])
def test_a_frame_lost_on_the_way_is_sent_again_at_once(code: ErrorCode) -> None:
    seen = []

    def answer(frame: Frame) -> list[Frame | bytes]:
        if frame.type == MessageType.HELLO:
            return [Frame(0x81, frame.sequence, INFO.pack())]
        seen.append(frame)
        if len(seen) == 1:
            return [Frame(0xFF, 0, ErrorReport(code, 0, 1).pack())]
        return [Frame(0x82, frame.sequence, zeros(1))]

    # With a patience of minutes, only the report can have caused the retry.
    device = Device(Scripted(answer), timing=replace(HASTY, first=300.0))
    assert device.infer(IMAGES[0], [1]).seconds < 10
    assert seen[0] == seen[1]
    assert device.stats.retries == 1


def test_a_reply_out_of_turn_shows_what_was_lost() -> None:
    seen = []

    def answer(frame: Frame) -> list[Frame | bytes]:
        if frame.type == MessageType.HELLO:
            return [Frame(0x81, frame.sequence, INFO.pack())]
        seen.append(frame)
        return [] if len(seen) == 1 else [Frame(0x82, frame.sequence, zeros(1))]

    device = Device(Scripted(answer), timing=replace(HASTY, first=300.0))
    assert len(list(device.infer_many((image, [1]) for image in IMAGES[:3]))) == 3
    # The third request has number 3: the board was greeted when the first one had been lost.
    numbers = [(frame.sequence - seen[0].sequence) & 0xFFFF for frame in seen]
    assert numbers in ([0, 1, 0, 3], [0, 1, 2, 0])
