"""Host against device, by chance: whatever the line does, every answer is right and comes once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from link_rig import INFO, ServerTransport, digits, fake_logits, fake_words
from model_board import Clock, ModelBoard, ModelLine, Spoil

from bnnmcu.errors import PortGoneError, RemoteError
from bnnmcu.link.device import Device
from bnnmcu.link.protocol import ErrorCode
from bnnmcu.link.timing import Timing
from bnnmcu.link.transport import Transport

IMAGES = digits(30)
SEEDS = st.lists(st.integers(0, 9) | st.integers(0, 2**64 - 1).filter(lambda x: x > 0xFF),
                 min_size=1, max_size=25)  # fmt: skip
KINDS = st.sampled_from(["drop", "duplicate", "corrupt", "delay"])
WAYS = st.sampled_from(["up", "down"])
#: More would be a line on which nothing can be expected.
MOST_FLAWS = 6


class VirtualRig:
    """The board of model_board, on a line of 115200 baud."""

    def __init__(self) -> None:
        clock = Clock()
        self.board = ModelBoard(clock, replace(INFO, window=3))
        self.line = ModelLine(self.board, pace=115200)
        self.timing = Timing(clock=clock, sleep=clock.sleep)
        self.layer, self.words = 1, 12800

    def open(self) -> Transport:
        self.line.closed = self.line.cut = False
        self.line.inbox.clear()
        return self.line

    def reset(self) -> None:
        self.line.reset_board()

    def cut(self) -> None:
        self.line.cut = True

    def spoil(self, way: str, kind: str) -> None:
        kinds = getattr(self.line, way).kinds
        if len(kinds) < MOST_FLAWS:
            kinds.append(kind)

    def mend(self) -> None:
        self.line.up.kinds.clear()
        self.line.down.kinds.clear()

    def close(self) -> None:
        pass


class ServerRig:
    """The C server under sanitizers; a reset is another process."""

    def __init__(self, program: Path) -> None:
        self.program = program
        self.line = FlawedLine(ServerTransport(program))
        # As quick as a machine that does other things, too, allows.
        self.timing = Timing(hello=(0.2,) * 20, first=0.5, first_draw=0.0, floor=0.1, pause=0.01)
        self.layer, self.words = 1, 1000

    def open(self) -> Transport:
        self.line.gone = False
        self.reset()
        return self.line

    def reset(self) -> None:
        self.line.inner.close()
        self.line.inner = ServerTransport(self.program)
        self.line.partial = b""

    def cut(self) -> None:
        self.line.gone = True

    def spoil(self, way: str, kind: str) -> None:
        kinds = getattr(self.line, way).kinds
        if len(kinds) < MOST_FLAWS and kind != "delay":
            kinds.append(kind)

    def mend(self) -> None:
        self.line.up.kinds.clear()
        self.line.down.kinds.clear()

    def close(self) -> None:
        self.line.inner.close()


class FlawedLine:
    """A transport that spoils whole frames on demand, and can be cut."""

    def __init__(self, inner: ServerTransport) -> None:
        self.name, self.inner, self.gone, self.partial = inner.name, inner, False, b""
        self.up, self.down = Spoil(), Spoil()

    def write(self, data: bytes) -> None:
        self._check()
        self.inner.write(b"".join(piece for _, piece in self.up(data)))

    def read(self, size: int, timeout: float) -> bytes:
        self._check()
        *whole, self.partial = (self.partial + self.inner.read(size, timeout)).split(b"\0")
        wires = (b"\0" + coded + b"\0" for coded in whole if coded)
        return b"".join(piece for wire in wires for _, piece in self.down(wire))

    def reset_input(self) -> None:
        self.partial = b""
        self.inner.reset_input()

    def close(self) -> None:
        self.gone = True

    def _check(self) -> None:
        if self.gone:
            raise PortGoneError("the line was cut (test)", where=self.name)


class LinkMachine(RuleBasedStateMachine):
    """Questions to a device, and what may happen between them and meanwhile."""

    rig: VirtualRig | ServerRig

    def make_rig(self) -> VirtualRig | ServerRig:
        return VirtualRig()

    @initialize()
    def connect(self) -> None:
        self.rig = self.make_rig()
        self.device = Device(
            self.rig.open(), timing=self.rig.timing, reopen=self.rig.open, reconnect=600.0
        )
        self.counted = False
        self.draws = 0

    def teardown(self) -> None:
        if not hasattr(self, "rig"):
            return
        try:
            # Whatever was done to it, it can be used: by this host, and by the next one.
            self.rig.mend()
            self.infer(2, [5])
            self.device.close()
            with Device(self.rig.open(), timing=self.rig.timing) as following:
                self.compare(following.infer(IMAGES[3], [9]), 3, [9])
        finally:
            self.rig.close()

    @staticmethod
    def compare(result: Any, image: int, seeds: list[int]) -> None:
        expected = [fake_logits(IMAGES[image], seed) for seed in seeds]
        assert result.logits[:, :-1].tolist() == expected
        assert result.ticks.shape == (len(seeds),)
        assert result.attempts >= 1

    @rule(image=st.integers(0, 29), seeds=SEEDS)
    def infer(self, image: int, seeds: list[int]) -> None:
        self.compare(self.device.infer(IMAGES[image], seeds), image, seeds)
        self.counted = True

    @rule(
        requests=st.lists(st.tuples(st.integers(0, 29), SEEDS), min_size=1, max_size=8),
        taken=st.integers(0, 8),
        trouble=st.dictionaries(st.integers(0, 7), st.sampled_from(["reset", "cut", "drop"])),
    )
    def infer_many(
        self, requests: list[tuple[int, list[int]]], taken: int, trouble: dict[int, str]
    ) -> None:
        def drawn() -> Iterator[tuple[np.ndarray, list[int]]]:
            for at, (image, seeds) in enumerate(requests):
                # With others in flight.
                kind = trouble.get(at, "")
                if kind == "drop":
                    self.rig.spoil("up", kind)
                elif kind:
                    getattr(self.rig, kind)()
                yield IMAGES[image], seeds

        stream = self.device.infer_many(drawn())
        for image, seeds in requests[:taken]:
            self.compare(next(stream), image, seeds)
        if taken >= len(requests):
            assert next(stream, None) is None
        stream.close()
        self.counted = False  # not known: it may still be at something

    @rule(words=st.integers(1, 1000), seed=st.integers(0, 2**64 - 1))
    def sample(self, words: int, seed: int) -> None:
        layer = self.rig.layer
        drawn = self.device.sample(layer, seed, words)
        assert drawn.tolist() == fake_words(layer, seed, 0, words)

    @rule()
    def check_image(self) -> None:
        reply = self.device.check_image()
        assert reply.found == reply.expected

    @rule()
    def counters(self) -> None:
        code = None
        try:
            assert self.device.counters().shape == (len(self.device.info.layers),)
        except RemoteError as error:
            code = error.code
        assert code in ((None,) if self.counted else (None, ErrorCode.NOT_READY))

    @rule(way=WAYS, kind=KINDS)
    def spoil(self, way: str, kind: str) -> None:
        self.rig.spoil(way, kind)

    @rule()
    def reset(self) -> None:
        self.rig.reset()
        self.counted = False

    @rule()
    def cut(self) -> None:
        self.rig.cut()
        self.counted = self.counted and isinstance(self.rig, VirtualRig)

    @precondition(lambda self: hasattr(self, "device"))
    @invariant()
    def nothing_is_left_over(self) -> None:
        assert self.device._session._window.in_flight == 0


def test_the_host_against_a_model_of_the_device() -> None:
    run_state_machine_as_test(
        LinkMachine, settings=settings(max_examples=60, stateful_step_count=30, deadline=None)
    )


def test_the_host_against_the_server(mnist_server: Path) -> None:
    class Against(LinkMachine):
        def make_rig(self) -> ServerRig:
            return ServerRig(mnist_server)

    run_state_machine_as_test(
        Against, settings=settings(max_examples=8, stateful_step_count=15, deadline=None)
    )


def test_the_model_of_the_device_is_the_server(server: ServerTransport) -> None:
    """Both give the same answers to the same requests, so that the one may stand for the other."""
    clock = Clock()
    model = Device(ModelLine(ModelBoard(clock)), timing=Timing(clock=clock, sleep=clock.sleep))
    quick = Timing(hello=(0.3,) * 20, floor=0.5)
    with Device(server, timing=quick) as real:
        for device in (model, real):
            with pytest.raises(RemoteError, match="before the first"):
                device.counters()
        for image, seeds in ((0, [1]), (1, list(range(45)))):
            left, right = (device.infer(IMAGES[image], seeds) for device in (model, real))
            assert left.logits[:, :-1].tolist() == right.logits[:, :-1].tolist()
        assert model.sample(1, 7, 900).tolist() == real.sample(1, 7, 900).tolist()
