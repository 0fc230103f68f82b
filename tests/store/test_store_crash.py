"""Whatever happens to process, disk or clock: nothing stored is lost, nothing is there twice."""

from __future__ import annotations

import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
import store_rig as rig

from bnnmcu.errors import StoreError
from bnnmcu.store import Store, database, provenance
from bnnmcu.store.compare import ContentRow, content_rows

IMAGES = 60
_posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and limits")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[ContentRow]:
    """What an undisturbed run holds."""
    return list(content_rows(rig.finish(tmp_path_factory.mktemp("whole") / "run.db", IMAGES)))


def raw_content(path: Path) -> list[tuple[object, ...]]:
    """The content tables as they are, row numbers included."""
    with closing(sqlite3.connect(path)) as file:
        return [
            row
            for table in ("run", "example", "query")
            for row in file.execute(f"SELECT * FROM {table} ORDER BY 1, 2")
        ]


@_posix
def test_kill_9_at_any_moment(whole: list[ContentRow], tmp_path: Path) -> None:
    path, chance = tmp_path / "run.db", random.Random(7)
    acknowledged: set[str] = set()
    for _ in range(6):
        with subprocess.Popen(
            rig.command(path, IMAGES, paced=True),
            env=rig.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("go on\n" * 20)
            process.stdin.flush()
            # Somewhere among these steps: in a commit, at the disk, or between them.
            for _ in range(chance.randrange(1, 20)):
                acknowledged.add(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            acknowledged |= set(process.stdout)
        assert process.returncode == -signal.SIGKILL
        with Store.read(path) as store:
            stored = {f"{one.attack} answer {one.image}\n" for one in store.judged()}
            stored |= {f"examples {one.image + 1}\n" for one in store.rows()}
        assert acknowledged <= stored
    rig.finish(path, IMAGES)
    assert list(content_rows(path)) == whole
    assert raw_content(path) == raw_content(rig.finish(tmp_path / "again.db", IMAGES))
    with Store.read(path) as store:
        sessions = store.sessions()
    assert [session.ended_at is None for session in sessions] == [True] * 6 + [False]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["again.db", "run.db"]


def test_a_power_failure_takes_an_end_of_the_log_at_most(
    whole: list[ContentRow], tmp_path: Path
) -> None:
    path = tmp_path / "run.db"
    steps = rig.go_on(path, IMAGES)
    for _ in range(50):
        next(steps)
    log = path.with_name("run.db-wal").read_bytes()
    database_file = path.read_bytes()
    counts = []
    # Not synchronised yet: any part of the log may be missing on the disk.
    sizes = [0, 40, 5000, *range(len(log) // 5, len(log), len(log) // 5), len(log) - 1, len(log)]
    for number, size in enumerate(sizes):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "run.db").write_bytes(database_file)
        (folder / "run.db-wal").write_bytes(log[:size])
        with closing(sqlite3.connect(folder / "run.db")) as file:
            assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            # Without its tables it is an empty file, and the run begins anew.
            there = file.execute("SELECT 1 FROM sqlite_master WHERE name = 'query'").fetchone()
            found = file.execute("SELECT count(*) FROM query").fetchone() if there else (0,)
            counts.append(found[0] // rig.DRAWS)
        assert list(content_rows(rig.finish(folder / "run.db", IMAGES))) == whole
    assert counts == sorted(counts)
    # Six chunks of images came first.
    assert (counts[0], counts[-1]) == (0, 50 - 6)
    assert len(set(counts)) > 4
    steps.close()


def test_a_commit_waits_for_the_disk_once_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(database, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    said: list[str] = []
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as file:
        file.set_trace_callback(said.append)
        syncing = database.Syncing(file)
        for moment, now in (
            (100.0, False),
            (100.5, False),
            (100.9, True),
            (101.8, False),
            (101.9, 0),
        ):
            clock[0] = moment
            with syncing.commit(now=bool(now)):
                pass
    assert [line.split()[-1] for line in said if "synchronous" in line] == [
        "FULL", "NORMAL", "FULL", "NORMAL", "FULL",
    ]  # fmt: skip


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if not mount or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def _grow(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=16m", str(folder)], check=True)


@_posix
def test_a_full_disk(whole: list[ContentRow], small_disk: Path) -> None:
    path = small_disk / "run.db"
    stored: list[tuple[str, int]] = []
    with pytest.raises(StoreError, match="the disk is full") as caught:
        stored.extend(rig.go_on(path, IMAGES))
    assert "resumes" in str(caught.value.hint)
    # Starting again changes nothing while it is full, and says so again.
    with pytest.raises(StoreError, match=r"the disk is full|cannot be written: No space"):
        rig.finish(path, IMAGES)
    _grow(small_disk)
    with Store.read(path) as store:
        assert len(store.judged()) == sum("answer" in what for what, _ in stored) > 0
    assert list(content_rows(rig.finish(path, IMAGES))) == whole


@_posix
def test_a_limit_on_file_sizes(whole: list[ContentRow], tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    done = subprocess.run(
        rig.command(path, IMAGES, file_limit=150_000),
        env=rig.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "StoreError" in done.stderr
    assert "the disk refuses" in done.stderr
    answered = [line for line in done.stdout.splitlines() if "answer" in line]
    assert 0 < len(answered) < 2 * IMAGES
    with Store.read(path) as store:
        assert len(store.judged()) == len(answered)
    assert list(content_rows(rig.finish(path, IMAGES))) == whole


def test_a_clock_that_jumps(
    whole: list[ContentRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, clock = tmp_path / "run.db", [1.7e9]

    def jumping() -> float:
        clock[0] -= 86_400.0
        return clock[0]

    monkeypatch.setattr(provenance, "time", SimpleNamespace(time=jumping))
    steps = rig.go_on(path, IMAGES)
    for _ in range(30):
        next(steps)
    steps.close()
    rig.finish(path, IMAGES)
    assert list(content_rows(path)) == whole
    with Store.read(path) as store:
        times = [one.draws[0].answered_at for one in store.rows()]
        assert [one.image for one in store.judged()] == 2 * list(range(IMAGES))
        first, second = store.sessions()
    # What the clock said, as wrong as it was.
    assert times == sorted(times, reverse=True)
    assert times[0].startswith("2023-11-")
    assert second.started_at < first.started_at


@_posix
def test_one_process_writes_and_others_read(whole: list[ContentRow], tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    with subprocess.Popen(
        rig.command(path, 4000), env=rig.environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line == "clean answer 5\n":
                break
        link = tmp_path / "link.db"
        link.symlink_to(path)
        for name in (path, link):
            with pytest.raises(
                StoreError, match=rf"another process .*\(pid {process.pid} on"
            ) as no:
                rig.finish(name, 4000)
        assert "runs show" in str(no.value.hint)
        with Store.read(path) as reader:
            before = len(reader.judged())
            for line in process.stdout:
                if line == f"clean answer {before + 20}\n":
                    break
            # What was there when it was opened, and no more.
            assert len(reader.judged()) == before >= 6
        with Store.read(path) as reader:
            assert len(reader.judged()) >= before + 20
        process.kill()
    # A dead holder keeps nobody out, whatever its lock file says.
    rig.go_on(path, 4000).__next__()


def test_two_stores_in_one_process(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    with Store.open(path, rig.identity(9)) as store:
        with pytest.raises(StoreError, match="another process"):
            Store.open(path, rig.identity(9))
        store.add_examples([rig.example(("clean", 0), 0)])
    with pytest.raises(StoreError, match="config"):
        Store.open(path, {})
    # Neither refusal left a lock behind.
    Store.open(path, rig.identity(9)).close()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
