"""A campaign file: which networks, boards and attacks, in TOML.

Every key is checked, and one that is not known is refused with the nearest
that is.  Paths are relative to the file's own folder, so that a campaign means
the same wherever it is started from.  docs/ATTACKS.md lists all keys.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_type_hints

from bnnmcu.attack.campaign_cases import attack_cases
from bnnmcu.attack.config import AttackConfig, CampaignConfig
from bnnmcu.attack.toml_values import check_keys, check_name, checked, nearest, read_toml
from bnnmcu.errors import UsageError
from bnnmcu.target import TargetOptions

__all__ = ["BoardEntry", "CampaignFile", "ModelEntry", "read_campaign"]

_T = TypeVar("_T")
# Data sets that are no paths.
_KNOWN_DATA = ("digits", "mnist", "mnist:train", "mnist:test")
# What a board can be: keys of the file, and the fields that they become.
_WAYS = {
    "emulate": "emulate",
    "port": "port",
    "native": "native",
    "reference": "reference",
    "float": "is_float",
}


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A network of a campaign.

    Attributes:
        name: what the campaign calls it.
        project: an exported folder; what a board or the native twin runs.
        file: a model file; where there is no project, it is compiled.
        is_float: gradients come from the float network in ``file``, not from the
            integer one; ``float`` in the file.
    """

    name: str
    project: Path | None = None
    file: Path | None = None
    is_float: bool = False


@dataclass(frozen=True, kw_only=True)
class BoardEntry:
    """Who computes the answers.  Exactly one of the first five says what it is.

    Attributes:
        name: what the campaign calls it.
        emulate: an emulated board.
        port: a real one, behind this port.
        native: the generated C on this machine.
        reference: the numpy reference.
        is_float: the float network of the model's ``file``, which no board runs;
            ``float`` in the file.
        baud, max_baud, flaky, pace, toolchain, reconnect: of a board; see
            :class:`bnnmcu.target.TargetOptions`.
    """

    name: str
    emulate: Literal["auto", "qemu", "unicorn"] | None = None
    port: str | None = None
    native: bool = False
    reference: bool = False
    is_float: bool = False
    baud: int | None = None
    max_baud: int | None = None
    flaky: str | None = None
    pace: int | None = None
    toolchain: Literal["gcc", "zig", "platformio"] | None = None
    reconnect: float = 60.0

    @property
    def options(self) -> TargetOptions | None:
        """How to reach the board; None where nothing is to be reached."""
        if self.emulate is None and self.port is None:
            return None
        names = {one.name for one in fields(TargetOptions)} & {one.name for one in fields(self)}
        return TargetOptions(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True, kw_only=True)
class CampaignFile:
    """All that a campaign file says.

    Attributes:
        path: of the file.
        sha256: of its bytes, in hex.
        name: begins the names of results and reports.
        seed, draws, chunk: see :class:`bnnmcu.attack.config.CampaignConfig`.
        images: how many, class by class in turn; None for all.
        data: as ``load_dataset`` takes it.
        results: folder of the results files and the report.
        workers: images crafted side by side; None for one on each core.
        device: where gradients are computed.
        models, boards: all of them, in order.
        answers: names of the models that answer.
        attacks: the cases, in order.
    """

    path: Path
    sha256: str
    name: str
    seed: int = 1
    draws: int = 21
    chunk: int = 25
    images: int | None = 200
    data: str = "digits"
    results: Path = Path("results")
    workers: int | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    models: tuple[ModelEntry, ...] = field(default=())
    boards: tuple[BoardEntry, ...] = field(default=())
    answers: tuple[str, ...] = field(default=())
    attacks: tuple[AttackConfig, ...] = field(default=())

    def model(self, name: str) -> ModelEntry:
        """The entry of a name; for "" the first one that answers."""
        return next(one for one in self.models if one.name == (name or self.answers[0]))

    def config(self, *, stochastic: bool) -> CampaignConfig:
        """The settings of a run whose network draws weights, or does not.

        Without draws one gradient a step is all that there is to average.
        """
        attacks = tuple(
            replace(one, eot_draws=1)
            if not stochastic and not one.model and one.needs == "gradients"
            else one
            for one in self.attacks
        )
        return CampaignConfig(attacks=attacks, draws=self.draws, seed=self.seed, chunk=self.chunk)

    def runs(self) -> list[tuple[ModelEntry, BoardEntry]]:
        """Every model that answers, on every board."""
        return [(self.model(name), board) for name in self.answers for board in self.boards]


