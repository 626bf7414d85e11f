"""Commands with examples: what `--help` shows, and how the program calls itself.

The same program is `routectl`, and `kubectl routed` where kubectl started it as a plug-in
(`kubectl-routed`): then usage, examples and hints say that.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

F = TypeVar("F", bound=Callable[..., Any])
NAME, PLUGIN = "routectl", "kubectl-routed"


def program(path: str | None = None) -> str:
    """As its user calls it; `path` is what was started."""
    started = PurePath(path or sys.argv[0]).name
    return PLUGIN.replace("-", " ") if started == PLUGIN else NAME


def called(text: str) -> str:
    """A text of ours, in which the program has the name that its user calls it by."""
    return text.replace(f"{NAME} ", f"{program()} ") if program() != NAME else text


class Command(TyperCommand):
    """Its epilog is a list of examples, a line each, `# ...` lines between them."""

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        self.help = called(self.help or "")
        super().format_help_text(ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        examples = called(self.epilog or "").splitlines()
        with formatter.section("Examples"):
            formatter.write("".join(f"  {line}\n" for line in examples))
        formatter.write(f"\nOptions of every command: {program()} --help\n")


class Group(TyperGroup):
    """Its commands in the order in which they are declared."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)


def group(name: str = "", help_text: str = "") -> typer.Typer:
    """Commands behind a word, or (without a name) ones that another group takes in."""
    return typer.Typer(
        name=name or None,
        help=help_text,
        cls=Group,
        no_args_is_help=True,
        add_completion=False,  # ours asks the service, and is quicker
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


def verb(app: typer.Typer, *examples: str, name: str | None = None) -> Callable[[F], F]:
    """Declare a command with its examples; `name` where it is not the function's."""
    return app.command(name, cls=Command, epilog="\n".join(examples))
