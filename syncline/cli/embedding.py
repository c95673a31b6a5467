"""`syncline embedding …`: another embedding for a graph, without a bad answer in between."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from syncline.cli.operators import (
    GraphArgument,
    JsonOption,
    ReasonOption,
    TimeoutOption,
    ask,
    format_time,
    os_user,
)
from syncline.cli.output import EXIT_FAILED, errors_printed
from syncline.cli.steps import print_lines, print_state, print_step
from syncline.quoting import counted

if TYPE_CHECKING:
    from syncline.messages.embedding import (
        EmbeddingAction,
        EmbeddingPlan,
        EmbeddingStatus,
        GenerationState,
        LiveAlias,
        PlannedEmbedding,
    )

__all__ = ["app"]

_SECONDS = 600.0
"""A cycle that is under way is waited for."""
_EMBEDDING_HELP = "The new one, as messages name it; the other one that the worker offers when left out."
_EmbeddingOption = Annotated[str | None, typer.Option("--embedding", metavar="NAME", help=_EMBEDDING_HELP)]
_STATUS_OF_PLAN = (
    "Exit status: 0 it can be started, 1 something is in the way or failed, 2 wrong usage or configuration."
)

app = typer.Typer(
    help="Change the embedding of a graph: plan, start, status, switch, rollback, drop.",
    no_args_is_help=True,
)


@app.command(epilog=_STATUS_OF_PLAN)
@errors_printed
def plan(graph: GraphArgument, embedding: _EmbeddingOption = None, as_json: JsonOption = False) -> None:
    """Say what another embedding takes: texts, tokens, time, and what is in the way. Nothing is written.

    The new one is SYNCLINE_SECOND_EMBEDDING of the workers. It embeds one word, to see that it answers:
    `syncline embedding plan world`.
    """
    from syncline.messages.embedding import EmbeddingPlan, PlanEmbeddingInput

    found = ask(PlanEmbeddingInput(graph=graph, embedding=embedding), EmbeddingPlan)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        print_lines(_plan_lines(found))
    if found.obstacles:
        raise typer.Exit(EXIT_FAILED)
    if not as_json:
        typer.echo(f"next: syncline embedding start {found.graph}")


@app.command()
@errors_printed
def start(
    graph: GraphArgument,
    embedding: _EmbeddingOption = None,
    timeout: TimeoutOption = _SECONDS,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Start a second embedding: cycles fill its collections in the background, and keep both in step.

    Readers see nothing of it before `switch`. If it was interrupted, run it again: it does what is left.
    `syncline embedding start world --reason "better model"`.
    """
    _change(graph, "start", timeout, reason, embedding=embedding, as_json=as_json)


@app.command()
@errors_printed
def status(graph: GraphArgument, as_json: JsonOption = False) -> None:
    """Show a graph's embeddings: how far each is, which one readers look at, and what comes next.

    For a script: `syncline embedding status world --json | jq -r .command`.
    """
    from syncline.messages.embedding import DescribeEmbeddingInput, EmbeddingStatus

    found = ask(DescribeEmbeddingInput(graph=graph), EmbeddingStatus)
    print_state(found, _lines(found), as_json=as_json)


@app.command()
@errors_printed
def switch(
    graph: GraphArgument,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Even if the second lacks points that the main one has.")
    ] = False,
    timeout: TimeoutOption = _SECONDS,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Lead readers to the second embedding: the aliases of all collections move at once.

    Refused, with numbers, while the second lacks what the main one has: `syncline embedding switch world`.
    """
    _change(graph, "switch", timeout, reason, anyway=anyway, as_json=as_json)


@app.command()
@errors_printed
def rollback(
    graph: GraphArgument,
    timeout: TimeoutOption = _SECONDS,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Lead readers back to the main embedding: the aliases of all collections move at once.

    It takes seconds, since both embeddings stay in step until `drop`: `syncline embedding rollback world`.
    """
    _change(graph, "rollback", timeout, reason, as_json=as_json)


