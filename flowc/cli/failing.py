"""How commands fail: one place that turns whatever was raised into a message and an exit code.

FlowError           its diagnostics, its exit code
click's errors      the same form, 2
OSError             4: what nobody nearer could explain better (a full disk behind stdout, say)
MemoryError         4, and what an import or a library in C++ says in its place
Ctrl-C, SIGTERM     nothing, 130 and 143
a closed pipe       nothing, 141: what a program that SIGPIPE ends leaves with
anything else       70, "a bug in flowc"; the traceback with FLOWC_DEBUG=1
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable

import click

from flowc.cli.annotations import annotate
from flowc.cli.stopping import Terminated, stoppable
from flowc.errors import Diagnostic, FlowError, MissingTool, SpecError
from flowc.outside.foreign import check_memory, lack_of

BUG = 70
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
PIPE_CLOSED = 128 + signal.SIGPIPE

_PAINTED = (
    (re.compile(r"^error\[.*?\]", re.MULTILINE), "1;31"),
    (re.compile(r"^(note|help):", re.MULTILINE), "1;36"),
    (re.compile(r"(?<=\|) +\^+$", re.MULTILINE), "31"),
)


def guarded(call: Callable[[], None], *, as_json: bool) -> int:
    """Exit code of a call; what it raises is shown, as one JSON object on stdout or as text on stderr."""
    try:
        with stoppable():
            return _called(call, as_json)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Terminated:
        return TERMINATED
    except BrokenPipeError:
        # Nothing may be left that Python would flush when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
        return PIPE_CLOSED


def _called(call: Callable[[], None], as_json: bool) -> int:
    try:
        try:
            check_memory()
            call()
        finally:
            _flush()
    except click.exceptions.Exit as asked:
        return asked.exit_code
    except BrokenPipeError:
        raise
    except Exception as error:
        failure = explain(error)
        code = BUG if failure is None else failure.exit_code
        diagnostics = as_bug(error) if failure is None else failure.diagnostics
        text = diagnostics[0].render() if failure is None else failure.render()
        _show(text, diagnostics, code, as_json)
        if failure is None and os.environ.get("FLOWC_DEBUG"):
            traceback.print_exception(error)
        return code
    return 0


def explain(error: Exception) -> FlowError | None:
    """The error in a user's terms; None for a bug in flowc."""
    match error:
        case FlowError():
            return error
        case click.ClickException():
            context = error.ctx if isinstance(error, click.UsageError) else None
            hint = f"`{context.command_path} --help` shows what it takes" if context else ""
            return SpecError.of("usage", _sentence(" ".join(error.format_message().split())), hint=hint)
        case _ if lack := lack_of(error):
            return lack
        case OSError():
            where = error.filename if isinstance(error.filename, str) else "input or output"
            return MissingTool.of("io-failed", f"{where}: {str(error.strerror or error).lower()}")
        case _:
            return None


def as_bug(error: Exception) -> tuple[Diagnostic, ...]:
    """What is told of an exception that nobody expected."""
    summary = next(iter(str(error).splitlines()), "")
    message = f"a bug in flowc: {type(error).__name__}: {summary}"
    return (Diagnostic("internal", message, hint="FLOWC_DEBUG=1 shows the traceback; please report it with the spec"),)


def _show(text: str, diagnostics: tuple[Diagnostic, ...], code: int, as_json: bool) -> None:
    with contextlib.suppress(OSError):
        annotate(diagnostics)
    if as_json:
        with contextlib.suppress(OSError):  # a stdout that takes nothing, which may be what failed
            click.echo(json.dumps({"exit_code": code, "diagnostics": [d.as_json() for d in diagnostics]}))
            _flush()
            return
    with contextlib.suppress(OSError):
        click.echo(painted(text) if watched() else text, err=True)


def watched() -> bool:
    """Whether a person reads stderr: a terminal, and nothing in the environment that asks for plain text."""
    plain = os.environ.get("CI") or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return not plain and sys.stderr is not None and sys.stderr.isatty()  # None when the caller closed it: `2>&-`


def painted(text: str) -> str:
    """Rendered diagnostics with colour."""
    for pattern, colour in _PAINTED:
        text = pattern.sub(lambda match, colour=colour: f"\x1b[{colour}m{match[0]}\x1b[0m", text)
    return text


def _sentence(message: str) -> str:
    """A message of click in the style of flowc's: lower case, no full stop."""
    return (message[:1].lower() + message[1:]).removesuffix(".")


def _flush() -> None:
    """Write out what is buffered, while an error can still be told."""
    with contextlib.suppress(AttributeError):  # sys.stdout is None when the caller closed it: `>&-`
        sys.stdout.flush()
