"""What names a cluster or a farm: what is accepted, and how the rest is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnnmcu.cli.main import main
from bnnmcu.cluster.farm import FarmBoard, chosen, read_farm
from bnnmcu.cluster.settings import TLS_FILES, parse_cluster
from bnnmcu.errors import UsageError
from bnnmcu.target import TargetOptions


@pytest.fixture
def tls(tmp_path: Path) -> Path:
    folder = tmp_path / "tls"
    folder.mkdir()
    for name in TLS_FILES:
        (folder / name).write_text("x")
    return folder


def test_clusters(tmp_path: Path, tls: Path) -> None:
    assert parse_cluster("local", workers=3).processes == 3
    assert parse_cluster("local").processes >= 1
    assert not parse_cluster("tcp://lab-1:8786").local
    assert parse_cluster("tls://lab-1:8786", tls=tls).tls == tls
    file = tmp_path / "scheduler.json"
    file.write_text("{}")
    assert parse_cluster(str(file)).address == str(file)


@pytest.mark.parametrize(
    ("text", "more", "word"),
    [
        ("nowhere", {}, "no cluster"),
        ("http://lab-1:8786", {}, "no cluster"),
        ("tcp://lab-1", {}, "no cluster"),
        ("tls://lab-1:8786", {}, "certificates"),
        ("tcp://lab-1:8786", {"workers": 2}, "running cluster"),
        ("local", {"workers": 0}, "workers"),
        ("local", {"workers": 5000}, "workers"),
        ("local", {"dashboard": 70000}, "port"),
        ("local", {"tls": Path()}, "own certificates"),
        ("tcp://lab-1:8786", {"tls": Path("/nonexistent")}, "ca.pem"),
    ],
)
def test_what_is_no_cluster(text: str, more: dict[str, object], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        parse_cluster(text, **more)  # type: ignore[arg-type]


def test_a_farm(tmp_path: Path) -> None:
    path = tmp_path / "shelf.toml"
    path.write_text(
        '[[board]]\nname = "one"\nport = "serial:066D"\nbaud = 115200\n'
        '[[board]]\nname = "two"\nemulate = "qemu"\npace = 9600\nflaky = "drop=0.01"\n'
    )
    boards = read_farm(path)
    assert boards == (
        FarmBoard(name="one", port="serial:066D", baud=115200),
        FarmBoard(name="two", emulate="qemu", pace=9600, flaky="drop=0.01"),
    )
    assert boards[1].options == TargetOptions(emulate="qemu", pace=9600, flaky="drop=0.01")
    assert chosen(boards, (), "--board") == boards
    assert chosen(boards, ("two", "two"), "--board") == boards[1:]
    with pytest.raises(UsageError, match="no board is called 'tow'") as told:
        chosen(boards, ("tow",), "--board")
    assert told.value.hint == "did you mean 'two'?"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "names no board"),
        ("board = 3", "list of tables"),
        ("[[board]]\nport = 'x'", "missing key 'name'"),
        ("[[board]]\nname = 'a b'\nport = 'x'", "cannot be a name"),
        ("[[board]]\nname = 'a'", "exactly one"),
        ("[[board]]\nname = 'a'\nport = 'x'\nemulate = 'qemu'", "exactly one"),
        ("[[board]]\nname = 'a'\nemulate = 'bochs'", "not known"),
        ("[[board]]\nname = 'a'\nemulate = 'qemu'\nbaud = 9600", "no baud"),
        ("[[board]]\nname = 'a'\nport = 'x'\nspeed = 3", "unknown key 'speed'"),
        ("[[board]]\nname = 'a'\nport = 'x'\n[[board]]\nname = 'a'\nport = 'y'", "taken"),
        ("[[board]]\nname = 'a'\nport = 'x'\n[[board]]\nname = 'b'\nport = 'x'", "already"),
        ("[board", "TOML"),
    ],
)
def test_what_is_no_farm(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "shelf.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=word) as told:
        read_farm(path)
    assert str(path) in str(told.value)


@pytest.mark.parametrize(
    ("words", "word"),
    [
        (["--workers", "2"], "--workers"),
        (["--board", "one"], "--board"),
        (["--cluster", "--board", "one"], "--farm"),
        (["--cluster", "nowhere"], "no cluster"),
        (["--cluster", "tcp://127.0.0.1:9", "--farm", "shelf.toml"], "bnnmcu worker"),
        (["--farm", "shelf.toml", "--native"], "--native"),
        (["--farm", "shelf.toml", "--emulate"], "--emulate"),
    ],
)
def test_options_that_do_not_go_together(
    words: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["attack", "nothing", *words])
    assert ended.value.code == 2
    assert word in capsys.readouterr().err


def test_a_scheduler_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("distributed", reason="Dask distributed is not installed")
    from bnnmcu.cluster import engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "CONNECT", 0.5)
        with pytest.raises(SystemExit) as ended:
            main(
                [
                    "paper",
                    "table6",
                    "--row",
                    "B4",
                    "--k",
                    "4",
                    "--cluster",
                    "tcp://127.0.0.1:9",
                    "--data",
                    "digits",
                ]
            )
    assert ended.value.code == 16
    told = capsys.readouterr().err
    assert "tcp://127.0.0.1:9" in told
    assert "dask scheduler" in told
