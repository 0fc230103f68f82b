"""``bnnmcu completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

__all__ = ["command"]

_WHERE = {
    "bash": 'eval "$(bnnmcu completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(bnnmcu completion zsh)"    # in ~/.zshrc',
    "fish": "bnnmcu completion fish | source     # in ~/.config/fish/config.fish",
}


@click.command("completion")
@click.argument("shell", type=click.Choice(sorted(_WHERE)))
def command(shell: str) -> None:
    """Print a script that lets a shell complete commands, options and boards.

    \b
    Example:
      eval "$(bnnmcu completion bash)"       # in ~/.bashrc
      eval "$(bnnmcu completion zsh)"        # in ~/.zshrc
      bnnmcu completion fish | source        # in ~/.config/fish/config.fish
    """
    from bnnmcu.cli.main import cli

    made = get_completion_class(shell)
    assert made is not None
    print(f"# {_WHERE[shell]}")
    print(made(cli, {}, "bnnmcu", "_BNNMCU_COMPLETE").source())
