"""Commands that are made of commands: how they list them, and what they say of one that is not there."""

from __future__ import annotations

import click

from flowc.errors import nearest

SETTINGS = {"help_option_names": ["-h", "--help"]}


class Commands(click.Group):
    """A group that shows its help when it is called alone."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """All of each command's first paragraph; click would cut it."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, c.get_short_help_str(limit=200)) for name, c in commands if c is not None])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first word names."""
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-"):
            hint = nearest(args[0], known)
            raise click.UsageError(f"there is no command '{args[0]}'" + (f"; {hint}" if hint else ""), ctx)
        return super().resolve_command(ctx, args)


def help_alone(context: click.Context) -> None:
    """Show the help of a group that was called without a command."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
