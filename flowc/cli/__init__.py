"""The command line: `flowc COMMAND`.

A command is a module of this package, named in `COMMANDS`, with a click command of its own name. A module is imported
when its command is called or listed, and imports what is heavy inside of its functions.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import click

from flowc import __version__
from flowc.cli.failing import guarded
from flowc.cli.groups import SETTINGS, Commands, help_alone

COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "import": "import_",
        "check": "check",
        "build": "build",
        "run": "run",
        "verify": "verify",
        "lock": "lock",
        "golden": "golden",
        "inspect": "inspect",
        "explain": "explain",
        "diff": "diff",
        "report": "report",
        "doctor": "doctor",
        "stages": "stages",
        "schema": "schema",
    }
)
"""Module of each command, in the order in which `flowc --help` lists them."""


def _readable(command: click.Command) -> click.Command:
    r"""The command with click's mark for lines as they are, which raw docstrings spell `\b`."""
    command.help = (command.help or "").replace(r"\b", "\b")
    return command


class _Commands(Commands):
    """Finds commands by `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = COMMANDS.get(cmd_name)
        return _readable(getattr(importlib.import_module(f"flowc.cli.{module}"), module)) if module else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command; `flowc help build` is `flowc build --help`, as git and cargo have it."""
        if args[0] == "help":
            args = [*args[1:], "--help"]
            if len(args) == 1:
                return click.Group.resolve_command(self, ctx, args)
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, invoke_without_command=True, context_settings=SETTINGS)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    r"""Compile declarative transformer specs to checked ONNX graphs.

    \b
    flowc import SmolLM2-135M-Instruct.gguf -o model.yaml
    flowc check model.yaml
    flowc build model.yaml -o out/model.onnx
    flowc run out/model.onnx --prompt "What is the capital of France?"

    Exit codes: 0 done; 1 a check failed; 2 the command line or the spec is wrong; 3 the weights are; 4 something is
    missing on this machine; 70 a bug in flowc.
    """
    help_alone(context)


_readable(cli)

_COMPLETE = "_FLOWC_COMPLETE"
"""What a shell sets to ask for its completion script, and then for completions: click answers."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (by default this process's); returns the exit code and shows every error itself."""
    given = list(sys.argv[1:] if arguments is None else arguments)

    def call() -> None:
        if arguments is None and _COMPLETE in os.environ:
            cli.main(given, "flowc", complete_var=_COMPLETE)
        with cli.make_context("flowc", list(given)) as context:
            cli.invoke(context)

    code = guarded(call, as_json="--json" in given)
    if arguments is None:
        gc.disable()  # the process ends: Python would look through all that it holds twice more for cycles
    return code