@app.command()
@errors_printed
def drop(
    graph: GraphArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    timeout: TimeoutOption = _SECONDS,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Drop the embedding that readers do not look at, with its collections. There is no rollback then.

    Before `switch` that is the second one: the change is given up. After it, it is the one before:
    `syncline embedding drop world --yes`.
    """
    from syncline.messages.embedding import DescribeEmbeddingInput, EmbeddingStatus

    if not yes:
        found = ask(DescribeEmbeddingInput(graph=graph), EmbeddingStatus)
        print_lines(_going(found), err=True)
        typer.confirm("Drop it?", abort=True, err=True)
    _change(graph, "drop", timeout, reason, as_json=as_json)


def _change(
    graph: str,
    action: "EmbeddingAction",
    timeout: float,
    reason: str,
    *,
    embedding: str | None = None,
    anyway: bool = False,
    as_json: bool,
) -> None:
    from syncline.messages.embedding import ChangeEmbeddingInput, EmbeddingStatus

    request = ChangeEmbeddingInput(
        graph=graph, action=action, embedding=embedding, anyway=anyway, who=os_user(), why=reason
    )
    done = ask(request, EmbeddingStatus, seconds=timeout)
    print_step(done, _lines(done), as_json=as_json)


def _lines(found: "EmbeddingStatus") -> Iterator[str]:
    for state in found.generations:
        yield from _state_lines(state)
    yield from map(_alias_line, found.aliases)


def _state_lines(state: "GenerationState") -> Iterator[str]:
    if state.role == "left":
        yield f"generation {state.generation}: {state.embedding}, left by an interrupted drop"
        return
    looked_at = ", readers look at it" if state.live else ""
    yield f"generation {state.generation}: {state.role}{looked_at}"
    if state.embedding is None:
        yield "  not recorded yet"
    else:
        yield f"  {state.embedding} ({state.setting or 'offered by no worker that was asked'})"
    yield f"  {state.confirmed:,} confirmed, {state.owed:,} owed, {state.refused:,} refused"
    times = {"since": state.since, "filled": state.filled_at, "switched": state.switched_at}
    told = [f"{name} {format_time(at)}" for name, at in times.items() if at is not None]
    if told:
        yield f"  {', '.join(told)}"
    if state.error is not None:
        yield f"  delayed: {state.error}"


def _alias_line(alias: "LiveAlias") -> str:
    if alias.collection is None:
        return f"alias {alias.alias}: not there yet, `start` makes it"
    foreign = "" if alias.generation is not None else ", which is no collection of this graph"
    return f"alias {alias.alias} -> {alias.collection}{foreign}"


def _plan_lines(found: "EmbeddingPlan") -> Iterator[str]:
    yield f"now: {_planned(found.main)}"
    if found.second is not None:
        yield f"new: {_planned(found.second)}"
        if found.second.lacking:
            yield f"not offered by {', '.join(found.second.lacking)}"
    by = "by what its texts have cost" if found.tokens_from == "ledger" else "estimated by their length"
    yield f"{counted(found.points, 'point')}, {counted(found.texts, 'different text')}"
    yield f"about {counted(found.tokens, 'token')} ({by})"
    if found.seconds is None:
        yield "time: no limit and no budget is set; a cycle gives it 10 s at most"
    else:
        yield f"time: at least {_duration(found.seconds)}, by {found.limited_by}"
    yield from map(_alias_line, found.aliases)
    for obstacle in found.obstacles:
        yield f"in the way: {obstacle}"


def _planned(one: "PlannedEmbedding") -> str:
    dimensions = "" if one.dimensions is None else f", {counted(one.dimensions, 'dimension')}"
    setting = "not offered by this worker" if one.setting is None else one.setting
    answers = {None: "", True: ", answers", False: ", does not answer"}[one.reached]
    return f"{one.embedding}{dimensions} ({setting}{answers})"


def _duration(seconds: float) -> str:
    for size, word in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= size:
            return f"{seconds / size:.1f} {word}"
    return counted(round(seconds), "second")


def _going(found: "EmbeddingStatus") -> Iterator[str]:
    """Yield what a drop ends, as things are."""
    for state in found.generations:
        if not state.live:
            yield (
                f"generation {state.generation}, {state.embedding or 'not recorded'}: "
                f"{counted(state.confirmed, 'point')}, that readers do not look at"
            )
    mains = [state for state in found.generations if state.role == "main" and not state.live]
    if mains:
        names = ", ".join(alias.alias for alias in found.aliases)
        yield f"Readers have to query {names}: by the collections' own names they find nothing any more."
