"""The HELLO reply: who answers, which model it runs, and what it can take."""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

from bnnmcu.link.protocol import check

__all__ = ["CounterKind", "DeviceInfo", "ImageState", "LayerInfo"]

_FIXED = struct.Struct("<BBBBBBBBIHHHHHHBBBBI32s")
_U32 = struct.Struct("<I")


class CounterKind(enum.IntEnum):
    """What the ticks of a device are."""

    NONE = 0
    CYCLES = 1
    TIMER = 2


class ImageState(enum.IntFlag):
    """How the firmware is, as it found when it started."""

    CHECKED = 1  # its image has a checksum, which was computed
    CORRUPT = 2  # and is another one
    FAULTED = 4  # an earlier run ended in a fault, which is kept


_SOUND = ImageState(0)
_COUNTER_TEXT = {
    CounterKind.NONE: "no counter",
    CounterKind.CYCLES: "CPU cycles",
    CounterKind.TIMER: "timer ticks",
}
_GENERATORS = ("none", "xorshift128", "lfsr113", "taus88")
_MODES = ("evaluation", "field")
_FIELD = _MODES.index("field")
_RESETS = ("not known", "power", "reset pin", "software", "watchdog")


def _name(names: tuple[str, ...], index: int) -> str:
    return names[index] if index < len(names) else f"unknown ({index})"


@dataclass(frozen=True)
class LayerInfo:
    """One layer as the device names it.

    Attributes:
        name: at most 31 characters.
        sampled_words: 32-bit words of weights drawn per inference, 0 if none.
    """

    name: str
    sampled_words: int


@dataclass(frozen=True)
class DeviceInfo:
    """The HELLO reply: who answers, what it runs and what it can take.

    Attributes:
        clock_hz: CPU clock; 0 on an emulator, where ticks are no time.
        max_request, max_reply: largest payloads, bytes.
        window: requests that may be unanswered at the same time.
        max_seeds: draws in one INFER request.
        stack_free: bytes of stack never used so far; 0 if not known.
        reset: why it started, as a number of the protocol.
        state: of its image, and whether it keeps a fault.
    """

    protocol: int
    firmware: tuple[int, int, int]
    mode: int
    counter: int
    window: int
    max_seeds: int
    clock_hz: int
    max_request: int
    max_reply: int
    height: int
    width: int
    channels: int
    classes: int
    logit_bytes: int
    generator: int
    planes: int
    stack_free: int
    model_sha256: bytes
    board: str
    model: str
    layers: tuple[LayerInfo, ...]
    reset: int = 0
    state: ImageState = _SOUND

    @property
    def reset_text(self) -> str:
        """Why it started: "power", "reset pin", "software", "watchdog", or "not known"."""
        return _name(_RESETS, self.reset)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width, channels of the image, uint8."""
        return self.height, self.width, self.channels

    @property
    def counter_text(self) -> str:
        """What a tick is, for people; whether it is emulated the transport's name says."""
        try:
            return _COUNTER_TEXT[CounterKind(self.counter)]
        except ValueError:
            return f"unknown ({self.counter})"

    @property
    def generator_text(self) -> str:
        """Name of the random generator, "none" for a deterministic model."""
        return _name(_GENERATORS, self.generator)

    @property
    def field(self) -> bool:
        """Whether the board draws its own seeds, takes none and tells none: docs/FIELD.md."""
        return self.mode == _FIELD

    @property
    def mode_text(self) -> str:
        """Either "evaluation", where seeds travel with the requests, or "field"."""
        return _name(_MODES, self.mode)

    def pack(self) -> bytes:
        """The payload of a HELLO reply."""
        head = _FIXED.pack(
            self.protocol,
            *self.firmware,
            self.mode,
            self.counter,
            self.window,
            self.max_seeds,
            self.clock_hz,
            self.max_request,
            self.max_reply,
            *self.input_shape,
            self.classes,
            self.logit_bytes,
            self.generator,
            self.planes,
            len(self.layers),
            self.stack_free,
            self.model_sha256,
        )
        layers = b"".join(_U32.pack(x.sampled_words) + _pack_text(x.name) for x in self.layers)
        state = bytes([2, self.reset, self.state])
        return head + _pack_text(self.board) + _pack_text(self.model) + layers + state

    @classmethod
    def unpack(cls, payload: bytes) -> DeviceInfo:
        """Read a HELLO reply.

        Raises:
            LinkError: it is cut short or too long, or announces limits that
                cannot work.
        """
        check(len(payload) >= _FIXED.size, f"a HELLO reply of {len(payload)} bytes")
        fields = _FIXED.unpack_from(payload)
        at = _FIXED.size
        board, at = _unpack_text(payload, at)
        model, at = _unpack_text(payload, at)
        layers = []
        for _ in range(fields[18]):
            check(len(payload) >= at + _U32.size, "a HELLO reply ends inside its layers")
            (words,) = _U32.unpack_from(payload, at)
            name, at = _unpack_text(payload, at + _U32.size)
            layers.append(LayerInfo(name, words))
        check(len(payload) > at, "a HELLO reply ends before its state")
        size = payload[at]
        check(size >= 2, f"the state in a HELLO reply has {size} bytes")
        # It may grow in later versions; what is not known is passed over.
        excess = len(payload) - (at + 1 + size)
        check(excess == 0, f"a HELLO reply of {len(payload)} bytes, which is {excess} too many")
        info = cls(
            protocol=fields[0],
            firmware=(fields[1], fields[2], fields[3]),
            mode=fields[4],
            counter=fields[5],
            window=fields[6],
            max_seeds=fields[7],
            clock_hz=fields[8],
            max_request=fields[9],
            max_reply=fields[10],
            height=fields[11],
            width=fields[12],
            channels=fields[13],
            classes=fields[14],
            logit_bytes=fields[15],
            generator=fields[16],
            planes=fields[17],
            stack_free=fields[19],
            model_sha256=fields[20],
            board=board,
            model=model,
            layers=tuple(layers),
            reset=payload[at + 1],
            state=ImageState(payload[at + 2]),
        )
        info._check_limits()
        return info

    def _check_limits(self) -> None:
        pixels = self.height * self.width * self.channels
        check(pixels > 0 and self.classes > 0, "a HELLO reply without an input or classes")
        check(self.logit_bytes in (4, 8), f"logits of {self.logit_bytes} bytes")
        check(self.window > 0 and self.max_seeds > 0, "a window or seed limit of zero")
        seeds, head = (0, 12) if self.field else (8 * self.max_seeds, 4)
        check(
            self.max_request >= 2 + pixels + seeds
            and self.max_reply >= head + self.max_seeds * (4 + self.classes * self.logit_bytes),
            "a payload limit too small for its own seed limit",
        )


def _pack_text(text: str) -> bytes:
    data = text.encode()
    return bytes([len(data)]) + data


def _unpack_text(payload: bytes, at: int) -> tuple[str, int]:
    check(len(payload) > at, "a HELLO reply ends before a name")
    end = at + 1 + payload[at]
    check(len(payload) >= end, "a HELLO reply ends inside a name")
    # A name is for people: a stray byte in it must not stop the work, nor steer a terminal.
    text = payload[at + 1 : end].decode(errors="replace")
    return "".join(c if c.isprintable() else "\ufffd" for c in text), end
