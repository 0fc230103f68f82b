"""Field mode: the board's own seeds, nothing that tells them, no value of the counter twice."""

from __future__ import annotations

import random
import re
import stat
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from field_rig import FIELD, FIELD_SOURCES, KEY, KNOWN_SOURCES, CounterLibrary, seeds_of
from link_rig import (
    APP,
    QUICK,
    REPO,
    SEED_FAULT,
    ServerTransport,
    Spoiler,
    compile_c,
    digits,
    fake_logits,
)

from bnnmcu.errors import DataError, LinkError, RemoteError, UsageError
from bnnmcu.field import DeviceKey, readable_by_others, siphash
from bnnmcu.link.device import Device
from bnnmcu.link.fault import FaultReport
from bnnmcu.link.field import FieldInferReply, FieldInferRequest
from bnnmcu.link.frame import Frame, FrameDecoder, encode_frame
from bnnmcu.link.hello import DeviceInfo
from bnnmcu.link.protocol import (
    ErrorCode,
    ErrorReport,
    InferReply,
    InferRequest,
    MessageType,
    SampleRequest,
)

IMAGE = digits(1)[0]
HELLO, INFER, COUNTERS, SAMPLE, CHECK, LAST_FAULT, BAUD = (int(MessageType(i)) for i in range(1, 8))
BLOCK = 65536

#: The vectors that its authors publish with their program: key 00 01 .. 0f, data 00 01 .. of
#: growing length, the hash's bytes least significant first; that of 15 bytes is the paper's.
VECTORS = (
    "310e0edd47db6f72", "fd67dc93c539f874", "5a4fa9d909806c0d", "2d7efbd796666785",
    "b7877127e09427cf", "8da699cd64557618", "cee3fe586e46c9cb", "37d1018bf50002ab",
    "6224939a79f5f593", "b0e4a90bdf82009e", "f3b9dd94c5bb5d7a", "a7ad6b22462fb3f4",
    "fbe50e86bc8f1e75", "903d84c02756ea14", "eef27a8e90ca23f7", "e545be4961ca29a1",
)  # fmt: skip


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> CounterLibrary:
    return CounterLibrary(tmp_path_factory.mktemp("c") / "counter.so")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_c(tmp_path_factory.mktemp("c") / "field_server", FIELD_SOURCES, *FIELD)


@pytest.fixture
def board(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ServerTransport]:
    """A board that never ran; its flash outlasts the process."""
    monkeypatch.setenv("BNN_FIELD_FILE", str(tmp_path / "marks"))
    transport = ServerTransport(program)
    yield transport
    transport.close()


class Peer:
    """Raw frames to a server and back."""

    def __init__(self, transport: ServerTransport) -> None:
        self._transport, self._decoder = transport, FrameDecoder()

    def ask(self, kind: int, sequence: int, payload: bytes = b"") -> Frame:
        self._transport.write(encode_frame(Frame(kind, sequence, payload)))
        frames: list[Frame] = []
        # However busy the machine is, and in however many pieces it comes.
        deadline = time.monotonic() + 60
        while not frames:
            assert time.monotonic() < deadline, "the server says nothing"
            frames = self._decoder.feed(self._transport.read(65536, 1.0))
        (frame,) = frames
        return frame

    def infer(self, sequence: int, draws: int = 1, image: np.ndarray = IMAGE) -> Frame:
        return self.ask(INFER, sequence, FieldInferRequest(image.tobytes(), draws).pack())


def answer(frame: Frame, draws: int) -> FieldInferReply:
    assert frame.type == INFER | 0x80
    return FieldInferReply.unpack(frame.payload, draws=draws, classes=10, logit_bytes=8)


def refusal(frame: Frame) -> tuple[int, int, int]:
    assert frame.type == MessageType.ERROR
    report = ErrorReport.unpack(frame.payload)
    return report.code, report.request, report.detail


# --- the hash and the counter ---------------------------------------------------------------------


def test_both_sides_compute_the_published_hashes(counter: CounterLibrary) -> None:
    for size, text in enumerate(VECTORS):
        expected = int.from_bytes(bytes.fromhex(text), "little")
        assert siphash(KEY.secret, bytes(range(size))) == expected
        assert counter.siphash(KEY.secret, bytes(range(size))) == expected
    data = random.Random(1).randbytes(300)
    assert counter.siphash(data[:16], data) == siphash(data[:16], data)


def test_the_documents_seeds_are_those_of_both_sides(counter: CounterLibrary) -> None:
    text = (REPO / "docs" / "FIELD.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| 0x([0-9a-f]{16}) \|$", text, flags=re.MULTILINE)
    assert len(rows) == 5
    for value, seed in rows:
        assert seeds_of(int(value), 1) == [int(seed, 16)]
        assert counter.seed(int(value)) == int(seed, 16)


def _values(counter: CounterLibrary, seed: int, starts: int = 400) -> list[int]:
    """What a board gives whose power goes again and again, while marks are set or between."""
    rng = random.Random(seed)
    counter.new_board()
    given: list[int] = []
    for _ in range(starts):
        counter.start(rng.randrange(1 << 32), rng.randrange(1, 4), rng.random() < 0.3)
        for _ in range(rng.randrange(12)):
            found = counter.take(rng.randrange(1, 21))
            if found is None:
                break
            given += found
    return given


