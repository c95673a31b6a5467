"""`syncline wait`: waits until what a transaction wrote is visible."""

from typing import TYPE_CHECKING, Annotated

import typer

from syncline.cli.operators import GraphArgument, JsonOption, have_done, run
from syncline.cli.output import EXIT_FAILED, errors_printed, one_line, print_error

if TYPE_CHECKING:
    from syncline.messages.visibility import Visibility, WaitVisibleInput

__all__ = ["STATUS_OF_WAIT", "wait"]

STATUS_OF_WAIT = (
    "Exit status: 0 visible (with --vectors, its vectors too), 1 not, and it says why, or nobody could say, "
    "2 wrong usage, or the token is of another database or history."
)
_GRACE = 30.0


@errors_printed
def wait(
    graph: GraphArgument,
    token: Annotated[
        str, typer.Argument(metavar="TOKEN", help="What SELECT syncline.token() returned in the transaction.")
    ],
    vectors: Annotated[bool, typer.Option("--vectors", help="Wait for its vectors too.")] = False,
    timeout: Annotated[float, typer.Option(metavar="S", min=0, max=3600, help="Seconds to wait.")] = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Wait until what a transaction wrote is visible in the graph-db; wakes the graph if nothing else does.

    It ends early where waiting cannot help: rows are parked or rejected, the graph is paused.
    """
    from syncline.messages.visibility import WaitVisibleInput

    request = WaitVisibleInput(graph=graph, token=token, vectors=vectors, seconds=timeout)
    answer = run(_waited(request))
    if as_json:
        typer.echo(answer.model_dump_json(indent=2))
    else:
        _print(answer)
    if not answer.visible or (vectors and not answer.vectors):
        raise typer.Exit(EXIT_FAILED)


async def _waited(request: "WaitVisibleInput") -> "Visibility":
    """Wait by an activity of its own, whose answer is here sooner, or by a run where that cannot be."""
    from syncline.cli.target import connect_temporal, find_task_queue
    from syncline.messages.visibility import Visibility
    from syncline.temporal.wait import can_wait_directly, wait_directly

    client, task_queue = await connect_temporal(), find_task_queue()
    if await can_wait_directly(client, task_queue):
        return await wait_directly(client, request, task_queue=task_queue)
    return await have_done(request, Visibility, request.seconds + _GRACE, patience=request.seconds)


def _print(answer: "Visibility") -> None:
    said = answer.reason if answer.reason is None else one_line(answer.reason)
    if answer.visible:
        typer.echo(f"visible after {answer.waited_seconds:.2f} s" + (f"; {said}" if said else ""))
    else:
        print_error(f"{answer.state}: {said}" if said else answer.state.value)
