"""`syncline failures …`: rows that the graph-db refused, and what to do about them."""

import json
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from syncline.cli.columns import one_line, print_columns
from syncline.cli.operators import (
    STATUS,
    AfterOption,
    GraphArgument,
    JsonOption,
    LimitOption,
    opened,
    os_user,
    run,
    say_nothing_matched,
    told_at,
    told_key,
)
from syncline.cli.sentences import errors_as_sentences

if TYPE_CHECKING:
    from syncline.operations import AuditPage, DeadLetter, DeadLetterPage, FailureSummary, Selection

__all__ = ["app"]

app = typer.Typer(
    help="Show, retry and discard rows that the graph-db refused.", epilog=STATUS, no_args_is_help=True
)

TableArgument = Annotated[str | None, typer.Argument(metavar="TABLE", help="Rows of this table …")]
KeyArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY", help="… or the one row with this key, part by part."),
]
FingerprintOption = Annotated[
    str | None, typer.Option(metavar="HEX", help="Rows that were refused for this cause.")
]
TableOption = Annotated[str | None, typer.Option(help="Only of this table of the graph-db.")]
StateOption = Annotated[
    Literal["retrying", "dead"] | None, typer.Option(help="Only those that are still tried, or no longer.")
]
AllOption = Annotated[bool, typer.Option("--all", help="Every refused row of the graph.")]
WhoOption = Annotated[
    str | None, typer.Option(help="Who does this, for the audit; the user of this process when left out.")
]
WhyOption = Annotated[str, typer.Option(help="Why, for the audit.")]


@app.command("summary", epilog=STATUS)
@errors_as_sentences
def summary(
    graph: GraphArgument,
    table: TableOption = None,
    state: StateOption = None,
    limit: LimitOption = 100,
    as_json: JsonOption = False,
) -> None:
    """Count the refused rows by cause, the most frequent first."""
    found = run(_summarize(graph, table, state, limit))
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
        return
    if not found.groups:
        typer.echo("no refused rows")
        return
    print_columns(
        ("rows", "state", "table", "fingerprint", "sqlstate", "since", "example", "message"),
        (
            (
                str(group.rows),
                group.state,
                group.table,
                group.fingerprint,
                group.sqlstate,
                told_at(group.oldest),
                told_key(group.example_key),
                _short(group.example_message),
            )
            for group in found.groups
        ),
    )
    more = f"; {found.left_off} more causes, see --limit" if found.left_off else ""
    typer.echo(f"{found.rows} refused rows, {found.dead} of them dead{more}", err=True)