# Of the [campaign] table; the other fields of CampaignFile are tables of their own, or facts.
_TOP = (
    "name",
    "seed",
    "draws",
    "chunk",
    "images",
    "data",
    "results",
    "workers",
    "device",
    "answers",
)


def read_campaign(path: Path) -> CampaignFile:
    """A campaign file, checked as far as that goes without the networks themselves.

    Raises:
        UsageError: it cannot be read, or says what cannot be; the message names
            the table, the key and what would do.
    """
    where, folder = str(path), path.resolve().parent
    tables = read_toml(path)
    check_keys(tables, ("campaign", "model", "board", "attack", "answers"), where)
    top = dict(_table(tables.get("campaign", {}), f"{where}: [campaign]"))
    # The same at the top of the file, since it is about models and not about settings.
    if "answers" in tables:
        if "answers" in top:
            raise UsageError("stands at two places", where=f"{where}: answers")
        top["answers"] = tables["answers"]
    models = _entries(ModelEntry, tables, "model", where)
    boards = _entries(BoardEntry, tables, "board", where) or (
        BoardEntry(name="native", native=True),
    )
    for number, model in enumerate(models, start=1):
        _check_model(model, f"{where}: [[model]] {number} ({model.name})")
    for number, board in enumerate(boards, start=1):
        _check_board(board, f"{where}: [[board]] {number} ({board.name})")
    models = tuple(
        replace(one, project=_beside(folder, one.project), file=_beside(folder, one.file))
        for one in models
    )
    settings = _settings(top, path, folder)
    settings["answers"] = _answers(settings.get("answers"), models, boards, where)
    return CampaignFile(
        path=path,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        models=models,
        boards=boards,
        attacks=attack_cases(
            _list(tables.get("attack", []), f"{where}: [[attack]]"),
            [one.name for one in models],
            where,
        ),
        **settings,
    )


def _settings(top: Mapping[str, Any], path: Path, folder: Path) -> dict[str, Any]:
    place = f"{path}: [campaign]"
    check_keys(top, _TOP, place)
    hints = get_type_hints(CampaignFile)
    found = {
        key: checked(str if key == "results" else hints[key], value, f"{place}: {key}")
        for key, value in top.items()
        # 0 stands for all, since TOML has no way to say none.
        if not (key == "images" and value == 0)
    }
    if top.get("images") == 0:
        found["images"] = None
    for key in ("images", "workers"):
        if (found.get(key) or 1) < 1:
            raise UsageError(f"{found[key]} is too few", where=f"{place}: {key}")
    found["name"] = check_name(found.get("name", path.stem), f"{place}: name")
    found["results"] = _beside(folder, Path(found.get("results", "results")))
    data = found.get("data", "digits")
    found["data"] = data if data in _KNOWN_DATA else str(_beside(folder, Path(data)))
    return found