@pytest.mark.parametrize("seed", range(5))
def test_a_power_cut_skips_values_and_repeats_none(counter: CounterLibrary, seed: int) -> None:
    given = _values(counter, seed)
    assert len(given) > 2000
    assert all(later > before for before, later in pairwise(given))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("state.guarded = set_next();", "state.guarded = true;"),
        ("if (bnn_persist_set(state.mark - 1u)) {", "if (bnn_persist_set(state.mark - 1u) || 1) {"),
    ],
    ids=["its first mark gives values", "given before the mark stands"],
)
def test_a_careless_counter_repeats_values(tmp_path: Path, old: str, new: str) -> None:
    """What the test before would see."""
    text = (APP / "bnn_field.c").read_text()
    assert text.count(old) == 1
    (tmp_path / "bnn_field.c").write_text(text.replace(old, new))
    careless = CounterLibrary(tmp_path / "careless.so", tmp_path / "bnn_field.c")
    given = [_values(careless, seed) for seed in range(5)]
    assert any(len(set(values)) < len(values) for values in given)


# --- on the wire ----------------------------------------------------------------------------------


def test_seeds_are_the_boards_and_its_counter_tells_them_to_the_keys_owner(
    board: ServerTransport,
) -> None:
    peer = Peer(board)
    info = DeviceInfo.unpack(peer.ask(HELLO, 1).payload)
    assert (info.mode_text, info.field, info.window, info.max_seeds) == ("field", True, 1, 20)
    for sequence, draws in enumerate((1, 20, 3)):
        found = answer(peer.infer(sequence, draws), draws)
        expected = [fake_logits(IMAGE, seed) for seed in seeds_of(found.first, draws)]
        assert [row[:-1] for row in found.answer.logits.tolist()] == expected
        # The first mark of a start gives nothing: it stands where one might have faded.
        assert found.first == BLOCK + sum((1, 20, 3)[:sequence])


def test_a_retry_is_answered_with_the_same_bytes_whatever_came_between(
    board: ServerTransport,
) -> None:
    peer = Peer(board)
    first = peer.infer(7, 2)
    others = [
        lambda: peer.infer(7, 2),
        lambda: peer.ask(HELLO, 8),
        lambda: peer.ask(BAUD, 9, bytes(4) + b"xyz"),
        lambda: peer.ask(SAMPLE, 10, SampleRequest(1, 0, 0, 1).pack()),
        lambda: peer.ask(INFER, 11, b"\0\1"),
        lambda: peer.ask(99, 12),
    ]
    for other in others:
        other()
        assert peer.infer(7, 2) == first
    # None of them has moved the counter.
    later = answer(peer.infer(8, 1), 1).first
    assert later == answer(first, 2).first + 2
    # Now that the host has gone on, it is another request: other draws, not the old ones.
    assert answer(peer.infer(7, 2), 2).first == later + 1


GOOD = FieldInferRequest(IMAGE.tobytes(), 2).pack()
REFUSED = {
    "weights": (SAMPLE, SampleRequest(1, 0, 0, 1).pack(), ErrorCode.FIELD, 0),
    "weights, badly asked": (SAMPLE, b"", ErrorCode.FIELD, 0),
    "counts of layers": (COUNTERS, b"", ErrorCode.FIELD, 0),
    "checksum of the key": (CHECK, b"", ErrorCode.FIELD, 0),
    "seeds": (INFER, InferRequest(IMAGE.tobytes(), (1, 2)).pack(), ErrorCode.FIELD, 0),
    "fewer seeds than said": (INFER, GOOD + bytes(8), ErrorCode.BAD_LENGTH, 786),
    "short": (INFER, GOOD[:-1], ErrorCode.BAD_LENGTH, 786),
    "empty": (INFER, b"", ErrorCode.BAD_LENGTH, 786),
    "flags": (INFER, b"\1" + GOOD[1:], ErrorCode.BAD_ARGUMENT, 0),
    "no draws": (INFER, b"\0\0" + GOOD[2:], ErrorCode.BAD_ARGUMENT, 1),
    "too many draws": (INFER, b"\0\x15" + GOOD[2:], ErrorCode.BAD_ARGUMENT, 1),
    "no fault": (LAST_FAULT, b"", ErrorCode.NOT_READY, 0),
}


def test_what_would_tell_seeds_or_weights_is_refused(board: ServerTransport) -> None:
    peer = Peer(board)
    for sequence, (name, (kind, payload, code, detail)) in enumerate(REFUSED.items()):
        assert refusal(peer.ask(kind, sequence, payload)) == (code, kind, detail), name
    # No refused request has taken a value.
    assert answer(peer.infer(1000), 1).first == BLOCK


