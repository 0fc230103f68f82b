"""Short seeds and generators' states: what is found, and what it takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from needs import need_emulator, need_toolchain

from bnnmcu.attack.oracle import NativeOracle
from bnnmcu.attack.study.gf2 import solve
from bnnmcu.attack.study.inverse import _unmix, find_seeds
from bnnmcu.attack.study.search import answer_entropy, codes, find, needed
from bnnmcu.attack.study.seed_figures import measure_set, study_seeds
from bnnmcu.attack.study.state import observable, recover_state, redraw
from bnnmcu.attack.study.state_figures import native_dump, study_state
from bnnmcu.data import Dataset
from bnnmcu.errors import UsageError
from bnnmcu.graph import Graph
from bnnmcu.lfsr import GENERATORS, MIX, RandomWords, draw_words
from bnnmcu.packing import pack_planes
from bnnmcu.toolchain.native import NativeTwin

STATE_BITS = {"xorshift128": 128, "lfsr113": 113, "taus88": 88}


@pytest.mark.parametrize("rows", [1, 3, 6, 9])
def test_equations_are_solved_as_trying_all_values_does(rows: int) -> None:
    rng = np.random.default_rng(rows)
    every = np.array(list(product((0, 1), repeat=6)))
    seen = set()
    for _ in range(60):
        left, right = rng.integers(0, 2, (rows, 6)), rng.integers(0, 2, rows)
        fits = [(every @ left[:n].T % 2 == right[:n]).all(1) for n in range(rows + 1)]
        got = solve(left, right)
        first = next((n - 1 for n in range(1, rows + 1) if not fits[n].any()), None)
        assert got.contradiction == first
        seen.add(first is None)
        good = every[fits[rows if first is None else first]]
        assert len(good) == 2 ** (6 - got.rank)
        assert np.array_equal(got.known, (good == good[0]).all(0))
        assert np.array_equal(got.values[got.known], good[0][got.known])
        assert fits[got.needed].sum() == len(good)
        assert got.needed == 0 or fits[got.needed - 1].sum() > len(good)
    assert seen == {True, False}


def test_equations_in_more_unknowns_than_a_word_has_bits() -> None:
    rng = np.random.default_rng(4)
    truth, left = rng.integers(0, 2, 150), rng.integers(0, 2, (190, 150))
    got = solve(left, left @ truth % 2)
    assert got.rank == 150
    assert got.known.all()
    assert np.array_equal(got.values, truth)


def _levels(k: int, words: int, seed: int) -> Any:
    """Planes of a layer that has every level, the certain ones too, and lanes without weights."""
    levels = np.random.default_rng(seed).integers(0, 1 << k, (words // 2, 1, 1, 40))
    return pack_planes(levels.astype(np.uint8), k)


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("k", [2, 3, 4, 8])
def test_a_few_weights_give_the_state_and_all_that_follows(generator: str, k: int) -> None:
    skip, planes = 7, _levels(k, 200, k)
    for seed in (0, 1, 0x0123456789ABCDEF):
        random = RandomWords(generator, [seed])
        begun = random.state[:, 0] & observable(generator)
        random.words(skip)
        drawn = draw_words(random, planes)[0]
        found = recover_state(generator, planes, drawn[:80], skip=skip)
        assert found.bits == STATE_BITS[generator]
        assert np.array_equal(found.state, begun)
        assert np.array_equal(redraw(generator, found.state, planes, skip=skip), drawn)
        # What the weights tell is enough, and none of it is thrown away lightly.
        assert found.bits <= found.entropy < 6 * found.bits
        fewer = -(-found.lanes // 32)
        assert np.array_equal(
            recover_state(generator, planes, drawn[:fewer], skip=skip).state, begun
        )
        with pytest.raises(UsageError, match=r"settle \d+ of the state's"):
            recover_state(generator, planes, drawn[: fewer - 1], skip=skip)


def test_weights_of_another_origin_are_refused() -> None:
    planes = _levels(4, 120, 1)
    drawn = draw_words(RandomWords("xorshift128", [5]), planes)[0]
    turned = drawn.copy()
    # The lane of a weight that is always -1.
    turned[0] |= np.uint32(1) << np.uint32(
        next(i for i in range(40) if not any(int(p) >> i & 1 for p in planes[0]))
    )
    random = np.random.default_rng(0).integers(0, 1 << 32, 120, dtype=np.uint32)
    possible = np.bitwise_or.reduce(planes, axis=1) & random
    for generator, words in (
        ("lfsr113", drawn),
        ("taus88", drawn),
        ("xorshift128", drawn[1:]),
        ("xorshift128", turned),
        ("xorshift128", possible),
    ):
        with pytest.raises(UsageError, match="cannot have drawn"):
            recover_state(generator, planes, words)
    for words in (drawn[:0], np.concatenate([drawn, drawn])):
        with pytest.raises(UsageError, match="words of weights, but the layer has 120"):
            recover_state("xorshift128", planes, words)


def _seed_with(word: int, value: int, low: int) -> int:
    """The seed with this low half whose mixer gives a value for a state word."""
    mixed = RandomWords("xorshift128", [low ^ MIX[word] ^ MIX[0]]).state[0, 0]
    high = _unmix(value) - _unmix(int(mixed)) - word
    return (high & 0xFFFFFFFF) << 32 | low


@pytest.mark.parametrize("generator", GENERATORS)
def test_seeds_are_found_from_states(generator: str) -> None:
    seeds = [0, 1, 70_000, (1 << 32) + 5, 0xFEDCBA98_0001FFFF]
    # Words below the smallest value, which is added to them: 0, 1 and 7 are some of each kind.
    seeds += [_seed_with(word, value, 99) for word in (0, 1) for value in (0, 1, 7)]
    for seed in seeds:
        state = RandomWords(generator, [seed]).state[:, 0]
        shown = state & observable(generator)
        assert find_seeds(generator, shown, low_bits=17, first_only=False) == [seed]
    elsewhere = RandomWords(generator, [1 << 17]).state[:, 0]
    told: list[int] = []
    assert find_seeds(generator, elsewhere, low_bits=17, progress=told.append) == []
    with pytest.raises(UsageError, match="32 bits"):
        find_seeds(generator, elsewhere, low_bits=33)


def _coin(images: Any, seeds: Any) -> Any:
    """Two classes, one fair bit an answer: of image and seed, and nothing else."""
    x = seeds * np.uint64(0x9E3779B97F4A7C15) + images[:, 0, 0, :1].astype(np.uint64)
    for shift in (31, 29, 32):
        x = (x ^ x >> np.uint64(shift)) * np.uint64(0xBF58476D1CE4E5B9)
    bit = (x >> np.uint64(63)).astype(np.int64)
    return np.stack([1 - bit, bit], axis=-1)


_COINS = np.arange(60, dtype=np.uint8).reshape(-1, 1, 1, 1)


def test_answers_needed_are_those_that_tell_a_seed_from_all_others() -> None:
    bits = 7
    got = needed(_coin, _COINS, np.ones(60), bits)
    seeds = (np.arange(128)[:, np.newaxis] + np.arange(60)) % 128
    seen = _coin(_COINS, seeds.T.astype(np.uint64)).argmax(-1).T
    same = (seen[:, np.newaxis] == seen).cumprod(-1).sum(-1)  # answers before two seeds part
    np.fill_diagonal(same, 0)
    assert np.array_equal(got.answers, same.max(1) + 1)
    assert (got.resolved, got.entropy, got.bound) == (1.0, 1.0, 7.0)
    assert got.bound <= got.mean < got.bound + 3
    assert got.inferences < 128 * got.asked

    cut = needed(_coin, _COINS[:1], np.ones(1), bits, most=3)
    assert (cut.resolved, cut.asked, cut.mean) == (0.0, 3, 3.0)


@pytest.mark.parametrize("secret", [0, 100, 1023])
def test_a_short_seed_is_found(secret: int) -> None:
    seeds = ((secret + np.arange(60)) % 1024).astype(np.uint64)
    answers = list(zip(_COINS, _coin(_COINS, seeds[:, np.newaxis])[:, 0], strict=True))
    taken: list[int] = []

    def device() -> Any:
        for i, answer in enumerate(answers):
            taken.append(i)
            yield answer

    got = find(_coin, device(), 10)
    assert got.seeds == (secret,)
    assert 10 <= got.answers < len(taken) < 40, "no more is asked than needed, and to confirm"
    assert got.inferences < 3 * 1024
    wrong = [(image, logits[::-1]) for image, logits in answers[:40]]
    assert find(_coin, wrong, 10).seeds == ()
    both = find(_coin, answers[:4], 10).seeds
    assert secret in both
    assert len(both) > 1, "four bits do not single out one of 1,024"


def test_codes_and_entropy() -> None:
    logits = np.array([[[3, 1], [3, 1], [1, 3], [-1, 3]], [[5, 5]] * 4])
    labels, values = codes(logits, "label"), codes(logits, "logits")
    assert labels.tolist() == [[0, 0, 1, 1], [0, 0, 0, 0]]
    assert answer_entropy(labels).tolist() == [1.0, 0.0]
    assert answer_entropy(values).tolist() == [1.5, 0.0]
    for bits in (0, 25):
        with pytest.raises(UsageError, match="is not searched"):
            find(_coin, [], bits)
    with pytest.raises(UsageError, match="'label' or 'logits'"):
        codes(logits, "both")  # type: ignore[arg-type]


def test_seeds_of_a_network(trained: dict[str, Graph], blob_data: Dataset) -> None:
    graph, rng = trained["S"], np.random.default_rng(1)
    twin = NativeTwin(graph)
    noisy = np.clip(blob_data.images.astype(int) // 2 + rng.integers(0, 128, (28, 28, 1)), 0, 255)
    chosen = measure_set(twin.run, "noisy", noisy.astype(np.uint8), draws=128, rng=rng)
    assert 0.02 < chosen.entropy < 3
    rows = study_seeds(twin.run, NativeOracle(graph), [chosen], [4, 6, 24], rng=rng, budget=20_000)
    measured = [row for row in rows if not row.extrapolated]
    assert [(row.kind, row.bits) for row in measured] == [
        ("label", 4), ("label", 6), ("logits", 4), ("logits", 6)
    ]  # fmt: skip
    for row in measured:
        assert row.found
        assert row.mean is not None
        assert row.most is not None
        if row.kind == "label":
            assert row.bound is not None
            # On average over all secrets, to which 128 draws' entropy is only an estimate.
            assert 0.8 * row.bound < row.mean <= row.most
        else:
            assert row.mean < 2
    further = [row for row in rows if row.extrapolated]
    assert {row.bits for row in further} == {16, 20, 24, 32, 48, 64}
    assert all(row.found is None and row.answers is None for row in further)
    assert further[0].seconds == pytest.approx(measured[1].seconds * 2**10)
    with pytest.raises(UsageError, match="no length"):
        study_seeds(twin.run, NativeOracle(graph), [chosen], [], rng=rng)


def test_the_state_of_a_network_with_two_drawn_layers(random_graph: Callable[..., Graph]) -> None:
    graph = random_graph(3, kinds="ss", channels=36)
    twin = NativeTwin(graph)
    sizes = [node.weights.size for node in graph.stochastic]
    got = study_state(graph, native_dump(twin), (77 << 32) + 300, words=60)
    assert got.exact
    assert got.seed == (77 << 32) + 300
    assert (got.predicted + got.dumped, got.next_weights) == (sum(sizes), sum(sizes))
    assert got.dumped == 30 * 36
    assert 128 <= got.weights < got.dumped
    assert study_state(graph, native_dump(twin), 5, words=60, find_seed=False).seed is None

    def other(layer: str, seed: int, words: int | None) -> Any:
        """A board whose next draw is not that of the next seed."""
        return native_dump(twin)(layer, seed if seed == 300 else seed + 1, words)

    wrong = study_state(graph, other, 300, words=60)
    assert wrong.right == wrong.predicted
    assert not wrong.exact
    with pytest.raises(UsageError, match="draws no weights"):
        study_state(random_graph(1, kinds="b"), native_dump(twin), 1)


def test_a_board_is_studied_from_the_command_line(
    trained_files: dict[str, Path],
    blob_data: Dataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    need_emulator("qemu")
    need_toolchain("gcc")
    from bnnmcu.cli.main import main

    def command(*arguments: str) -> str:
        with pytest.raises(SystemExit) as end:
            main([*arguments])
        shown = capsys.readouterr()
        assert end.value.code == 0, shown.err
        return shown.out

    project = str(tmp_path / "s8")
    command("export", str(trained_files["S"]), "--board", "nucleo_f446", "-o", project)
    study = ("state", project, "--emulate", "qemu", "--secret", "17179870001", "--json")
    state = json.loads(command("study", *study))
    assert state["oracle"].startswith("qemu:")
    assert state["exact"]
    assert state["seed"] == f"{17179870001:016x}"
    assert state["right"] == state["predicted"] > 4000
    np.savez(tmp_path / "blobs.npz", images=blob_data.images, labels=blob_data.labels)
    data = ("--data", str(tmp_path / "blobs.npz"), "--json")
    for attack, count in (("fgsm", 20), ("cw", 4)):
        search = ("--attack", attack, "-n", str(count), "--draws", "32", "--budget", "4000")
        found = json.loads(command("study", "seed", project, "--bits", "5", *search, *data))
        assert (found["oracle"]["label"], found["attack"]) == ("native", attack)
        entropy = found["label_entropy_bits"]
        assert entropy["adversarial"] > entropy["clean"] >= 0
        rows = [row for row in found["rows"] if not row["extrapolated"]]
        assert {"label", "logits"} == {r["kind"] for r in rows if r["images"] == "adversarial"}
        assert all(row["found"] for row in rows)
    assert "neither an attack nor security is claimed" in " ".join(
        command("study", "state", project, "--no-find-seed").split()
    )
