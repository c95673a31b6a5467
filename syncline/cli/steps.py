"""Changes of a graph that are made step by step: what a step did, how things stand, and what comes next."""

from collections.abc import Iterable
from typing import Protocol

import typer

from syncline.cli.output import one_line

__all__ = ["Step", "print_lines", "print_state", "print_step"]


class Step(Protocol):
    """The state of such a change."""

    @property
    def did(self) -> tuple[str, ...]:
        """What was done, a sentence each."""

    @property
    def next(self) -> str:
        """What to do next, in a sentence."""

    @property
    def command(self) -> str | None:
        """The command of that, if any."""

    def model_dump_json(self, *, indent: int) -> str:
        """Return it as JSON."""


def print_step(done: Step, lines: Iterable[str], *, as_json: bool) -> None:
    """Print what a step did, and the state after it."""
    if not as_json:
        print_lines(done.did or ("Done before: nothing was to be done.",))
    print_state(done, lines, as_json=as_json)


def print_state(found: Step, lines: Iterable[str], *, as_json: bool) -> None:
    """Print the state, in these lines, and what comes next."""
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
        return
    print_lines(lines)
    typer.echo(one_line(found.next))
    if found.command is not None:
        typer.echo(f"next: {found.command}")


def print_lines(lines: Iterable[str], *, err: bool = False) -> None:
    """Print each as one line; one that begins with a blank is indented."""
    for line in lines:
        typer.echo(one_line(line) if line[:1] != " " else f"  {one_line(line)}", err=err)