def test_a_crash_tells_no_register_that_may_hold_a_secret(tmp_path: Path) -> None:
    defines = (*FIELD, f"-DFIELD_FIRST={SEED_FAULT}u")
    transport = ServerTransport(compile_c(tmp_path / "known", KNOWN_SOURCES, *defines))
    frame = Peer(transport).infer(1)
    transport.close()
    fault = FaultReport.unpack(frame.payload)
    # lr, pc, xpsr are of code.
    assert fault.registers == (0, 0, 0, 0, 0, 0x08000101, 0x08000200, 0x61000000)
    assert (fault.cfsr, fault.hfsr, fault.mmfar, fault.bfar) == (0x8200, 0x40000000, 0, 0)


def test_power_cycles_and_flash_without_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that answers takes a mark more, and a full sector ends all answers."""
    monkeypatch.setenv("BNN_FIELD_FILE", str(tmp_path / "marks"))
    defines = (*FIELD, "-DFIELD_MARKS=6u", "-DBNN_FIELD_BLOCK=32u")
    program = compile_c(tmp_path / "short", FIELD_SOURCES, *defines)
    starts: list[list[int]] = []
    for _ in range(3):
        transport = ServerTransport(program)
        peer = Peer(transport)
        found = [peer.infer(n, 20) for n in range(2)]
        codes = [refusal(x)[0] for x in found if x.type == MessageType.ERROR]
        assert set(codes) <= {ErrorCode.COUNTER}
        starts.append([answer(x, 20).first for x in found if x.type != MessageType.ERROR])
        transport.close()
    # 12 values of a block are passed over where the next request does not fit.
    assert starts == [[1 * 32, 2 * 32], [4 * 32, 5 * 32], []]


def test_losses_on_the_line_cost_no_value_of_the_counter(board: ServerTransport) -> None:
    """Every retry is answered from the cache: 40 requests of 3 draws take 120 values."""
    spoiler = Spoiler(board, ("drop", "double", "corrupt", "cut", "split", "noise"), 0.15, seed=3)
    images = digits(40)
    with Device(spoiler, timing=QUICK) as device:
        assert device.info.field
        results = list(device.infer_many((image, range(3)) for image in images))
        with pytest.raises(RemoteError, match="field mode"):
            device.sample(1, 0, 1)
    assert spoiler.spoiled > 10
    counters = [int(n) for result in results for n in result.counters]
    assert counters == list(range(BLOCK, BLOCK + 120))
    for image, result in zip(images, results, strict=True):
        seeds = KEY.seeds(result.counters)
        expected = [fake_logits(image, int(seed)) for seed in seeds]
        assert [row[:-1] for row in result.logits.tolist()] == expected


def test_more_draws_than_a_request_takes_go_in_several(board: ServerTransport) -> None:
    with Device(board, timing=QUICK) as device:
        result = device.infer(IMAGE, range(45))
    assert result.counters is not None
    assert result.counters.tolist() == list(range(BLOCK, BLOCK + 45))
    assert result.logits.shape == (45, 10)


# --- messages and the key file --------------------------------------------------------------------


def test_messages_read_back_and_every_other_length_is_refused() -> None:
    request = FieldInferRequest(bytes(range(9)), 3)
    assert FieldInferRequest.unpack(request.pack(), 9) == request
    logits = np.arange(6, dtype=np.int64).reshape(3, 2)
    reply = FieldInferReply(1 << 40, InferReply(logits, np.arange(3, dtype=np.uint32), True))
    for width in (4, 8):
        data = reply.pack(width)
        again = FieldInferReply.unpack(data, draws=3, classes=2, logit_bytes=width)
        assert (again.first, again.answer.polluted) == (1 << 40, True)
        assert np.array_equal(again.answer.logits, logits)
        for size in (*range(len(data)), len(data) + 1):
            with pytest.raises(LinkError, match="disagree"):
                FieldInferReply.unpack((data + b"x")[:size], draws=3, classes=2, logit_bytes=width)
    for size in (0, 1, 10, 12):
        with pytest.raises(LinkError, match="disagree"):
            FieldInferRequest.unpack((request.pack() + b"x")[:size], 9)
    data = FieldInferReply((1 << 64) - 2, reply.answer).pack(8)
    with pytest.raises(LinkError, match="wraps around"):
        FieldInferReply.unpack(data, draws=3, classes=2, logit_bytes=8)
    with pytest.raises(LinkError, match="256 draws"):
        FieldInferRequest(b"", 256).pack()


def test_a_key_file_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "board.key"
    key, made = DeviceKey.load_or_make(path)
    assert made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not readable_by_others(path)
    assert DeviceKey.load_or_make(path) == (key, False)
    assert DeviceKey.load(path) == key
    assert key.secret.hex() not in repr(key)
    assert DeviceKey.load_or_make(tmp_path / "other.key")[0] != key
    path.chmod(0o640)
    assert readable_by_others(path)


@pytest.mark.parametrize(
    "text", ["", "0" * 31, "0" * 33, "g" * 32, "0" * 32 + "\n0", "\u00e9" * 32, "0" * 5000]
)
def test_other_files_are_no_keys(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="not a device key"):
        DeviceKey.load_or_make(path)
    assert path.read_text(encoding="utf-8") == text
    with pytest.raises(UsageError, match="no such key file"):
        DeviceKey.load(tmp_path / "missing")