@app.command("list", epilog=STATUS)
@errors_as_sentences
def list_failures(
    graph: GraphArgument,
    table: TableOption = None,
    fingerprint: FingerprintOption = None,
    state: StateOption = None,
    limit: LimitOption = 100,
    after: AfterOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the refused rows."""
    page = run(_list(graph, table, fingerprint, state, limit, after))
    if as_json:
        typer.echo(page.model_dump_json(indent=2))
        return
    if not page.letters:
        typer.echo("no refused rows")
        return
    print_columns(
        ("table", "key", "state", "tries", "next try", "sqlstate", "fingerprint", "message"),
        (
            (
                letter.table,
                told_key(letter.key),
                letter.state,
                str(letter.attempts),
                told_at(letter.next_retry_at),
                letter.sqlstate,
                letter.fingerprint,
                _short(letter.message),
            )
            for letter in page.letters
        ),
    )
    if page.next is not None:
        typer.echo(f"more: --after '{page.next}'", err=True)


@app.command("show", epilog=STATUS)
@errors_as_sentences
def show_failure(
    graph: GraphArgument,
    table: Annotated[str, typer.Argument(metavar="TABLE", help="A table of the graph-db.")],
    key: Annotated[list[str], typer.Argument(metavar="KEY", help="The row's key, part by part.")],
    as_json: JsonOption = False,
) -> None:
    """Show why one row was refused."""
    letter = run(_show(graph, table, key))
    if letter is None:
        say_nothing_matched(
            f"{table} {told_key(key)} is not a refused row. `syncline explain` says where it is."
        )
    if as_json:
        typer.echo(letter.model_dump_json(indent=2))
        return
    for field, value in letter.model_dump(mode="json").items():
        shown = told_key(value) if field == "key" else value
        typer.echo(f"{field:<15} {'-' if shown is None else one_line(str(shown))}")


@app.command("retry", epilog=STATUS)
@errors_as_sentences
def retry_failures(
    graph: GraphArgument,
    why: WhyOption,
    table: TableArgument = None,
    key: KeyArgument = None,
    fingerprint: FingerprintOption = None,
    everything: AllOption = False,
    who: WhoOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have the next cycle try refused rows again, with all their tries before them.

    A row, a table, --fingerprint or --all: exactly one. Put `--` before a key that begins with `-`.
    """
    _act("retry", graph, table, key, fingerprint, everything, who, why, as_json)


@app.command("discard", epilog=STATUS)
@errors_as_sentences
def discard_failures(
    graph: GraphArgument,
    why: WhyOption,
    table: TableArgument = None,
    key: KeyArgument = None,
    fingerprint: FingerprintOption = None,
    everything: AllOption = False,
    who: WhoOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give up the refused versions of rows: only a newer version of a row will be tried.

    A row, a table, --fingerprint or --all: exactly one. Put `--` before a key that begins with `-`.
    """
    _act("discard", graph, table, key, fingerprint, everything, who, why, as_json)


@app.command("audit", epilog=STATUS)
@errors_as_sentences
def show_audit(
    graph: GraphArgument,
    limit: LimitOption = 100,
    before: Annotated[
        int | None, typer.Option(help="Where the page before ended: its last line says so.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List what people did by hand, newest first."""
    page = run(_audit(graph, limit, before))
    if as_json:
        typer.echo(page.model_dump_json(indent=2))
        return
    if not page.entries:
        typer.echo("nothing was done by hand")
        return
    print_columns(
        ("at", "who", "action", "rows", "what", "why"),
        (
            (
                told_at(entry.at),
                entry.who,
                entry.action,
                str(entry.rows),
                " ".join([entry.table or entry.fingerprint or "all", told_key(entry.key or ())]),
                entry.why,
            )
            for entry in page.entries
        ),
    )
    if page.next is not None:
        typer.echo(f"more: --before {page.next}", err=True)


def _act(
    action: Literal["retry", "discard"],
    graph: str,
    table: str | None,
    key: list[str] | None,
    fingerprint: str | None,
    everything: bool,
    who: str | None,
    why: str,
    as_json: bool,
) -> None:
    from syncline.operations import Selection

    selection = Selection(
        table=table, key=tuple(key) if key else None, fingerprint=fingerprint, everything=everything
    )
    rows = run(_acted(action, graph, selection, os_user() if who is None else who, why))
    if as_json:
        typer.echo(json.dumps({"rows": rows}))
    if not rows:
        say_nothing_matched("No refused row matched, so nothing was done.")
    if not as_json:
        done = "to be tried in the next cycle" if action == "retry" else "given up"
        typer.echo(f"{rows} {'row' if rows == 1 else 'rows'} {done}")


async def _acted(
    action: Literal["retry", "discard"], reference: str, selection: "Selection", who: str, why: str
) -> int:
    from syncline.operations import discard, retry

    async with opened(reference) as (services, graph):
        act = retry if action == "retry" else discard
        return await act(services.target_schema(graph), selection, who=who, why=why)


async def _summarize(reference: str, table: str | None, state: str | None, limit: int) -> "FailureSummary":
    from syncline.operations import DeadLetterState, summarize

    async with opened(reference) as (services, graph):
        return await summarize(
            services.target_schema(graph),
            table=table,
            state=DeadLetterState(state) if state else None,
            limit=limit,
        )


async def _list(
    reference: str,
    table: str | None,
    fingerprint: str | None,
    state: str | None,
    limit: int,
    after: str | None,
) -> "DeadLetterPage":
    from syncline.operations import DeadLetterState, list_dead_letters

    async with opened(reference) as (services, graph):
        return await list_dead_letters(
            services.target_schema(graph),
            table=table,
            fingerprint=fingerprint,
            state=DeadLetterState(state) if state else None,
            limit=limit,
            after=after,
        )


async def _show(reference: str, table: str, key: list[str]) -> "DeadLetter | None":
    from syncline.operations import show

    async with opened(reference) as (services, graph):
        return await show(services.target_schema(graph), table, key)


async def _audit(reference: str, limit: int, before: int | None) -> "AuditPage":
    from syncline.operations import list_audit

    async with opened(reference) as (services, graph):
        return await list_audit(services.target_schema(graph), limit=limit, before=before)


def _short(message: str) -> str:
    return message if len(message) <= 100 else f"{message[:99]}…"
