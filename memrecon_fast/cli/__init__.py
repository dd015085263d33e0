"""The command `memrecon`: one module for each command."""

from __future__ import annotations

import sys
from typing import Annotated

import memrecon_fast

try:
    import rich  # noqa: F401 (the commands use it)
    import typer
except ImportError as missing:
    print(f"memrecon: needs {missing.name}; pip install 'memrecon-fast[audit]'", file=sys.stderr)
    raise SystemExit(2) from missing

from memrecon_fast.cli.attractors import attractors
from memrecon_fast.cli.audit import audit
from memrecon_fast.cli.compare import compare
from memrecon_fast.cli.demo import demo
from memrecon_fast.cli.export import export
from memrecon_fast.cli.lines import UsageError, say
from memrecon_fast.cli.reconstruct import reconstruct
from memrecon_fast.cli.report import report
from memrecon_fast.cli.reproduce import reproduce
from memrecon_fast.cli.train import train
from memrecon_fast.common.text import print_every_letter

app = typer.Typer(
    help="Which training images can be recovered from this autoencoder?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (demo, train, audit, attractors, reconstruct, report, export, compare, reproduce):
    app.command()(command)


def main() -> None:
    """Run the command: bad input is one line on stderr and exit code 2, an interruption exit code 130."""
    print_every_letter()
    try:
        sys.exit(app(args=sys.argv[1:] or ["--help"], prog_name="memrecon", standalone_mode=False))
    except UsageError as error:
        say(error.format_message())  # type: ignore[attr-defined]
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        say("interrupted")
        sys.exit(130)
    except OSError as error:  # a full disk, say: nothing that was asked for wrongly, and no fault of the program
        say(str(error))
        sys.exit(1)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"memrecon_fast {memrecon_fast.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Which training images can be recovered from this autoencoder?"""
