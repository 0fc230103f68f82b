"""The C server, frame by frame, under the sanitizers."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from link_rig import (
    FAKE_SHA,
    SEED_ERROR,
    SEED_FAULT,
    SEED_WAIT,
    SERVER_SOURCES,
    ServerTransport,
    compile_c,
    digits,
    fake_logits,
    fake_words,
)

from bnnmcu.errors import DeviceMismatchError
from bnnmcu.link.device import Device
from bnnmcu.link.fault import FaultReport
from bnnmcu.link.frame import Frame, FrameDecoder, encode_frame
from bnnmcu.link.hello import DeviceInfo, ImageState, LayerInfo
from bnnmcu.link.protocol import (
    BaudReply,
    BaudRequest,
    CheckReply,
    CountersReply,
    ErrorCode,
    ErrorReport,
    InferReply,
    InferRequest,
    MessageType,
    SampleReply,
    SampleRequest,
)

IMAGE = digits(1)[0]
HELLO, INFER, COUNTERS, SAMPLE, CHECK, LAST_FAULT, BAUD = (int(MessageType(i)) for i in range(1, 8))
ERROR = int(MessageType.ERROR)


class Peer:
    """Raw frames to a server and back."""

    def __init__(self, transport: ServerTransport) -> None:
        self.transport = transport
        self.decoder = FrameDecoder()
        self.queue: list[Frame] = []

    def next(self) -> Frame:
        deadline = time.monotonic() + 10
        while not self.queue:
            assert time.monotonic() < deadline, "the server says nothing"
            self.queue += self.decoder.feed(self.transport.read(65536, 1))
        return self.queue.pop(0)

    def ask(self, frame: Frame | bytes) -> Frame:
        self.transport.write(frame if isinstance(frame, bytes) else encode_frame(frame))
        return self.next()

    def error(self, frame: Frame | bytes) -> tuple[int, int, int, int]:
        """Sequence, code, request type and detail of the ERROR that must come back."""
        reply = self.ask(frame)
        assert reply.type == ERROR
        report = ErrorReport.unpack(reply.payload)
        return reply.sequence, report.code, report.request, report.detail


@pytest.fixture
def peer(server: ServerTransport) -> Peer:
    return Peer(server)


def infer_reply(frame: Frame, seeds: int, width: int = 8) -> InferReply:
    assert frame.type == INFER | 0x80
    return InferReply.unpack(frame.payload, seeds=seeds, classes=10, logit_bytes=width)


def test_hello_tells_what_the_model_header_says(peer: Peer) -> None:
    reply = peer.ask(Frame(HELLO, 77, b""))
    assert (reply.type, reply.sequence) == (HELLO | 0x80, 77)
    info = DeviceInfo.unpack(reply.payload)
    assert info.model_sha256 == FAKE_SHA
    assert (info.input_shape, info.classes, info.logit_bytes) == ((28, 28, 1), 10, 8)
    assert (info.board, info.model, info.generator_text, info.planes) == (
        "posix",
        "fake",
        "xorshift128",
        4,
    )
    assert (info.max_seeds, info.max_request, info.max_reply) == (20, 2 + 784 + 160, 4 + 20 * 84)
    # 4096 bytes of buffer, less 32 of slack, hold four coded requests of 962.
    assert info.window == 5
    # Names are cut at 31 characters.
    assert info.layers[1] == LayerInfo("a layer whose name is longer than thirty-one"[:31], 1000)


def test_every_seed_gets_its_own_draw(peer: Peer) -> None:
    seeds = (0, 1, 65521, 2**64 - 1)
    reply = infer_reply(peer.ask(Frame(INFER, 1, InferRequest(IMAGE.tobytes(), seeds).pack())), 4)
    assert [row[:-1] for row in reply.logits.tolist()] == [fake_logits(IMAGE, s) for s in seeds]
    assert reply.logits[:, -1].tolist() == [1, 2, 3, 4]


def test_a_repeated_request_is_answered_from_the_cache(peer: Peer) -> None:
    wire = encode_frame(Frame(INFER, 5, InferRequest(IMAGE.tobytes(), (9,)).pack()))
    first = peer.ask(wire)
    # Noise and a refused request in between must not cost the cached reply.
    assert peer.error(b"\0noise\0")[1] == ErrorCode.BAD_FRAME
    assert peer.error(Frame(99, 6, b""))[1] == ErrorCode.UNKNOWN_TYPE
    assert peer.ask(wire) == first
    assert infer_reply(first, 1).logits[0, -1] == 1


@pytest.mark.parametrize(("sequence", "seed"), [(6, 9), (5, 10)])
def test_another_sequence_or_other_bytes_are_computed(peer: Peer, sequence: int, seed: int) -> None:
    peer.ask(Frame(INFER, 5, InferRequest(IMAGE.tobytes(), (9,)).pack()))
    again = peer.ask(Frame(INFER, sequence, InferRequest(IMAGE.tobytes(), (seed,)).pack()))
    assert infer_reply(again, 1).logits[0, -1] == 2


def test_counters_are_those_of_the_last_inference(peer: Peer) -> None:
    assert peer.error(Frame(COUNTERS, 1, b""))[1] == ErrorCode.NOT_READY
    total = infer_reply(
        peer.ask(Frame(INFER, 2, InferRequest(IMAGE.tobytes(), (1,)).pack())), 1
    ).ticks[0]
    counters = CountersReply.unpack(peer.ask(Frame(COUNTERS, 3, b"")).payload, layers=3)
    assert 0 < counters.ticks.sum() <= total
    # A failed inference leaves nothing that could be taken for its counters.
    peer.error(Frame(INFER, 4, InferRequest(IMAGE.tobytes(), (SEED_ERROR,)).pack()))
    assert peer.error(Frame(COUNTERS, 5, b""))[1] == ErrorCode.NOT_READY


@pytest.mark.parametrize(
    ("seeds", "last"), [((SEED_WAIT,), True), ((1, SEED_WAIT), True), ((SEED_WAIT, 1), False)]
)
def test_bytes_that_come_during_an_inference_are_owned_up_to(
    peer: Peer, seeds: tuple[int, ...], last: bool
) -> None:
    quiet = peer.ask(Frame(INFER, 1, InferRequest(IMAGE.tobytes(), (1, 1)).pack()))
    assert not infer_reply(quiet, 2).polluted
    wire = encode_frame(Frame(INFER, 2, InferRequest(IMAGE.tobytes(), seeds).pack()))
    peer.transport.write(wire)
    frames: list[Frame] = []
    for _ in range(500):
        # The inference ends with the first byte that comes after its start.
        peer.transport.write(b"\0")
        frames = peer.decoder.feed(peer.transport.read(65536, 0.02))
        if frames:
            break
    assert infer_reply(frames[0], len(seeds)).polluted
    if last:
        counters = CountersReply.unpack(peer.ask(Frame(COUNTERS, 3, b"")).payload, layers=3)
        assert counters.polluted


def test_lost_bytes_are_reported_and_a_small_buffer_gets_a_window_of_one(
    poor: ServerTransport,
) -> None:
    peer = Peer(poor)
    hello = peer.ask(Frame(HELLO, 1, b""))
    assert DeviceInfo.unpack(hello.payload).window == 1
    assert ErrorReport.unpack(peer.next().payload) == ErrorReport(ErrorCode.OVERRUN, 0, 0)
    assert peer.ask(Frame(HELLO, 1, b"")) == hello


def test_sampled_words(peer: Peer) -> None:
    for first, count in [(0, 1), (0, 421), (999, 1), (579, 421)]:
        reply = peer.ask(Frame(SAMPLE, first, SampleRequest(1, 2**63 + 5, first, count).pack()))
        words = SampleReply.unpack(reply.payload, count=count).words.tolist()
        assert words == fake_words(1, 2**63 + 5, first, count)


@pytest.mark.parametrize("size", [0, 1, 942])
def test_a_pattern_comes_back_and_any_baud_will_do_for_a_process(peer: Peer, size: int) -> None:
    pattern = (bytes(range(256)) * 4)[:size]
    for sequence, (baud, now) in enumerate([(0, 115200), (921600, 921600), (0, 921600)]):
        reply = peer.ask(Frame(BAUD, sequence, BaudRequest(baud, pattern).pack()))
        assert (reply.type, reply.sequence) == (BAUD | 0x80, sequence)
        assert BaudReply.unpack(reply.payload) == BaudReply(now, pattern)


def test_a_pattern_that_no_reply_holds_is_refused(cifar: ServerTransport) -> None:
    """Requests may be larger than replies: 3234 and 884 bytes here."""
    peer = Peer(cifar)
    assert peer.ask(Frame(BAUD, 1, bytes(884))).payload == BaudReply(115200, bytes(880)).pack()
    assert peer.error(Frame(BAUD, 2, bytes(885))) == (2, ErrorCode.BAD_LENGTH, BAUD, 4)


GOOD_INFER = InferRequest(IMAGE.tobytes(), (1,)).pack()
REFUSED = {
    "hello with a payload": (HELLO, b"x", ErrorCode.BAD_LENGTH, 0),
    "counters with a payload": (COUNTERS, b"x", ErrorCode.BAD_LENGTH, 0),
    "empty infer": (INFER, b"", ErrorCode.BAD_LENGTH, 794),
    "infer without a count": (INFER, b"\0", ErrorCode.BAD_LENGTH, 794),
    "unknown flags": (INFER, b"\1" + GOOD_INFER[1:], ErrorCode.BAD_ARGUMENT, 0),
    "no seeds": (INFER, b"\0\0" + IMAGE.tobytes(), ErrorCode.BAD_ARGUMENT, 1),
    "too many seeds": (INFER, b"\0\x15" + GOOD_INFER[2:], ErrorCode.BAD_ARGUMENT, 1),
    "255 seeds": (INFER, b"\0\xff" + GOOD_INFER[2:], ErrorCode.BAD_ARGUMENT, 1),
    "image too short": (INFER, GOOD_INFER[:-1], ErrorCode.BAD_LENGTH, 794),
    "image too long": (INFER, GOOD_INFER + b"x", ErrorCode.BAD_LENGTH, 794),
    "fewer seeds than said": (INFER, b"\0\2" + GOOD_INFER[2:], ErrorCode.BAD_LENGTH, 802),
    "runtime refuses": (
        INFER,
        InferRequest(IMAGE.tobytes(), (SEED_ERROR,)).pack(),
        ErrorCode.MODEL,
        3,
    ),
    "short sample": (SAMPLE, bytes(14), ErrorCode.BAD_LENGTH, 15),
    "long sample": (SAMPLE, bytes(16), ErrorCode.BAD_LENGTH, 15),
    "no such layer": (SAMPLE, SampleRequest(3, 0, 0, 1).pack(), ErrorCode.BAD_ARGUMENT, 0),
    "layer 255": (SAMPLE, SampleRequest(255, 0, 0, 1).pack(), ErrorCode.BAD_ARGUMENT, 0),
    "layer without draws": (SAMPLE, SampleRequest(0, 0, 0, 1).pack(), ErrorCode.BAD_ARGUMENT, 9),
    "first word too far": (SAMPLE, SampleRequest(1, 0, 1000, 1).pack(), ErrorCode.BAD_ARGUMENT, 9),
    "first word wraps": (
        SAMPLE,
        SampleRequest(1, 0, 2**32 - 1, 2).pack(),
        ErrorCode.BAD_ARGUMENT,
        9,
    ),
    "no words": (SAMPLE, SampleRequest(1, 0, 0, 0).pack(), ErrorCode.BAD_ARGUMENT, 13),
    "words too many": (SAMPLE, SampleRequest(1, 0, 999, 2).pack(), ErrorCode.BAD_ARGUMENT, 13),
    "reply too long": (SAMPLE, SampleRequest(1, 0, 0, 422).pack(), ErrorCode.BAD_ARGUMENT, 13),
    "check with a payload": (CHECK, b"x", ErrorCode.BAD_LENGTH, 0),
    "last fault with a payload": (LAST_FAULT, b"x", ErrorCode.BAD_LENGTH, 0),
    "no baud": (BAUD, b"", ErrorCode.BAD_LENGTH, 4),
    "three bytes of a baud": (BAUD, bytes(3), ErrorCode.BAD_LENGTH, 4),
    "no fault is kept": (LAST_FAULT, b"", ErrorCode.NOT_READY, 0),
    "type 0": (0, b"", ErrorCode.UNKNOWN_TYPE, 0),
    "type of a reply": (INFER | 0x80, GOOD_INFER, ErrorCode.UNKNOWN_TYPE, 0),
    "type of an error": (0xFF, b"", ErrorCode.UNKNOWN_TYPE, 0),
}


@pytest.mark.parametrize(
    ("kind", "payload", "code", "detail"), REFUSED.values(), ids=REFUSED.keys()
)
def test_refusals(peer: Peer, kind: int, payload: bytes, code: int, detail: int) -> None:
    assert peer.error(Frame(kind, 321, payload)) == (321, code, kind, detail)
    assert peer.ask(Frame(INFER, 322, GOOD_INFER)).type == INFER | 0x80


def test_bad_frames_are_reported_and_counted(peer: Peer) -> None:
    assert peer.error(b"\0nonsense\0") == (0, ErrorCode.BAD_FRAME, 0, 1)
    assert peer.error(encode_frame(Frame(INFER, 1, bytes(947)))) == (0, ErrorCode.BAD_FRAME, 0, 2)
    assert peer.error(encode_frame(Frame(INFER, 1, b"x" * 60000))) == (0, ErrorCode.BAD_FRAME, 0, 3)
    assert peer.ask(Frame(HELLO, 4, b"")).type == HELLO | 0x80


def test_another_protocol_version_is_answered_with_ours(peer: Peer) -> None:
    assert peer.error(Frame(HELLO, 3, b"", version=2)) == (3, ErrorCode.BAD_VERSION, HELLO, 1)


def test_a_fault_is_reported_with_its_request(peer: Peer) -> None:
    reply = peer.ask(Frame(INFER, 40, InferRequest(IMAGE.tobytes(), (SEED_FAULT,)).pack()))
    fault = FaultReport.unpack(reply.payload)
    assert (reply.type, reply.sequence, fault.request) == (MessageType.FAULT, 40, INFER)
    assert fault.registers == (1, 2, 3, 4, 12, 0x08000101, 0x08000200, 0x61000000)
    assert (fault.cfsr, fault.hfsr, fault.mmfar, fault.bfar) == (
        0x8200,
        0x40000000,
        0xE000ED34,
        0x20020000,
    )


def test_an_image_without_a_checksum_is_not_called_sound(peer: Peer) -> None:
    info = DeviceInfo.unpack(peer.ask(Frame(HELLO, 1, b"")).payload)
    assert (info.reset_text, info.state) == ("power", ImageState(0))
    assert CheckReply.unpack(peer.ask(Frame(CHECK, 2, b"")).payload) == CheckReply(0, 0, 0)


@pytest.mark.parametrize("recorded", [0xCBF43926, 0xCBF43927])
def test_the_image_is_checked_at_the_start_and_on_request(tmp_path: Path, recorded: int) -> None:
    """The process has an image of nine bytes, whose CRC-32 everybody knows."""
    define = f"-DBNN_POSIX_IMAGE_CRC=0x{recorded:x}u"
    transport = ServerTransport(compile_c(tmp_path / "server", SERVER_SOURCES, define))
    peer, sound = Peer(transport), recorded == 0xCBF43926
    try:
        info = DeviceInfo.unpack(peer.ask(Frame(HELLO, 1, b"")).payload)
        assert info.state == ImageState.CHECKED | (0 if sound else ImageState.CORRUPT)
        found = CheckReply.unpack(peer.ask(Frame(CHECK, 2, b"")).payload)
        assert found == CheckReply(recorded, 0xCBF43926, 9)
        sample = SampleRequest(1, 0, 0, 1).pack()
        for kind, payload in ((INFER, GOOD_INFER), (SAMPLE, sample)):
            reply = peer.ask(Frame(kind, 3, payload))
            if sound:
                assert reply.type == kind | 0x80
            else:
                report = ErrorReport.unpack(reply.payload)
                assert (report.code, report.request) == (ErrorCode.CORRUPT, kind)
                assert "checksum" in report.text
        if not sound:
            with pytest.raises(DeviceMismatchError, match="flash is damaged"):
                Device(transport)
    finally:
        transport.close()


def test_cifar_with_narrow_logits(cifar: ServerTransport) -> None:
    peer = Peer(cifar)
    info = DeviceInfo.unpack(peer.ask(Frame(HELLO, 1, b"")).payload)
    assert (info.input_shape, info.logit_bytes) == ((32, 32, 3), 4)
    image = digits(1, (32, 32, 3))[0]
    seeds = tuple(range(20))
    reply = infer_reply(
        peer.ask(Frame(INFER, 2, InferRequest(image.tobytes(), seeds).pack())), 20, 4
    )
    assert [row[:-1] for row in reply.logits.tolist()] == [fake_logits(image, s) for s in seeds]


_requests = st.builds(
    Frame,
    st.one_of(st.sampled_from([HELLO, INFER, COUNTERS, SAMPLE, BAUD]), st.integers(0, 255)),
    st.integers(0, 65535),
    st.one_of(
        st.binary(max_size=60),
        st.builds(
            lambda *fields: struct.pack("<BQIH", *fields),
            st.integers(0, 4),
            st.integers(0, 2**64 - 1),
            st.one_of(st.integers(0, 1100), st.integers(0, 2**32 - 1)),
            st.integers(0, 65535),
        ),
        st.integers(0, 255).map(lambda n: bytes([0, n]) + IMAGE.tobytes() + bytes(8 * n)),
    ),
    st.sampled_from([1, 1, 1, 2]),
)
_garbage = st.one_of(st.binary(max_size=100), st.just(b"q" * 3000))


def test_fuzz(mnist_server: Path) -> None:
    """Sound frames with any content, and garbage; a sanitizer's report fails it on close."""
    transport = ServerTransport(mnist_server)
    peer = Peer(transport)
    serial = 0

    @settings(max_examples=400, deadline=None)
    @given(st.lists(st.one_of(_requests.map(encode_frame), _garbage), max_size=6))
    def feed(pieces: list[bytes]) -> None:
        nonlocal serial
        transport.write(b"".join(pieces))
        # Whatever came, the next sound request is answered.
        serial = (serial + 1) % 65536
        marker = InferRequest(IMAGE.tobytes(), (1000 + serial,)).pack()
        transport.write(encode_frame(Frame(INFER, serial, marker)))
        expected = fake_logits(IMAGE, 1000 + serial)
        while True:
            reply = peer.next()
            if reply.type == INFER | 0x80 and reply.sequence == serial and reply.payload[0] == 1:
                got = infer_reply(reply, 1).logits[0].tolist()
                if got[:-1] == expected:
                    return

    feed()
    transport.close()
