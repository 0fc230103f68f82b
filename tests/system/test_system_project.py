"""Generated projects: reproducible, complete, honest about memory, careful with others' files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from needs import need_toolchain

from bnnmcu.backend.memory import estimate, predict
from bnnmcu.backend.plan import make_plan
from bnnmcu.backend.project import load_project
from bnnmcu.boards import load_board
from bnnmcu.errors import BnnmcuError
from bnnmcu.toolchain.compiler import build_firmware
from bnnmcu.toolchain.elf import read_firmware

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "examples" / "models"


def _tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "build" not in path.relative_to(folder).parts
    }


def test_the_same_model_gives_the_same_bytes(
    shipped: Callable[[str], Path], cli, tmp_path: Path
) -> None:
    done = cli(
        "export", MODELS / "s64.pt", "--board", "nucleo_f446re", "-o", tmp_path / "again",
        env={"PYTHONHASHSEED": "7"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert _tree(tmp_path / "again") == _tree(shipped("s64"))


def test_safetensors_and_pt_give_the_same_network(
    shipped: Callable[[str], Path], cli, tmp_path: Path
) -> None:
    from bnnmcu.modelfile import read_model, write_model

    model = read_model(MODELS / "b64.pt")
    write_model(tmp_path / "b64.safetensors", model.manifest, model.tensors)
    done = cli("export", "b64.safetensors", "--board", "nucleo_f446", "-o", "b64", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert _tree(tmp_path / "b64") == _tree(shipped("b64"))


def test_manifest_names_every_file(shipped: Callable[[str], Path]) -> None:
    tree = _tree(shipped("s64"))
    manifest = json.loads(tree.pop("manifest.json"))
    assert manifest["files"] == {
        name: hashlib.sha256(data).hexdigest() for name, data in tree.items()
    }
    assert bytes.fromhex(manifest["model"]["sha256"]) == load_project(shipped("s64")).sha256


@pytest.mark.parametrize("toolchain", ["gcc", "zig"])
@pytest.mark.parametrize("name", ["b64", "c64", "s64"])
def test_memory_figures_hold(shipped: Callable[[str], Path], name: str, toolchain: str) -> None:
    need_toolchain(toolchain)
    project = load_project(shipped(name))
    plan = project.plan
    memory = next(m for m in predict(plan, project.board) if m.toolchain == toolchain)
    build = build_firmware(project.folder, toolchain)
    if build.version != memory.compiler:
        pytest.skip(f"measured with {toolchain} {memory.compiler}; this is {build.version}")
    assert build.flash_bytes == pytest.approx(memory.flash, rel=0.01)
    assert build.ram_bytes == memory.ram
    assert build.stack_bytes == memory.stack
    if toolchain == "gcc":
        assert build.stack_bound is not None
        assert build.stack_bound.bytes is not None
    # The largest buffers must be exactly what the C's own macros make of the model.
    sizes = _object_sizes(build.elf)
    assert sizes["arena"] == memory.arena
    rings = project.folder / "include" / "bnn_board.h"
    ring = int(rings.read_text().split("BNN_BOARD_RX_BYTES ")[1].split("u")[0])
    assert sizes["request_words"] + sizes["reply_words"] + ring == memory.buffers
    assert read_firmware(build.elf).vectors


@pytest.mark.parametrize("name", ["b64", "s64"])
def test_export_shows_what_the_compiler_here_will_link(cli, tmp_path: Path, name: str) -> None:
    from bnnmcu.toolchain.detect import default_toolchain

    toolchain = default_toolchain()
    if toolchain == "platformio":
        pytest.skip("neither gcc nor zig is installed")
    model = MODELS / f"{name}.pt"
    done = cli("export", model, "--board", "nucleo_f446", "-o", tmp_path / "p", "--json")
    report = json.loads(done.stdout)
    assert report["memory"]["toolchain"] == toolchain
    build = build_firmware(tmp_path / "p", toolchain)
    if build.version != report["memory"]["compiler"]:
        pytest.skip(f"measured with {report['memory']['compiler']}; this is {build.version}")
    assert report["total"]["flash"] == pytest.approx(build.flash_bytes, rel=0.01)
    assert report["total"]["ram"] == pytest.approx(build.ram_bytes, rel=0.01)


@pytest.mark.parametrize("toolchain", ["gcc", "zig"])
def test_build_shows_prediction_and_stack(
    shipped: Callable[[str], Path], cli, toolchain: str
) -> None:
    need_toolchain(toolchain)
    project = load_project(shipped("b64"))
    command = ("build", project.folder, "--toolchain", toolchain)
    done = cli(*command, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["predicted"] == project.predicted(toolchain)
    assert report["stack"]["reserved"] == 2048
    shown = cli(*command).stdout
    assert f"{report['predicted']['flash']:,}" in shown
    if toolchain == "gcc":
        assert f"{report['stack']['bound']['bytes']:,}" in shown
        assert "bnn_server_poll" in shown
    else:
        assert report["stack"]["bound"] is None
        assert "no bound for the stack" in shown


def _object_sizes(elf: Path) -> dict[str, int]:
    from elftools.elf.elffile import ELFFile

    with elf.open("rb") as stream:
        symbols = ELFFile(stream).get_section_by_name(".symtab").iter_symbols()
        # zig's linker prefixes local names with their file's.
        return {s.name.rpartition(".")[2]: s["st_size"] for s in symbols if s["st_size"]}


def _export(cli, target: Path, *more: str):
    return cli("export", MODELS / "b64.pt", "--board", "nucleo_f446", "-o", target, *more)


def test_other_files_survive_a_new_export(cli, tmp_path: Path) -> None:
    target = tmp_path / "p"
    assert _export(cli, target).returncode == 0
    (target / "notes.txt").write_text("mine")
    (target / "src" / "extra.c").write_text("int mine;\n")
    before = _tree(target)
    assert _export(cli, target).returncode == 0
    assert _tree(target) == before
    assert sorted(tmp_path.iterdir()) == [target]  # no temporary folder is left


def test_edited_files_are_not_overwritten(cli, tmp_path: Path) -> None:
    target = tmp_path / "p"
    assert _export(cli, target).returncode == 0
    (target / "src" / "main.c").write_text("/* mine */\n")
    done = _export(cli, target)
    assert done.returncode == 2
    assert "src/main.c" in done.stderr
    assert "--force" in done.stderr
    assert (target / "src" / "main.c").read_text() == "/* mine */\n"
    assert _export(cli, target, "--force").returncode == 0
    assert (target / "src" / "main.c").read_text() != "/* mine */\n"


def test_a_foreign_folder_is_left_alone(cli, tmp_path: Path) -> None:
    target = tmp_path / "home"
    target.mkdir()
    (target / "thesis.txt").write_text("years")
    done = _export(cli, target)
    assert done.returncode == 2
    assert "not a bnnmcu project" in done.stderr
    assert [path.name for path in target.iterdir()] == ["thesis.txt"]


def test_a_refused_export_writes_nothing(cli, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from bnnmcu.nn.config import PaperConfig
    from bnnmcu.nn.paper import build
    from bnnmcu.nn.training import save_net

    save_net(tmp_path / "s256.safetensors", build(PaperConfig("S", 256), seed=1))
    done = cli("export", "s256.safetensors", "--board", "nucleo_f446", "-o", "out", cwd=tmp_path)
    assert done.returncode == 6
    assert "nucleo_f446re" in done.stderr
    assert "conv3" in done.stderr  # the layer that is to blame
    assert not (tmp_path / "out").exists()


def test_what_would_fit_is_named(cli, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from bnnmcu.nn.config import PaperConfig
    from bnnmcu.nn.paper import build
    from bnnmcu.nn.training import save_net

    save_net(tmp_path / "s104.safetensors", build(PaperConfig("S", 104), seed=1))
    done = cli("export", "s104.safetensors", "--board", "nucleo_f446", "-o", "out", cwd=tmp_path)
    assert done.returncode == 6
    assert "netduinoplus2" in done.stderr
    fits = estimate_of(tmp_path / "s104.safetensors", "netduinoplus2")
    assert fits


def estimate_of(path: Path, board: str) -> bool:
    from bnnmcu.compiler import to_graph
    from bnnmcu.modelfile import read_model

    return estimate(make_plan(to_graph(read_model(path))), load_board(board)).fits


def test_a_damaged_project_is_refused(cli, tmp_path: Path) -> None:
    target = tmp_path / "p"
    assert _export(cli, target).returncode == 0
    graph = bytearray((target / "graph.safetensors").read_bytes())
    graph[-1] ^= 1
    (target / "graph.safetensors").write_bytes(graph)
    with pytest.raises(BnnmcuError, match="not the one the manifest names"):
        load_project(target)
    (target / "graph.safetensors").write_bytes(graph[: len(graph) // 2])
    with pytest.raises(BnnmcuError, match="no sound graph"):
        load_project(target)


def test_export_into_the_current_folder_keeps_it(cli, tmp_path: Path) -> None:
    before = tmp_path.stat().st_ino
    for _ in range(2):
        done = cli("export", MODELS / "b64.pt", "--board", "nucleo_f446", "-o", ".", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert tmp_path.stat().st_ino == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".bnnmcu-")]
    assert load_project(tmp_path).edited == ()


def test_export_through_a_link_keeps_the_link(cli, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to("real")
    assert _export(cli, link).returncode == 0
    assert link.is_symlink()
    assert (tmp_path / "real" / "manifest.json").is_file()


def test_edited_projects_are_announced(cli, tmp_path: Path) -> None:
    target = tmp_path / "p"
    assert _export(cli, target).returncode == 0
    assert load_project(target).edited == ()
    (target / "src" / "bnn_kernels.c").write_text("int none;\n")
    (target / "src" / "bnn.c").unlink()
    assert set(load_project(target).edited) == {"src/bnn_kernels.c", "src/bnn.c"}
    done = cli("build", target, "--toolchain", "gcc")
    assert "warning: src/bnn.c, src/bnn_kernels.c" in done.stderr


@pytest.mark.parametrize(
    "change",
    [
        {"model": "x"},
        {"model": {"sha256": 7}},
        {"files": []},
        {"files": {"../escape": "00"}},
        {"files": {"/etc/passwd": "00"}},
        {"files": {"src/main.c": 5}},
        {"format": "other"},
        {"version": 99},
    ],
)
def test_a_corrupt_manifest_is_refused(
    shipped: Callable[[str], Path], tmp_path: Path, change: dict[str, object]
) -> None:
    import shutil

    target = tmp_path / "p"
    shutil.copytree(shipped("b64"), target)
    manifest = json.loads((target / "manifest.json").read_text())
    (target / "manifest.json").write_text(json.dumps(manifest | change))
    with pytest.raises(BnnmcuError, match="manifest"):
        load_project(target)
    for text in ("", "[]", "[" * 100_000, "\x00\xff"):
        (target / "manifest.json").write_text(text)
        with pytest.raises(BnnmcuError, match="manifest"):
            load_project(target)


def test_how_it_was_trained_is_kept(shipped: Callable[[str], Path]) -> None:
    training = load_project(shipped("s64")).training
    assert (training["data_name"], training["first_image"]) == ("MNIST train", 6000)


def test_a_disk_that_fills_up_leaves_no_folder(
    shipped: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from bnnmcu.backend.project import write_project

    graph, write = load_project(shipped("b64")).graph, Path.write_bytes

    def fill_up(path: Path, data: bytes) -> int:
        if path.name == "linker.ld":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", fill_up)
    with pytest.raises(OSError, match="No space left") as caught:
        write_project(graph, load_board("nucleo_f446re"), tmp_path / "p")
    assert caught.value.filename == str(tmp_path / "p")
    assert list(tmp_path.iterdir()) == []
