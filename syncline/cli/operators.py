"""What the commands for operators share: completion, having something done, answering."""

import getpass
import json
import os
from collections.abc import Coroutine, Iterable, Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Annotated, Final, NoReturn, TypeVar

import typer

from syncline.cli.output import EXIT_FAILED, one_line, print_error, print_table

if TYPE_CHECKING:
    from datetime import datetime

    from pydantic import BaseModel

    from syncline.control.graphs import Graph
    from syncline.messages.operator import OperationInput

__all__ = ["complete_graph"]

_SECONDS: Final = 1.0
"""Whoever presses Tab waits no longer."""


def complete_graph(incomplete: str) -> list[str]:
    """Return the slugs that begin like this; none if Temporal does not answer within a second."""
    import asyncio

    from syncline.cli.target import connect_temporal
    from syncline.errors import SynclineError
    from syncline.temporal.schedules.list import list_schedules

    async def slugs() -> list[str]:
        found = await list_schedules(await connect_temporal(prepare=False))
        return [schedule.slug for schedule in found if schedule.slug.startswith(incomplete)]

    try:
        return asyncio.run(asyncio.wait_for(slugs(), _SECONDS))
    except (SynclineError, TimeoutError):
        return []


T = TypeVar("T")
ResultT = TypeVar("ResultT", bound="BaseModel")

SECONDS = 60.0
"""How long a command waits for its run, unless it is told."""

STATUS_IN_GENERAL = "Exit status: 0 done, 1 failed, 2 wrong usage or configuration."
STATUS = "Exit status: 0 done, 1 failed or nothing matched, 2 wrong usage or configuration."

GraphArgument = Annotated[
    str, typer.Argument(metavar="GRAPH", help="Slug or id.", autocompletion=complete_graph)
]
OptionalGraphArgument = Annotated[
    str | None, typer.Argument(metavar="[GRAPH]", help="Slug or id.", autocompletion=complete_graph)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LimitOption = Annotated[int, typer.Option(min=1, max=10_000, help="Lines of one page.")]
ReasonOption = Annotated[str, typer.Option(help="Why this is done; kept in the audit.")]
AfterOption = Annotated[
    str | None, typer.Option(metavar="PLACE", help="Where the page before ended: its last line says so.")
]
BeforeOption = Annotated[int | None, typer.Option(help="Where the page before ended: its last line says so.")]

TimeoutOption = Annotated[float, typer.Option(min=1, help="Seconds to wait for it; then it is ended.")]


def run(work: Coroutine[object, object, T]) -> T:
    """Return what a coroutine returns. Only errors are logged meanwhile, to stderr."""
    import asyncio

    from syncline.logs import configure_logging

    # Left alone, logs would come among the answer. What is wrong with a run is told as a sentence.
    configure_logging("ERROR", "console")
    return asyncio.run(work)


def ask(
    request: "OperationInput",
    result: "type[ResultT]",
    *,
    seconds: float = SECONDS,
) -> "ResultT":
    """Have a worker carry out what is asked for, and return the result; Temporal is all that is needed."""
    return run(have_done(request, result, seconds))


async def have_done(
    request: "OperationInput",
    result: "type[ResultT]",
    seconds: float,
    *,
    patience: float | None = None,
) -> "ResultT":
    """Like `ask`, in an event loop that runs.

    `patience`: seconds after which it is not waited for if no worker is left to take it.
    """
    from uuid import uuid4

    from syncline import names
    from syncline.cli.target import connect_temporal, find_task_queue
    from syncline.temporal.priorities import BY_HAND, READING_A_GRAPH, WAITING
    from syncline.temporal.run import execute_and_wait

    return await execute_and_wait(
        await connect_temporal(),
        request.workflow,
        result,
        request,
        workflow_id=names.operation_id(request.workflow, request.about, uuid4().hex[:8]),
        task_queue=find_task_queue(),
        seconds=seconds,
        summary=request.summary,
        graph=request.about,
        priority=WAITING if request.workflow in READING_A_GRAPH else BY_HAND,
        patience=patience,
        report=lambda sentence: typer.secho(one_line(sentence), err=True, dim=True),
    )


def one_graph(graph: str) -> "Graph":
    """Return the graph with this slug or id, as a worker answers."""
    from syncline.messages.operator import GraphPage, ListGraphsInput

    [found] = ask(ListGraphsInput(graph=graph), GraphPage).graphs
    return found


def slug_of(graph: str) -> str:
    """Return the slug of a graph that is named by its slug or id.

    What is not written as a UUID is a slug and is returned unchanged, with no call. An id is looked up by a
    worker; raise RunFailed or ConfigurationError if no graph has it, and NoWorker if nobody can look.
    """
    from uuid import UUID

    try:
        written_as_id = str(UUID(graph)) == graph.lower()
    except ValueError:
        written_as_id = False
    return one_graph(graph).slug if written_as_id else graph


def print_json_list(answers: "Iterable[BaseModel]") -> None:
    """Print models as one JSON array."""
    typer.echo(json.dumps([answer.model_dump(mode="json") for answer in answers], indent=2))


def print_page(
    page: "BaseModel",
    header: Sequence[str],
    lines: Sequence[Sequence[str]],
    *,
    nothing: str,
    as_json: bool,
    summary: str | None = None,
    spare: Sequence[str] = (),
) -> None:
    """Print a list as JSON, or as a table and its `summary` on stderr; `nothing` if it is empty.

    `spare` names the columns that a narrow terminal leaves out, the first one first.
    """
    if as_json:
        typer.echo(page.model_dump_json(indent=2))
    elif not lines:
        typer.echo(nothing)
    else:
        print_table(header, lines, spare=spare)
        if summary is not None:
            typer.echo(summary, err=True)


def exit_nothing_matched(sentence: str) -> NoReturn:
    """Say that there is nothing of the kind, and exit with status 1."""
    print_error(one_line(sentence))
    raise typer.Exit(EXIT_FAILED)


def format_time(at: "datetime | None") -> str:
    """Return a moment to the second, in UTC, which its `Z` says; or `-`."""
    return "-" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def format_key(key: Sequence[str]) -> str:
    """Return a key as it is typed: its parts, those with a blank in quotes."""
    return " ".join(part if part and not set(part) & set(" \t\n'\"") else repr(part) for part in key)


def os_user() -> str:
    """Return the name of the user who runs this process, or the number of one who has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
