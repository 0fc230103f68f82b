"""The cluster as a user has it: a scheduler, ``bnnmcu worker``, and a campaign from elsewhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from small_network import small_network

pytest.importorskip("distributed", reason="Dask distributed is not installed")
pytest.importorskip("torch", reason="crafting needs torch")

from bnnmcu.backend.project import write_project
from bnnmcu.boards import load_board
from bnnmcu.cluster.settings import TLS_FILES
from bnnmcu.data import Dataset
from bnnmcu.passes import lower
from bnnmcu.store import Store
from bnnmcu.store.compare import compare

ROOT = Path(__file__).resolve().parents[2]
_ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@contextmanager
def running(*words: str | Path, ready: str | None = None) -> Iterator[subprocess.Popen[str]]:
    """A program in the background, ended with Ctrl-C; waits for what it says when it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", *map(str, words)],
        env=_ENVIRONMENT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        if ready is not None:
            assert process.stderr is not None
            for line in process.stderr:
                if ready in line:
                    break
            else:
                pytest.fail(f"{words[0]} ended before it was ready")
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def bnnmcu(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bnnmcu", *map(str, words)],
        env=_ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cluster") / "small"
    write_project(lower(small_network(drawn=True)).graph, load_board("nucleo_f446re"), folder)
    return folder


@pytest.fixture(scope="module")
def data(project: Path) -> Path:
    """Noise of the network's shape, as a file that --data takes."""
    import numpy as np

    rng = np.random.default_rng(2)
    path = project.parent / "noise.npz"
    made = Dataset(
        "noise",
        rng.integers(0, 256, (24, 8, 8, 1), dtype=np.uint8),
        (np.arange(24) % 4).astype(np.int64),
    )
    np.savez(path, images=made.images, labels=made.labels)
    return path


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of certificates."""
    from distributed.security import Security

    folder = tmp_path_factory.mktemp("tls")
    made = Security.temporary()
    for name, text in zip(
        TLS_FILES, (made.tls_ca_file, made.tls_client_cert, made.tls_client_key), strict=True
    ):
        (folder / name).write_text(text)
    return folder


def attack(project: Path, data: Path, results: Path, *more: str | Path) -> list[str | Path]:
    words: list[str | Path] = ["attack", project, "--data", data, "-n", "24", "--draws", "3"]
    return [*words, "--attack", "pgd", "--eps", "0.1", "--steps", "4", "-o", results, *more]


def test_a_running_cluster_with_certificates(
    project: Path, data: Path, tls: Path, tmp_path: Path
) -> None:
    from needs import need_emulator, need_toolchain

    need_emulator("qemu")
    need_toolchain("gcc")
    place = tmp_path / "scheduler.json"
    farm = tmp_path / "shelf.toml"
    farm.write_text(
        '[[board]]\nname = "twin-1"\nemulate = "qemu"\n'
        '[[board]]\nname = "twin-2"\nemulate = "qemu"\n[[board]]\nname = "other"\nport = "x"\n'
    )
    certificates = ["--tls-ca-file", tls / "ca.pem", "--tls-cert", tls / "cert.pem"]
    scheduler = ["dask", "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    scheduler += ["--scheduler-file", str(place), "--protocol", "tls", "--tls-key"]
    worker = ["bnnmcu", "worker", place, "--workers", "1", "--farm", farm, "--cluster-tls", tls]
    worker += ["--board", "twin-1", "--board", "twin-2"]
    found = tmp_path / "cluster.sqlite"
    with running(*scheduler, tls / "key.pem", *certificates):
        until = time.monotonic() + 30
        while not place.exists() and time.monotonic() < until:
            time.sleep(0.1)
        how = ["--cluster", place, "--cluster-tls", tls]
        with running(*worker, ready="1 workers craft, boards: twin-1, twin-2"):
            done = bnnmcu(*attack(project, data, found, *how, "--board", "twin-2", "--json"))
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["link"]["requests"] > 0
            done = bnnmcu(*attack(project, data, tmp_path / "x", *how, "--board", "twin-3"))
            assert done.returncode == 16, done.stderr
            assert "there is twin-1, twin-2" in done.stderr
    alone = tmp_path / "alone.sqlite"
    assert bnnmcu(*attack(project, data, alone, "--native")).returncode == 0
    assert compare(found, alone).same
    with Store.read(found) as store:
        assert store.identity["oracle"] == {"name": "nucleo_f446re", "label": "emulated"}
        assert {draw.board for row in store.rows() for draw in row.draws} == {"twin-2"}
        (session,) = store.sessions()
        assert session.provenance["cluster"]["workers"] == 1
    done = bnnmcu(*attack(project, data, found, *how, "--board", "twin-2"))
    assert done.returncode == 2, "its scheduler took the file with it"
    assert "dask scheduler" in done.stderr


def test_ctrl_c_ends_all_of_it_and_the_same_command_goes_on(
    project: Path, data: Path, tmp_path: Path
) -> None:
    import psutil

    results = tmp_path / "run.sqlite"
    words = attack(project, data, results, "--cluster", "--workers", "2", "--native")
    words[words.index("--steps") + 1] = "3000"
    process = subprocess.Popen(
        [sys.executable, "-m", "bnnmcu", *map(str, words)],
        env=_ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "dashboard" in line:
            break
    until = time.monotonic() + 60
    while not results.exists() and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(3.0)
    others = psutil.Process(process.pid).children(recursive=True)
    assert len(others) >= 2
    # As a terminal does: to all of them.
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "Traceback" not in told
    assert "bnnmcu attack" in told, "how to go on"
    _, alive = psutil.wait_procs(others, timeout=20)
    assert not alive


def test_help_and_what_is_no_worker() -> None:
    done = bnnmcu("worker", "local")
    assert done.returncode == 2
    assert "starts its own workers" in done.stderr
    done = bnnmcu("worker", "tcp://127.0.0.1:9", "--board", "one")
    assert done.returncode == 2
    assert "add --farm" in done.stderr
