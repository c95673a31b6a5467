"""`syncline parked`: rows that wait for another row, which is no failure."""

from typing import TYPE_CHECKING, Annotated

import typer

from syncline.cli.operators import (
    AfterOption,
    GraphArgument,
    JsonOption,
    LimitOption,
    ask,
    format_key,
    format_time,
    print_page,
)
from syncline.cli.output import errors_printed, print_table

if TYPE_CHECKING:
    from syncline.operator.parked import AwaitedRow, ParkedPage, ParkedSummary

__all__ = ["parked"]


@errors_printed
def parked(
    graph: GraphArgument,
    table: Annotated[
        str | None, typer.Option(help="List what waits of this table, instead of what is waited for.")
    ] = None,
    limit: LimitOption = 20,
    after: AfterOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what waits, for whom, since when, and why that one does not come; the worst comes first.

    A row whose parent is missing waits whole, a link or an optional reference alone. Both land by themselves
    when the other end does.
    """
    from syncline.messages.operator import ListParkedInput, SummarizeParkedInput
    from syncline.operator.parked import ParkedPage, ParkedSummary

    if table is not None:
        listed = ListParkedInput(graph=graph, table=table, limit=limit, after=after)
        _print_page(ask(listed, ParkedPage), as_json=as_json)
        return
    if after is not None:
        raise typer.BadParameter("it goes with --table", param_hint="--after")
    summary = ask(SummarizeParkedInput(graph=graph, limit=limit), ParkedSummary)
    _print_summary(summary, as_json=as_json)


def _print_summary(found: "ParkedSummary", *, as_json: bool) -> None:
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
        return
    if not found.awaited and not found.released:
        typer.echo("nothing waits")
        return
    if found.awaited:
        print_table(
            ("waiting", "for", "key", "since", "what waits", "why it does not come"),
            (
                (
                    str(row.waiting),
                    row.table,
                    format_key([row.key]) + (f" ({row.named_by})" if row.named_by else ""),
                    format_time(row.since),
                    _parts(row),
                    row.reason,
                )
                for row in found.awaited
            ),
            spare=("since", "what waits"),
        )
    left_off = f"; {found.left_off} more are waited for, see --limit" if found.left_off else ""
    typer.echo(f"{found.outcome}{left_off}", err=True)


def _parts(row: "AwaitedRow") -> str:
    return ", ".join(
        f"{part.waiting} {part.table}{f' ({part.name})' if part.name else ''}" for part in row.parts
    )


def _print_page(page: "ParkedPage", *, as_json: bool) -> None:
    print_page(
        page,
        ("key", "what of it", "waits for", "key", "since", "state"),
        [
            (
                format_key(entry.key),
                entry.name or "all",
                entry.waits_for_table,
                format_key([entry.waits_for_key]),
                format_time(entry.since),
                "lands in the next cycle" if entry.released else "waits",
            )
            for entry in page.entries
        ],
        nothing="nothing waits",
        as_json=as_json,
        summary=None if page.next is None else f"more: --after '{page.next}'",
    )
