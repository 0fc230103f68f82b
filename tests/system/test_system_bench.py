"""``bnnmcu bench`` in QEMU: exact counts of every layer, modelled cycles, and what it says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cycle_rig import build_model, disassemble, drive
from needs import need_digits, need_emulator, need_toolchain

from bnnmcu.backend.project import load_project
from bnnmcu.data import load_digits
from bnnmcu.target import Target, TargetOptions, build_for_emulation, open_target

_PROFILE = TargetOptions(emulate="qemu", toolchain="gcc", count=True, profile=True)


@pytest.fixture(autouse=True)
def _tools() -> None:
    need_emulator("qemu")
    need_toolchain("gcc")
    need_digits()


@pytest.fixture(scope="module")
def profiled(shipped: Callable[[str], Path]) -> Iterator[Target]:
    """S64 in QEMU with the plugin; TIM2 counts its instructions as well."""
    need_emulator("qemu")
    need_toolchain("gcc")
    with open_target(load_project(shipped("s64")), _PROFILE, lambda line: None) as target:
        yield target


@pytest.mark.parametrize("draws", [1, 3])
def test_the_plugin_counts_what_the_timer_counts(profiled: Target, draws: int) -> None:
    plugin = profiled.plugin
    assert plugin is not None
    layers = len(profiled.device.info.layers)
    for image in load_digits().stratified(3).images:
        # Greetings read the ticks, too, and further draws run a part of the layers.
        profiled.device.connect()
        answer = profiled.device.infer(image, list(range(draws)))
        assert not answer.polluted
        spans = plugin.inferences(layers)
        assert len(spans) == 1
        assert spans[0][0].instructions == int(answer.ticks[0])
        if draws == 1:
            counters = profiled.device.counters()
            assert [span.instructions for span in spans[0][1:]] == counters.tolist()
        for span in spans[0]:
            assert sum(span.functions.values()) == span.instructions
            # No core here executes more than one instruction a cycle.
            assert span.instructions < span.cycles < 3 * span.instructions
            assert 0 <= span.stalls < span.cycles


def test_functions_are_where_the_time_goes(profiled: Target) -> None:
    assert profiled.plugin is not None
    profiled.plugin.inferences(4)
    profiled.device.infer(load_digits().images[0], [1])
    ((whole, first, *_),) = profiled.plugin.inferences(4)
    (kernel,) = [name for name in first.functions if name.startswith("bnn_first_")][:1]
    assert first.functions[kernel] > 0.5 * first.instructions
    assert set(first.functions) <= set(whole.functions)


def test_the_report_has_every_figure(cli: Any, shipped: Callable[[str], Path]) -> None:
    done = cli("bench", shipped("b64"), "--emulate", "qemu", "--json", "-n", "2")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["counted_by"] == "plugin"
    assert report["resolution"] == 0
    assert report["cycle_model"]["compared_with_hardware"] is False
    total = report["total"]
    assert total["milliseconds"] is None, "an emulator measures no time"
    for name in ("instructions", "cycles_modelled", "flash", "ram", "stack"):
        assert isinstance(total[name], int), name
        assert total[name] > 0, name
    assert total["stack"] < total["ram"]
    milliseconds = 1000 * total["cycles_modelled"] / report["cycle_model"]["clock_hz"]
    assert total["milliseconds_modelled"] == pytest.approx(milliseconds)
    assert [layer["name"] for layer in report["layers"]] == ["conv1", "conv2", "conv3", "dense"]
    for layer in report["layers"]:
        assert set(layer) >= {"name", "kernel", "option", "macs", "instructions", "bytes"}
        assert sum(layer["functions"].values()) == layer["instructions"]
        assert layer["cycles_modelled"] > layer["instructions"]
    # What the server does between the layers is little.
    layers = sum(layer["instructions"] for layer in report["layers"])
    assert 0 < total["instructions"] - layers < 1000


def test_the_table_says_what_is_modelled(cli: Any, shipped: Callable[[str], Path]) -> None:
    done = cli("bench", shipped("b64"), "--emulate", "qemu", "-n", "1")
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "cycles, modelled" in text
    assert "never compared with hardware" in text
    assert re.search(r"about \d+\.\d\d ms at 180 MHz", text)


def test_without_a_compiler_the_timer_counts_and_bench_says_so(
    cli: Any, shipped: Callable[[str], Path], tmp_path: Path
) -> None:
    arguments = ("bench", shipped("b64"), "--emulate", "qemu", "--json", "-n", "1")
    with_plugin, without = cli(*arguments), cli(*arguments, env={"CC": str(tmp_path / "none")})
    assert without.returncode == 0, without.stderr
    assert "no counting plugin" in without.stderr
    report, expected = json.loads(without.stdout), json.loads(with_plugin.stdout)
    assert report["counted_by"] == "timer"
    assert report["total"]["cycles_modelled"] is None
    assert report["total"]["instructions"] == expected["total"]["instructions"]
    for layer, other in zip(report["layers"], expected["layers"], strict=True):
        assert layer["instructions"] == other["instructions"]


def test_a_plugin_that_does_not_load_is_said_and_done_without(
    cli: Any, shipped: Callable[[str], Path], tmp_path: Path
) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text(
        '#!/bin/sh\nwhile [ $# -gt 0 ]; do if [ "$1" = -o ]; then echo no > "$2"; fi; shift; done\n'
    )
    compiler.chmod(0o755)
    environment = {"CC": str(compiler), "BNNMCU_CACHE": str(tmp_path / "cache")}
    done = cli("bench", shipped("b64"), "--emulate", "qemu", "--json", "-n", "1", env=environment)
    assert done.returncode == 0, done.stderr
    assert "no counting plugin" in done.stderr
    assert json.loads(done.stdout)["counted_by"] == "timer"


# What the disassembler calls an instruction, and the kind (bnn_cycles.h) that it must be.
_KINDS = [
    (r"(ldr|ldrb|ldrh|ldrsb|ldrsh)(\.w)?", {6}),
    (r"(str|strb|strh)(\.w)?", {7, 8}),
    (r"(ldmia|ldmdb|ldm|pop|ldrd|vldmia|vpop)(\.w)?", {9}),
    (r"(stmia|stmdb|stm|push|strd|vstmia|vpush)(\.w)?", {10}),
    (r"(b|bx|blx|cbz|cbnz|b(eq|ne|cs|cc|mi|pl|vs|vc|hi|ls|ge|lt|gt|le))(\.[nw])?", {11}),
    (r"bl", {12}),
    (r"tb[bh]", {13}),
    (r"(mul|muls|smul.*|smuad|smusd|usad8)(\.w)?", {1}),
    (r"(mla|mls|smla[btdw].*|smlsd|usada8)", {2}),
    (r"[us]mull", {3}),
    (r"([us]mlal.*|umaal)", {4}),
    (r"[us]div", {5}),
    (r"v(add|sub|mul|neg|abs|cmp|cvt)\..*", {14}),
    (r"v(mla|mls|fma|fms)\..*", {15}),
    (r"v(div|sqrt)\..*", {16}),
    (r"vmov", {19, 20}),
    (r"(mrs|msr|dsb|isb|dmb|cpsi[de])", {21}),
    (
        r"(add|sub|rsb|adc|sbc|and|orr|orn|eor|bic|mov|mvn|movw|movt|cmp|cmn|tst|teq|lsl|lsr|asr|ror)"
        r"s?(\.[nw])?",
        {0},
    ),
    (
        r"(uxt|sxt|rev|ubfx|sbfx|bfi|bfc|ssat|usat|pkh|clz|it|nop|uadd|usub|sadd|ssub|sel|rbit).*",
        {0},
    ),
]


def test_the_decoder_agrees_with_the_disassembler(
    shipped: Callable[[str], Path], tmp_path: Path
) -> None:
    """Over all instructions of a firmware."""
    elf = build_for_emulation(load_project(shipped("s64")), "gcc", lambda line: None).elf
    found = disassemble(elf)
    decoded = drive(build_model(tmp_path), [instruction.command("d") for instruction in found])
    wrong, known = [], 0
    for instruction, (kind, words, jumps) in zip(found, decoded, strict=True):
        expected = next((k for p, k in _KINDS if re.fullmatch(p, instruction.name)), None)
        if expected is None:
            continue
        known += 1
        to_pc = instruction.operands.startswith("pc,") and instruction.name.startswith(
            ("mov", "add")
        )
        if kind not in ({11} if to_pc else expected):
            wrong.append((instruction, kind))
        registers = re.search(r"\{(.*)\}", instruction.operands)
        if registers and instruction.name[0] != "v":
            names = registers[1].split(", ")
            if words != len(names) or bool(jumps) != ("pc" in names and kind == 9):
                wrong.append((instruction, words))
    assert not wrong[:5]
    assert known > 0.97 * len(found)
