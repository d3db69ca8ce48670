"""`flowc schema`: the JSON Schema of specs."""

from __future__ import annotations

import click


@click.command()
def schema() -> None:
    r"""Print the JSON Schema of specs (draft-07), for editors.

    \b
    flowc schema > flowc.schema.json

    A spec whose first line is `# yaml-language-server: $schema=flowc.schema.json` then completes and explains itself.
    """
    from flowc.reference.schema import schema_text

    click.echo(schema_text(), nl=False)
