"""`flowc golden`: record what a model gives, and check that it still does."""

from __future__ import annotations

import click

from flowc.cli.goldens.check import check
from flowc.cli.goldens.export import export
from flowc.cli.goldens.init import init
from flowc.cli.goldens.record import diff, record
from flowc.cli.groups import SETTINGS, Commands, help_alone


@click.group(cls=Commands, invoke_without_command=True, context_settings=SETTINGS)
@click.pass_context
def golden(context: click.Context) -> None:
    r"""Record what a model gives, check that it still does, export it for other tools.

    \b
    flowc golden init model.yaml --text "What is the capital of France?" -o golden/model.yaml
    flowc golden record golden/model.yaml
    flowc golden check golden --junit golden.xml
    flowc golden diff golden/model.yaml
    flowc golden export golden/model.yaml -o out/onnx-test
    """
    help_alone(context)


for _command in (init, record, check, diff, export):
    _command.help = (_command.help or "").replace(r"\b", "\b")
    golden.add_command(_command)
