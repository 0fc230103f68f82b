"""The frame codec: Python alone, and Python against C."""

from __future__ import annotations

import re
import zlib

import pytest
from cobs import cobs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from link_rig import APP, REPO, Codec

from bnnmcu.errors import LinkError
from bnnmcu.link.frame import MAX_PAYLOAD, VERSION, Frame, FrameDecoder, encode_frame
from bnnmcu.link.hello import ImageState
from bnnmcu.link.protocol import REPLY, ErrorCode, MessageType

# Of tests/c/codec_tool.c.
C_CAPACITY = 4000

# Zeros and runs of 253 to 255 other bytes are where COBS goes wrong.
_piece = st.one_of(
    st.binary(max_size=40),
    st.integers(250, 260).map(lambda n: b"\x07" * n),
    st.integers(1, 5).map(lambda n: b"\0" * n),
)
payloads = st.lists(_piece, max_size=6).map(b"".join)
frames = st.builds(Frame, st.integers(0, 255), st.integers(0, 65535), payloads)


def coded(body: bytes) -> bytes:
    return b"\0" + cobs.encode(body) + b"\0"


def with_crc(body: bytes) -> bytes:
    return body + zlib.crc32(body).to_bytes(4, "little")


@given(st.lists(frames, max_size=4), st.lists(st.integers(1, 300), max_size=12))
def test_frames_survive_any_chunking(sent: list[Frame], cuts: list[int]) -> None:
    wire = b"".join(encode_frame(frame) for frame in sent)
    decoder = FrameDecoder()
    got = []
    for cut in cuts:
        got += decoder.feed(wire[:cut])
        wire = wire[cut:]
    got += decoder.feed(wire)
    assert got == sent
    assert decoder.bad_frames == 0


@settings(max_examples=50)
@given(frames, st.data())
def test_any_flipped_bit_is_noticed_and_the_next_frame_read(
    frame: Frame, data: st.DataObject
) -> None:
    wire = bytearray(encode_frame(frame))
    bit = data.draw(st.integers(8, 8 * (len(wire) - 1) - 1))
    wire[bit // 8] ^= 1 << bit % 8
    decoder = FrameDecoder()
    following = Frame(2, 3, b"next")
    assert decoder.feed(bytes(wire) + encode_frame(following)) == [following]
    assert decoder.bad_frames >= 1


HEAD = bytes([VERSION, 2, 5, 0])
BAD = {
    "crc": coded(HEAD + b"\2\0ab" + b"\1\2\3\4"),
    "length too small": coded(with_crc(HEAD + b"\1\0ab")),
    "length too large": coded(with_crc(HEAD + b"\3\0ab")),
    "length far too large": coded(with_crc(HEAD + b"\xff\xffab")),
    "no room for a header": coded(with_crc(HEAD)),
    "one byte short of the smallest": coded(b"\1" * 9),
    "empty body": b"\0\1\0",
    "block longer than the frame": b"\0\x09abc\0",
    "cut": encode_frame(Frame(2, 5, b"abcdef"))[:-6] + b"\0",
    "a zero inside": encode_frame(Frame(2, 5, b"abcdef")).replace(b"cd", b"c\0d"),
    "text": b"\0Hello, this is another firmware\r\n\0",
}


@pytest.mark.parametrize("wire", BAD.values(), ids=BAD.keys())
def test_bad_frames_are_dropped_and_counted_alike(wire: bytes, codec: Codec) -> None:
    good = Frame(3, 9, b"\0good\0")
    decoder = FrameDecoder(C_CAPACITY - 10)
    got = decoder.feed(wire + encode_frame(good))
    assert got == [good]
    assert decoder.bad_frames >= 1
    assert codec.decode(wire + encode_frame(good)) == (got, decoder.bad_frames)


def test_delimiters_alone_are_no_frames() -> None:
    decoder = FrameDecoder()
    assert decoder.feed(b"\0" * 100) == []
    assert decoder.bad_frames == 0


def test_memory_is_bounded_by_the_largest_frame() -> None:
    decoder = FrameDecoder(max_payload=100)
    for _ in range(1000):
        assert decoder.feed(b"x" * 1000) == []
        assert len(decoder._buffer) <= 200
    good = Frame(1, 1, b"y" * 100)
    assert decoder.feed(encode_frame(good)) == [good]
    assert decoder.bad_frames == 1


@pytest.mark.parametrize(("size", "accepted"), [(99, 1), (100, 1), (101, 0)])
def test_the_payload_limit_is_exact(size: int, accepted: int) -> None:
    assert len(FrameDecoder(100).feed(encode_frame(Frame(1, 1, bytes(size))))) == accepted
    assert len(FrameDecoder(100).feed(encode_frame(Frame(1, 1, b"z" * size)))) == accepted


def test_the_largest_payload_passes_and_one_more_is_refused() -> None:
    largest = Frame(2, 65535, bytes(range(256)) * 256)
    with pytest.raises(LinkError, match="carries 65535 at most"):
        encode_frame(largest)
    largest = Frame(2, 65535, largest.payload[:MAX_PAYLOAD])
    assert FrameDecoder().feed(encode_frame(largest)) == [largest]


@pytest.mark.parametrize("frame", [Frame(256, 0, b""), Frame(1, 65536, b""), Frame(1, -1, b"")])
def test_fields_that_do_not_fit_are_refused(frame: Frame) -> None:
    with pytest.raises(LinkError, match="out of range"):
        encode_frame(frame)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(frame=frames)
def test_c_and_python_code_alike(frame: Frame, codec: Codec) -> None:
    assert codec.encode(frame) == encode_frame(frame)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    sent=st.lists(frames, min_size=1, max_size=3),
    edits=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 3), st.binary(max_size=3))),
)
def test_c_and_python_read_spoiled_streams_alike(
    sent: list[Frame], edits: list[tuple[int, int, bytes]], codec: Codec
) -> None:
    wire = b"".join(encode_frame(frame) for frame in sent)
    for at, removed, inserted in edits:
        at %= len(wire) + 1
        wire = wire[:at] + inserted + wire[at + removed :]
    decoder = FrameDecoder(C_CAPACITY - 10)
    got = decoder.feed(wire)
    assert codec.decode(wire) == (got, decoder.bad_frames)


