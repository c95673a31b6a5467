"""`syncline verify`: whether the graph-db and Qdrant say what the write-db says, and having it mended."""

from typing import TYPE_CHECKING, Annotated

import typer

from syncline.cli.operators import (
    GraphArgument,
    JsonOption,
    ReasonOption,
    TimeoutOption,
    ask,
    format_key,
    os_user,
)
from syncline.cli.output import EXIT_FAILED, EXIT_NOT_COMPARED, errors_printed, one_line, print_columns

if TYPE_CHECKING:
    from syncline.messages.verification import Verification

__all__ = ["STATUS_OF_VERIFY", "print_verification", "verify"]

STATUS_OF_VERIFY = (
    "Exit status: 0 equal, 1 damage found (repaired or not), or failed, 2 wrong usage or configuration, "
    "4 not everything could be compared, and nothing is damaged."
)


@errors_printed
def verify(
    graph: GraphArgument,
    repair: Annotated[
        bool, typer.Option("--repair", help="Ask for exactly what is damaged; the next cycle makes it right.")
    ] = False,
    reason: ReasonOption = "verify --repair",
    who: Annotated[
        str | None, typer.Option(help="Who repairs; the user of this process when left out.")
    ] = None,
    table: Annotated[list[str] | None, typer.Option(help="Only this table; may be repeated.")] = None,
    keys: Annotated[int, typer.Option(min=0, max=10_000, help="Keys to name for each finding.")] = 10,
    vectors: Annotated[bool, typer.Option(help="Compare Qdrant too.")] = True,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Compare the live result with its shadow instead.")
    ] = False,
    timeout: TimeoutOption = 3600.0,
    as_json: JsonOption = False,
) -> None:
    """Compare a graph's stores, whatever runs meanwhile, and name what is missing, extra or stale.

    What waits for another row, was refused or is on its way is told apart: that is no damage.
    """
    from syncline.messages.operator import VerifyGraphInput
    from syncline.messages.verification import Verification

    request = VerifyGraphInput(
        graph=graph,
        tables=tuple(table or ()),
        keys=keys,
        vectors=vectors,
        repair=repair,
        who=(who or os_user()) if repair else "",
        why=reason if repair else "",
        shadow=shadow,
    )
    found = ask(request, Verification, seconds=timeout)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        print_verification(found, repaired=repair)
    if found.damaged or found.queued:
        raise typer.Exit(EXIT_FAILED)
    if not found.complete:
        raise typer.Exit(EXIT_NOT_COMPARED)


def print_verification(found: "Verification", *, repaired: bool) -> None:
    """Print a table of all relations, the keys of damage, and the outcome."""
    from syncline.messages.verification import Verdict

    print_columns(
        ("what", "of", "equal", *(verdict.value for verdict in Verdict)),
        (
            (
                relation.name,
                relation.kind.value,
                f"{relation.equal:,}",
                *(f"{relation.found(verdict).count:,}" for verdict in Verdict),
            )
            for relation in found.relations
        ),
        # What was found of no relation, the harmless verdicts first.
        spare=[
            verdict.value
            for verdict in reversed(Verdict)
            if not any(relation.found(verdict).count for relation in found.relations)
        ],
    )
    for relation in found.relations:
        for verdict in Verdict:
            keys = relation.found(verdict).keys
            if verdict.damage and keys:
                left = relation.found(verdict).count - len(keys)
                more = f" and {left:,} more" if left else ""
                named = ", ".join(format_key(key) for key in keys)
                typer.echo(
                    one_line(f"{relation.name} ({relation.kind.value}), {verdict.value}: {named}{more}")
                )
        if relation.filling:
            typer.echo(one_line(f"{relation.name}: a column is being filled; rows that differ are pending"))
        if relation.problem:
            typer.echo(
                one_line(f"{relation.name} ({relation.kind.value}) was not compared: {relation.problem}")
            )
    for sentence in (*found.not_compared, *found.behind, *found.owed, *found.differences):
        typer.echo(one_line(sentence))
    stuck = [relation for relation in found.relations if relation.damaged and relation.delayed_by]
    for relation in stuck:
        typer.echo(
            one_line(
                f"{relation.name} ({relation.kind.value}): --repair alone does not help, because its points "
                f"cannot be written. {relation.delayed_by}"
            )
        )
    repairable = found.damaged > sum(relation.damaged for relation in stuck)
    hint = "; --repair fixes them" if repairable and not (repaired or found.shadow) else ""
    if hint and stuck:
        hint = "; --repair fixes the others"
    typer.echo(f"{found.sentence()}{hint}")
