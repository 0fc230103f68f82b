"""Every command of README and docs is run as it stands, or commands.toml has the reason."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from bnnmcu.cli.main import cli
from bnnmcu.compiler import read_source
from bnnmcu.passes import lower
from bnnmcu.resources import model_path
from tests.support.needs import need_digits, need_toolchain
from tests.support.run_rig import make_run

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RULES = tomllib.loads((Path(__file__).parent / "commands.toml").read_text(encoding="utf-8"))
_WORDS = ("bnnmcu", "make", "python", "pip", "cmake", "ctest", "openssl", "sqlite3", ".ci/run")


def commands(document: Path) -> list[str]:
    """Commands in indented blocks and in those of a shell."""
    text = document.read_text(encoding="utf-8").replace("\\\n", " ")
    fenced = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    plain = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line[4:] for line in plain.splitlines() if line.startswith("    ")]
    lines += [line for block in fenced for line in block.splitlines()]
    return [
        line.partition(" # ")[0].strip()
        for line in lines
        if line.split(" ")[0] in _WORDS and not line.startswith("bnnmcu: ")
    ]


def rule_of(command: str) -> dict[str, str] | None:
    """The reason why it is not run, if there is one."""
    rules: list[dict[str, str]] = RULES["parse"]
    return next((rule for rule in rules if re.search(rule["match"], command)), None)


def shortened(command: str) -> str:
    for rule in RULES["shorter"]:
        command = re.sub(rule["match"], rule["with"], command)
    return command


EVERY = [(document, line) for document in DOCUMENTS for line in commands(document)]
RUN = {
    document: [one for one in commands(document) if rule_of(one) is None] for document in DOCUMENTS
}


def test_there_are_commands() -> None:
    assert len(EVERY) > 80
    assert sum(map(len, RUN.values())) > 25


def test_no_rule_is_idle() -> None:
    matched = [rule for _, line in EVERY if (rule := rule_of(line)) is not None]
    idle = [rule["match"] for rule in RULES["parse"] if rule not in matched]
    assert idle == []
    runs = [line for lines in RUN.values() for line in lines]
    for rule in RULES["shorter"]:
        assert any(re.search(rule["match"], line) for line in runs)


@pytest.mark.parametrize(
    ("document", "line"), EVERY, ids=lambda one: str(getattr(one, "name", one))
)
def test_it_exists(document: Path, line: str) -> None:
    words = shlex.split(line.partition(" > ")[0])
    if words[0] == "make":
        targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in words[1:] if "=" not in word} <= set(targets)
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file()
    elif words[0] == "bnnmcu":
        context: click.Context = click.Context(cli)
        command = cli.get_command(context, words[1])
        assert command is not None
        # Raises for an unknown option, a missing value or a missing argument.
        command.make_context(words[1], words[2:], parent=context)


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has before a page begins: models, a project, a run."""
    need_digits()
    need_toolchain("zig")
    folder = tmp_path_factory.mktemp("seeded")
    shutil.copytree(ROOT / "examples", folder / "examples")
    (folder / "docs" / "paper").mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "paper" / "results.json", folder / "docs" / "paper")
    for name in ("s64.pt", "b64.pt", "c64.pt"):
        shutil.copy(folder / "examples" / "models" / name, folder / name)
    from bnnmcu.network.file import save_network

    with model_path("b64.pt") as path:
        save_network(folder / "own.safetensors", read_source(path).network)
    _call(folder, "bnnmcu export s64.pt --board nucleo_f446 -o s64")
    _call(folder, "bnnmcu build s64 --toolchain zig")
    _call(folder, "bnnmcu export own.safetensors --board nucleo_f446 -o own")
    for name in ("attack", "s64/results/attack-0123456789ab"):
        path = folder / f"{name}.sqlite"
        path.parent.mkdir(parents=True, exist_ok=True)
        make_run(path, model="s64")
    return folder


def _call(folder: Path, line: str) -> None:
    scripts = Path(sys.executable).parent
    found = subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{scripts}:{os.environ['PATH']}"},
    )
    assert found.returncode == 0, f"{line}\n{found.stdout}\n{found.stderr}"
    assert "Traceback" not in found.stderr


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "document", [one for one in DOCUMENTS if RUN[one]], ids=lambda one: str(one.name)
)
def test_commands_run(document: Path, seeded: Path, tmp_path: Path) -> None:
    folder = tmp_path / "reader"
    shutil.copytree(seeded, folder)
    for line in dict.fromkeys(RUN[document]):
        _call(folder, shortened(line))


def _python_blocks() -> Iterator[tuple[str, str]]:
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            yield document.name, block


@pytest.mark.parametrize(("document", "block"), list(_python_blocks()))
def test_python_imports_what_there_is(document: str, block: str) -> None:
    imports = [
        node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    exec(compile(ast.Module(imports, []), document, "exec"), {})


def test_the_charts_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = [text for name, text in _python_blocks() if name == "reports.md"]
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "run.sqlite")
    exec(block, {})
    assert (tmp_path / "accuracy.svg").is_file()
    assert (tmp_path / "accuracy.png").is_file()


def test_the_network_of_the_page_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = [text for name, text in _python_blocks() if name == "own-model.md"]
    monkeypatch.chdir(tmp_path)
    exec(blocks[0], {"__name__": "page"})
    assert (tmp_path / "own.safetensors").is_file()
    assert (tmp_path / "own" / "manifest.json").is_file()


def test_relative_links_lead_somewhere() -> None:
    others = [ROOT / name for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md")]
    for document in [*DOCUMENTS, *others, *sorted((ROOT / "examples").rglob("*.md"))]:
        for target in re.findall(r"\]\((?!http)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_network_is_the_one_that_the_pages_name() -> None:
    with model_path("s64.pt") as path:
        assert lower(read_source(path).network).graph.name == "S64"
