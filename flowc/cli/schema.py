"""`flowc schema`: the JSON Schemas of specs and of golden cases."""

from __future__ import annotations

import click


@click.command()
@click.argument("of", type=click.Choice(["spec", "golden"]), default="spec")
def schema(of: str) -> None:
    r"""Print a JSON Schema (draft-07) for editors: that of specs, or that of golden cases.

    \b
    flowc schema > flowc.schema.json
    flowc schema golden > golden.schema.json

    A spec whose first line is `# yaml-language-server: $schema=flowc.schema.json` then completes and explains itself.
    """
    if of == "golden":
        from flowc.reference.case_schema import case_schema_text

        click.echo(case_schema_text(), nl=False)
        return
    from flowc.reference.schema import schema_text

    click.echo(schema_text(), nl=False)
