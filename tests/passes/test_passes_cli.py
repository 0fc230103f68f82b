"""Options of the commands that would have no effect are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_network import small_network

from bnnmcu.cli.main import main
from bnnmcu.network.file import save_network


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["export", "MODEL", "--format", "library", "--data", "digits"], "calibrated first layer"),
        (["export", "MODEL", "--format", "library", "--mean", "0.5"], "what its pixels mean"),
        (["evaluate", "PROJECT", "--mean", "0.5"], "what its pixels mean"),
        (["evaluate", "PROJECT", "--std", "0.5"], "what its pixels mean"),
    ],
)
def test_options_without_effect(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "small.safetensors"
    save_network(model, small_network())
    places = {"MODEL": str(model), "PROJECT": str(tmp_path)}
    with pytest.raises(SystemExit) as stop:
        main([places.get(word, word) for word in arguments])
    assert stop.value.code == 2
    assert words in capsys.readouterr().err
