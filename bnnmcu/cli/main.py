"""The command line: one file a command, loaded only when it is called."""

from __future__ import annotations

import errno
import importlib
import os
import sys

import click

from bnnmcu import __version__
from bnnmcu.cli.output import report_error
from bnnmcu.errors import BnnmcuError, UsageError

__all__ = ["cli", "main"]

# Short help stands here so that `bnnmcu --help` need not import every command.
_COMMANDS = {
    "train": "Train one of the paper's networks.",
    "evaluate": "Measure the error of the integer network on a data set.",
    "inspect": "Show a network after each step of its compilation, also as a picture.",
    "agreement": "Compare the integer network with the float one it was made from.",
    "export": "Turn a trained model into a PlatformIO project.",
    "fit": "Compare all boards for one network: what fits, and what it costs there.",
    "build": "Compile a project.",
    "flash": "Write a project to a board.",
    "pio-offline": "Let PlatformIO build a project without a network.",
    "run": "Serve a project on an emulated board behind a serial port.",
    "verify": "Hold a board's answers against the reference, bit for bit.",
    "diff": "Find the first layer where float network, integers, C and board part.",
    "bench": "Count instructions or cycles on the board, layer by layer.",
    "attack": "Attack the network on the board and report its accuracy.",
    "report": "Make a page of stored runs, or show their charts here.",
    "replay": "Show the images of a stored run again, to any board or network.",
    "paper": "Measure the paper's tables and figures again.",
    "worker": "Work for a cluster: craft images, and ask the boards attached here.",
    "study": "Study what a secret seed of the drawn weights is worth.",
    "runs": "List, show, compare, merge and export stored results.",
    "boards": "List the boards.",
    "doctor": "Show what is installed and how to get what is missing.",
    "completion": "Print a script that lets a shell complete commands, options and boards.",
    "demo": "Export, build, emulate, verify and attack the shipped network.",
}
_INTERRUPTED = 130
_OS_HINTS = {
    errno.ENOSPC: "free some space and try again",
    errno.EROFS: "this file system is read-only: choose another folder",
    errno.EACCES: "check the permissions, or choose another folder",
    errno.ENOTDIR: "a part of the path is a file: choose another path",
    errno.EEXIST: "a part of the path is a file: choose another path",
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"bnnmcu.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bnnmcu")
def cli() -> None:
    """Binarized networks from PyTorch to Cortex-M, bit-exact, and attacked on the board.

    \b
    bnnmcu export examples/models/s64.pt --board nucleo_f446 -o s64
    bnnmcu verify s64 --emulate
    bnnmcu attack s64 --emulate -n 100
    """


def main(arguments: list[str] | None = None) -> None:
    """Entry point: errors become one message and an exit code, never a traceback."""
    given = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in given
    try:
        code = cli.main(args=given, prog_name="bnnmcu", standalone_mode=False)
        # Now, where a full disk can still be reported.
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        if as_json:
            _report(UsageError(error.format_message()), as_json, shown=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        # The reader went away (`bnnmcu ... | head`): nothing is wrong.
        _drop_output()
        sys.exit(0)
    except BnnmcuError as error:
        sys.exit(_report(error, as_json))
    except OSError as error:
        # A full disk or a folder that may not be written: the user's to mend.
        where = str(error.filename) if error.filename else None
        what = error.strerror or str(error)
        hint = _OS_HINTS.get(error.errno or 0, "check the path and its permissions")
        sys.exit(_report(BnnmcuError(what, where=where, hint=hint), as_json))


def _report(error: BnnmcuError, as_json: bool, *, shown: bool = False) -> int:
    try:
        return report_error(error, as_json=as_json, shown=shown)
    except OSError:
        # Standard output itself is what failed; the message went to standard error.
        _drop_output()
        return error.exit_code


def _drop_output() -> None:
    """Keep the interpreter from flushing to an output that cannot take anything."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123  open until the process ends
