"""Lines for people: what a stranger's file calls something cannot look like a line of flowc's own."""

from __future__ import annotations

import click

from flowc.errors import harmless


def tell(line: object, *, err: bool = False) -> None:
    """Write one line to stdout, or stderr, whatever names it holds."""
    click.echo(harmless(str(line)), err=err)
