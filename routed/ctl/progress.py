"""How far long work is, as a bar on stderr: on a terminal only, and gone when the work is done."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

SHOWN_FROM = 2  # steps; less is over before it can be read
_above: list[Callable[[str], None]] = []  # of the bar that is shown: what prints a line above it


@contextmanager
def progress(title: str, total: int | None) -> Iterator[Callable[[str], None]]:
    """What is called once for each step done, with what it was; `total` None: nobody knows how
    many there are."""
    if not sys.stderr.isatty() or (total is not None and total < SHOWN_FROM):
        yield lambda said: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(title, total=total)

        def done(said: str) -> None:
            bar.update(task, advance=1, description=f"{title}: {said}")

        def above(line: str) -> None:
            console.print(line, markup=False, highlight=False, soft_wrap=True)

        _above.append(above)
        try:
            yield done
        finally:
            _above.remove(above)


def say(line: str) -> None:
    """A line of output; on the terminal that shows a bar it does not run into it."""
    if _above and sys.stdout.isatty():
        _above[-1](line)
    else:
        typer.echo(line)
