"""``bnnmcu fit`` and the page of a network: what they say is what ``export`` does."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from bnnmcu.backend.choice import KernelChoice
from bnnmcu.backend.fit import fit_boards, plan_for
from bnnmcu.backend.memory import check_fits
from bnnmcu.boards import all_boards, load_board
from bnnmcu.cli.main import main
from bnnmcu.compiler import read_source
from bnnmcu.errors import DoesNotFitError
from bnnmcu.passes import lower
from bnnmcu.report.html import to_html
from bnnmcu.report.model_page import model_page
from bnnmcu.resources import model_path
from tests.support.small_network import small_network

_EVIL = "<img src=x onerror=alert(1)>"


def _run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    code = stop.value.code
    assert isinstance(code, int)
    return code


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with model_path("s64.pt") as path:
        copy = tmp_path_factory.mktemp("model") / "s64.pt"
        copy.write_bytes(path.read_bytes())
    return copy


@pytest.fixture(scope="module")
def found(model: Path) -> list[dict[str, object]]:
    from contextlib import redirect_stdout
    from io import StringIO

    stream = StringIO()
    with redirect_stdout(stream):
        assert _run("fit", str(model), "--json") == 0
    rows = json.loads(stream.getvalue())
    assert isinstance(rows, list)
    return rows


def test_every_board_is_there_and_those_that_fit_come_first(
    found: list[dict[str, object]],
) -> None:
    assert {one["board"] for one in found} == {board.name for board in all_boards()}
    fits = [one["fits"] for one in found]
    assert fits == sorted(fits, reverse=True)
    assert True in fits
    assert False in fits
    assert all((one["why_not"] is None) == one["fits"] for one in found)


def test_it_says_what_export_does(
    model: Path, found: list[dict[str, object]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, one in enumerate([*found[:2], *found[-2:]]):
        folder = tmp_path / str(number)
        arguments = ["export", str(model), "--board", str(one["board"]), "-o", str(folder)]
        code = _run(*arguments, "--json")
        printed = capsys.readouterr()
        if not one["fits"]:
            assert code == DoesNotFitError.exit_code
            assert str(one["why_not"]).split(" of ")[0].split()[-1] in printed.err
            continue
        assert code == 0
        exported = json.loads((folder / "manifest.json").read_text())["memory"]
        assert exported == one["memory"]


def test_nothing_fits(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = min(all_boards(), key=lambda board: board.flash.size).name
    assert _run("fit", str(model), "--board", small) == DoesNotFitError.exit_code
    shown = capsys.readouterr()
    assert "fits none of 1 board" in shown.err
    assert small in shown.out
    assert _run("fit", str(model), "--board", "no_such_board") != 0
    assert "Traceback" not in capsys.readouterr().err


def test_kernels_that_give_way_are_told(model: Path) -> None:
    with model_path("b64.pt") as path:
        graph = lower(read_source(path).network).graph
    every = fit_boards(graph, all_boards(), KernelChoice())
    assert all(one.instructions > 0 and one.milliseconds > 0 for one in every)
    gave_way = [one for one in every if one.gave_way]
    assert gave_way
    assert {one.board.core for one in every if one.costs_of != one.board.core} == {
        "cortex-m7",
        "cortex-m33",
    }


def _page(name: str) -> str:
    graph = replace(lower(small_network()).graph, name=name)
    board = load_board("nucleo_f446re")
    plan = plan_for(graph, board, KernelChoice())
    memory = check_fits(plan, board, [board])
    fits = fit_boards(graph, all_boards()[:3], KernelChoice())
    return to_html(
        model_page(plan, memory, board, fits, training={"note": _EVIL}, command="bnnmcu export x")
    )


def test_the_page_is_the_same_each_time_and_holds_no_foreign_markup() -> None:
    text = _page("net")
    assert text == _page("net")
    assert _EVIL not in text
    assert "&lt;img src=x" in text
    assert not re.search(r'(?:src|href)="(?!data:image/|#)', text)
    assert "<script" not in text


def test_export_writes_the_page(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "model.html"
    arguments = ("export", str(model), "--board", "nucleo_f446", "-o", str(tmp_path / "s64"))
    assert _run(*arguments, "--report", str(page)) == 0
    text = page.read_text()
    manifest = json.loads((tmp_path / "s64" / "manifest.json").read_text())
    every = manifest["memory"]["toolchains"].values()
    assert any(f"{memory['flash']:,} bytes of flash" in text for memory in every)
    for title in ("The network", "How it was compiled", "Kernels", "Other boards"):
        assert f">{title}</h2>" in text
    for board in all_boards():
        assert board.name in text
    capsys.readouterr()
    assert _run(*arguments, "--report", str(model / "x.html")) != 0
    assert "Traceback" not in capsys.readouterr().err
    code = _run("export", str(model), "--format", "library", "--report", str(page))
    assert code == 2
    assert "leave it out" in capsys.readouterr().err


def test_shells_complete_boards(capsys: pytest.CaptureFixture[str]) -> None:
    import click

    from bnnmcu.cli.options import complete_board

    context = click.Context(click.Command("x"))
    found = complete_board(context, click.Option(["--board"]), "nucleo_f4")
    assert "nucleo_f446re" in [one.value for one in found]
    assert all(one.value.startswith("nucleo_f4") for one in found)
    for shell in ("bash", "zsh", "fish"):
        assert _run("completion", shell) == 0
        assert "_BNNMCU_COMPLETE" in capsys.readouterr().out