@pytest.mark.parametrize("excess", [-1, 0, 1, 2, 5000])
@pytest.mark.parametrize("fill", [b"\0", b"\x55"])
def test_c_receiver_stops_at_its_capacity(excess: int, fill: bytes, codec: Codec) -> None:
    frame = Frame(2, 1, fill * (C_CAPACITY - 10 + excess))
    after = Frame(1, 2, b"after")
    expected = ([frame, after], 0) if excess <= 0 else ([after], 1)
    assert codec.decode(encode_frame(frame) + encode_frame(after)) == expected


def golden() -> list[tuple[str, int, int, bytes, bytes]]:
    text = (REPO / "docs" / "SPEC.md").read_text()
    rows = re.findall(
        r"^\| ([^|`]+) \| 0x(\w\w) \| (\d+) \| `([0-9a-f ]*)` \| `([0-9a-f ]+)` \|$", text, re.M
    )
    return [(n, int(t, 16), int(s), bytes.fromhex(p), bytes.fromhex(w)) for n, t, s, p, w in rows]


def test_the_specification_has_golden_frames() -> None:
    assert {kind for _, kind, _, _, _ in golden()} >= {
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        0x81,
        0x82,
        0x83,
        0x84,
        0x85,
        0x86,
        0x87,
        0xFE,
        0xFF,
    }


@pytest.mark.parametrize(("name", "kind", "sequence", "payload", "wire"), golden())
def test_golden_frames_hold_for_both_codecs(
    name: str, kind: int, sequence: int, payload: bytes, wire: bytes, codec: Codec
) -> None:
    frame = Frame(kind, sequence, payload)
    assert encode_frame(frame) == wire
    assert FrameDecoder().feed(wire) == [frame]
    assert codec.encode(frame) == wire
    assert codec.decode(wire) == ([frame], 0)


def test_the_c_header_has_the_same_numbers() -> None:
    text = (APP / "bnn_protocol.h").read_text()
    numbers = {n: int(v, 0) for n, v in re.findall(r"^\s+BNN_(\w+) = (\w+)", text, re.M)}
    expected = {f"TYPE_{member.name}": member.value for member in MessageType}
    expected |= {f"ERROR_{member.name}": member.value for member in ErrorCode}
    expected |= {f"STATE_{member.name}": member.value for member in ImageState}
    assert numbers == expected | {"TYPE_REPLY": REPLY}