def _answers(
    given: tuple[str, ...] | None,
    models: Sequence[ModelEntry],
    boards: Sequence[BoardEntry],
    where: str,
) -> tuple[str, ...]:
    place = f"{where}: answers"
    known = {one.name: one for one in models}
    names = (
        given if given is not None else tuple(one.name for one in models if one.project is not None)
    )
    if not names:
        raise UsageError(
            "no model answers",
            where=place,
            hint="give a [[model]] the key 'project', the folder of 'bnnmcu export'; or name "
            "models in 'answers'",
        )
    for name in names:
        if name not in known:
            raise UsageError(f"no model is called {name!r}", where=place, hint=nearest(name, known))
        for board in boards:
            if board.options and known[name].project is None:
                raise UsageError(
                    f"the board {board.name!r} runs projects, and {name!r} has none",
                    where=place,
                    hint=f"bnnmcu export {known[name].file} --board NAME -o DIR, and project = "
                    '"DIR" in the model\'s table',
                )
            if board.is_float and known[name].file is None:
                raise UsageError(
                    f"{board.name!r} is the float network, which {name!r} does not name",
                    where=place,
                    hint="add 'file', the model file, to the model's table",
                )
    if len(set(names)) != len(names):
        raise UsageError("a model is named twice", where=place)
    return names


def _check_model(model: ModelEntry, place: str) -> None:
    if model.project is None and model.file is None:
        raise UsageError(
            "neither 'project' nor 'file'",
            where=place,
            hint="project: a folder of 'bnnmcu export'; file: a model file",
        )
    if model.is_float and model.file is None:
        raise UsageError(
            "'float' needs 'file': a project has no float network",
            where=place,
            hint="add 'file', the model file that the project was exported from",
        )


def _check_board(board: BoardEntry, place: str) -> None:
    ways = [key for key, name in _WAYS.items() if getattr(board, name) not in (None, False)]
    if len(ways) != 1:
        raise UsageError(
            f"{' and '.join(map(repr, ways))} exclude each other"
            if ways
            else "says not what it is",
            where=place,
            hint=f"use exactly one of {', '.join(_WAYS)}",
        )
    fresh = BoardEntry(name=board.name)
    given = [
        one.name
        for one in fields(board)
        if one.name not in ("name", *_WAYS.values())
        and getattr(board, one.name) != getattr(fresh, one.name)
    ]
    if given and board.options is None:
        raise UsageError(
            f"{ways[0]!r} asks no board and has no use for {given[0]!r}",
            where=place,
            hint=f"leave out {given[0]!r}",
        )
    if board.emulate is not None and (board.baud is not None or board.max_baud is not None):
        raise UsageError(
            "an emulator has no baud rate", where=place, hint="use 'pace' to slow its line down"
        )


def _entries(kind: type[_T], tables: Mapping[str, Any], key: str, where: str) -> tuple[_T, ...]:
    """The tables of one kind, types checked and names different."""
    hints = {
        "float" if name == "is_float" else name: hint for name, hint in get_type_hints(kind).items()
    }
    found: dict[str, _T] = {}
    for number, table in enumerate(_list(tables.get(key, []), f"{where}: [[{key}]]"), start=1):
        place = f"{where}: [[{key}]] {number}"
        check_keys(table, hints, place)
        if "name" not in table:
            raise UsageError("missing key 'name'", where=place, hint='for example: name = "s64"')
        values: dict[str, Any] = {}
        for key_of, value in table.items():
            place_of = f"{place}: {key_of}"
            is_path = key_of in ("project", "file")
            found_value = checked(str if is_path else hints[key_of], value, place_of)
            values[key_of] = Path(found_value) if is_path else found_value
        name = check_name(values["name"], f"{place}: name")
        if name in found:
            raise UsageError(f"the name {name!r} is taken", where=place)
        if "float" in values:
            values["is_float"] = values.pop("float")
        found[name] = kind(**values)
    return tuple(found.values())


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError("is no table", where=where, hint="examples/campaign.toml shows the form")
    return value


def _list(value: Any, where: str) -> list[Mapping[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        raise UsageError(
            "is not a list of tables", where=where, hint="write it with two pairs of brackets"
        )
    return value


def _beside(folder: Path, path: Path | None) -> Path | None:
    # Without "x/..", for people; links stay what they are.
    return None if path is None else Path(os.path.normpath(folder / path))
