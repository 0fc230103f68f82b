"""What ``runs export`` and ``runs merge`` write over, and what never."""

from __future__ import annotations

import csv
import io
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import store_rig as rig
from click.testing import CliRunner, Result

from bnnmcu.cli.runs import command
from bnnmcu.errors import BnnmcuError, StoreError, UsageError
from bnnmcu.store import Store
from bnnmcu.store.compare import compare

IMAGES = 20

posix = pytest.mark.skipif(os.name == "nt", reason="no such files there")


def runs(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(one) for one in arguments])


def _socket(path: Path) -> None:
    # Their names are short: it is made where it is.
    with socket.socket(socket.AF_UNIX) as one:
        old = Path.cwd()
        os.chdir(path.parent)
        try:
            one.bind(path.name)
        finally:
            os.chdir(old)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _linked_fifo(path: Path) -> None:
    _fifo(path.with_name("far"))
    path.symlink_to("far")


NO_FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "folder": (Path.mkdir, "is a folder, not a file"),
    "fifo": (_fifo, "is a pipe (FIFO), not a file"),
    "link to a fifo": (_linked_fifo, "is a pipe (FIFO), not a file"),
    "socket": (_socket, "is a socket, not a file"),
}


@posix
@pytest.mark.parametrize("name", NO_FILES)
def test_what_is_no_file_stays(whole: Path, tmp_path: Path, name: str) -> None:
    make, message = NO_FILES[name]
    output = tmp_path / "out"
    make(output)
    before = {file.name: os.lstat(file).st_ino for file in tmp_path.iterdir()}
    for arguments in (
        ("export", whole, "--csv", output),
        ("export", whole, "--csv", tmp_path / "other.csv", "--parquet", output),
        ("merge", whole, whole, "-o", output),
    ):
        done = runs(*arguments)
        assert done.exit_code != 0
        if isinstance(done.exception, BnnmcuError):
            assert isinstance(done.exception, UsageError)
            assert message in str(done.exception)
            assert arguments[0] == "merge" or "--csv - > FILE" in str(done.exception.hint)
        else:
            # click knows folders, and says so itself.
            assert "is a directory" in done.output
            assert (name, arguments[0]) == ("folder", "merge")
        assert {file.name: os.lstat(file).st_ino for file in tmp_path.iterdir()} == before
    with pytest.raises(UsageError, match="not a file"):
        Store.open(output, rig.identity(IMAGES))
    assert {file.name: os.lstat(file).st_ino for file in tmp_path.iterdir()} == before


@posix
@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_its_target_is_written(whole: Path, tmp_path: Path, there: bool) -> None:
    far = tmp_path / "far"
    far.mkdir()
    table, merged = tmp_path / "a.csv", tmp_path / "m.sqlite"
    for link in (table, merged):
        link.symlink_to(Path("far", link.name))
    if there:
        (far / table.name).write_text("old")
    assert runs("export", whole, "--csv", table).exit_code == 0
    done = runs("merge", whole, whole, "-o", merged)
    assert done.exit_code == 0, done.exception
    assert sorted(file.name for file in far.iterdir()) == [table.name, merged.name]
    for link in (table, merged):
        assert link.is_symlink()
        assert stat.S_ISREG(os.lstat(far / link.name).st_mode)
    assert (far / table.name).read_text().count("\n") == 121
    assert compare(merged, whole).same
    # Through the link it is there already.
    assert isinstance(runs("merge", whole, whole, "-o", merged).exception, StoreError)


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal", ".lock"])
@pytest.mark.parametrize("there", [True, False])
def test_results_and_what_belongs_to_them_are_not_written_over(
    whole: Path, tmp_path: Path, suffix: str, there: bool
) -> None:
    run = Path(shutil.copy(whole, tmp_path / "run.sqlite"))
    output = run.with_name(run.name + suffix)
    if suffix and there:
        output.write_bytes(b"answers")
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    for arguments in (
        ("export", whole, "--csv", output),
        ("export", whole, "--parquet", output),
        ("merge", whole, whole, "-o", output),
    ):
        done = runs(*arguments)
        assert isinstance(done.exception, UsageError | StoreError)
        wanted = ("results file", "is there already")
        assert any(text in str(done.exception) for text in wanted)
        assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
    # Such a name of its own is as good as any.
    assert runs("export", whole, "--csv", tmp_path / f"table{suffix}").exit_code == 0


def test_a_log_that_was_left_is_not_taken_for_the_new_file_s(whole: Path, tmp_path: Path) -> None:
    log = tmp_path / "m.sqlite-wal"
    log.write_bytes(b"somebody's answers")
    done = runs("merge", whole, whole, "-o", tmp_path / "m.sqlite")
    assert isinstance(done.exception, StoreError)
    assert str(log) in str(done.exception)
    assert [file.name for file in tmp_path.iterdir()] == [log.name]


def test_two_tables_are_two_files(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    one, same = tmp_path / "x", tmp_path / "f" / ".." / "x"
    done = runs("export", whole, "--csv", one, "--parquet", same)
    assert isinstance(done.exception, UsageError)
    assert "two tables in one file" in str(done.exception)
    assert not one.exists()


def test_csv_on_standard_output(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert runs("export", whole, "--csv", "./-").exit_code == 0
    expected = (tmp_path / "-").read_bytes()
    (tmp_path / "-").unlink()
    done = runs("export", whole, "--csv", "-")
    assert done.exit_code == 0, done.exception
    assert done.stdout_bytes == expected
    assert len(list(csv.DictReader(io.StringIO(done.stdout)))) == 120
    assert "120 answers written to standard output" in done.stderr
    for arguments in (("--csv", "-", "--json"), ("--parquet", "-")):
        refused = runs("export", whole, *arguments)
        assert isinstance(refused.exception, UsageError)
        assert refused.stdout == ""
    assert list(tmp_path.iterdir()) == []


@posix
def test_a_reader_that_goes_away_is_no_error(whole: Path) -> None:
    code = "from bnnmcu.cli.main import main; main()"
    arguments = [sys.executable, "-c", code, "runs", "export", str(whole), "--csv", "-"]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            arguments, env=rig.environment(), stdout=writing, stderr=subprocess.PIPE,
            text=True, timeout=120, check=False,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert done.returncode == 0
    assert done.stderr == ""
