"""`syncline failures …`: rows that the graph-db refused, and what to do about them."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from syncline.cli.operators import (
    SECONDS,
    STATUS,
    AfterOption,
    BeforeOption,
    GraphArgument,
    JsonOption,
    LimitOption,
    ReasonOption,
    TimeoutOption,
    ask,
    exit_nothing_matched,
    format_key,
    format_time,
    os_user,
    print_page,
)
from syncline.cli.output import errors_printed, one_line

if TYPE_CHECKING:
    from syncline.messages.operator import DiscardFailuresInput, RetryFailuresInput

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


@app.command("summary", epilog=STATUS)
@errors_printed
def summary(
    graph: GraphArgument,
    table: TableOption = None,
    state: StateOption = None,
    limit: LimitOption = 100,
    as_json: JsonOption = False,
) -> None:
    """Count the refused rows by cause, the most frequent first."""
    from syncline.messages.operator import SummarizeFailuresInput
    from syncline.operator.dead_letters import DeadLetterState, FailureSummary

    states = DeadLetterState(state) if state else None
    found = ask(SummarizeFailuresInput(graph=graph, table=table, state=states, limit=limit), FailureSummary)
    more = f"; {found.left_off} more causes, see --limit" if found.left_off else ""
    print_page(
        found,
        ("rows", "state", "table", "fingerprint", "sqlstate", "since", "example", "message"),
        [
            (
                str(group.rows),
                group.state,
                group.table,
                group.fingerprint,
                group.sqlstate,
                format_time(group.oldest),
                format_key(group.example_key),
                _short(group.example_message),
            )
            for group in found.groups
        ],
        nothing="no refused rows",
        as_json=as_json,
        summary=f"{found.outcome}{more}",
        spare=("since", "sqlstate", "example"),
    )


@app.command("list", epilog=STATUS)
@errors_printed
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
    from syncline.messages.operator import ListFailuresInput
    from syncline.operator.dead_letters import DeadLetterPage, DeadLetterState

    request = ListFailuresInput(
        graph=graph,
        table=table,
        fingerprint=fingerprint,
        state=DeadLetterState(state) if state else None,
        limit=limit,
        after=after,
    )
    page = ask(request, DeadLetterPage)
    print_page(
        page,
        ("table", "key", "state", "tries", "next try", "sqlstate", "fingerprint", "message"),
        [
            (
                letter.table,
                format_key(letter.key),
                letter.state,
                str(letter.attempts),
                format_time(letter.next_retry_at),
                letter.sqlstate,
                letter.fingerprint,
                _short(letter.message),
            )
            for letter in page.letters
        ],
        nothing="no refused rows",
        as_json=as_json,
        summary=None if page.next is None else f"more: --after '{page.next}'",
        spare=("tries", "sqlstate", "next try", "fingerprint"),
    )


@app.command("show", epilog=STATUS)
@errors_printed
def show_failure(
    graph: GraphArgument,
    table: Annotated[str, typer.Argument(metavar="TABLE", help="A table of the graph-db.")],
    key: Annotated[list[str], typer.Argument(metavar="KEY", help="The row's key, part by part.")],
    as_json: JsonOption = False,
) -> None:
    """Show why one row was refused."""
    from syncline.messages.operator import ListFailuresInput
    from syncline.operator.dead_letters import DeadLetterPage

    page = ask(ListFailuresInput(graph=graph, table=table, key=tuple(key)), DeadLetterPage)
    if not page.letters:
        exit_nothing_matched(
            f"{table} {format_key(key)} is not a refused row. `syncline explain` says where it is."
        )
    [letter] = page.letters
    if as_json:
        typer.echo(letter.model_dump_json(indent=2))
        return
    for field, value in letter.model_dump(mode="json").items():
        shown = format_key(value) if field == "key" else value
        typer.echo(f"{field:<15} {'-' if shown is None else one_line(str(shown))}")


@app.command("retry", epilog=STATUS)
@errors_printed
def retry_failures(
    graph: GraphArgument,
    reason: ReasonOption,
    table: TableArgument = None,
    key: KeyArgument = None,
    fingerprint: FingerprintOption = None,
    everything: AllOption = False,
    who: WhoOption = None,
    timeout: TimeoutOption = SECONDS,
    as_json: JsonOption = False,
) -> None:
    """Have the next cycle try refused rows again, with all their tries before them.

    A row, a table, --fingerprint or --all: exactly one. Put `--` before a key that begins with `-`.
    """
    from syncline.messages.operator import RetryFailuresInput

    selected = _selected(graph, table, key, fingerprint, everything, who, reason)
    _act(RetryFailuresInput.model_validate(selected), timeout, as_json)


@app.command("discard", epilog=STATUS)
@errors_printed
def discard_failures(
    graph: GraphArgument,
    reason: ReasonOption,
    table: TableArgument = None,
    key: KeyArgument = None,
    fingerprint: FingerprintOption = None,
    everything: AllOption = False,
    who: WhoOption = None,
    timeout: TimeoutOption = SECONDS,
    as_json: JsonOption = False,
) -> None:
    """Give up the refused versions of rows: only a newer version of a row will be tried.

    A row, a table, --fingerprint or --all: exactly one. Put `--` before a key that begins with `-`.
    """
    from syncline.messages.operator import DiscardFailuresInput

    selected = _selected(graph, table, key, fingerprint, everything, who, reason)
    _act(DiscardFailuresInput.model_validate(selected), timeout, as_json)


@app.command("audit", epilog=STATUS)
@errors_printed
def show_audit(
    graph: GraphArgument,
    limit: LimitOption = 100,
    before: BeforeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what people did by hand, newest first."""
    from syncline.messages.operator import ListAuditInput
    from syncline.operator.dead_letters import AuditPage

    page = ask(ListAuditInput(graph=graph, limit=limit, before=before), AuditPage)
    print_page(
        page,
        ("at", "who", "starter", "action", "rows", "what", "reason"),
        [
            (
                format_time(entry.at),
                entry.who,
                entry.starter or "-",
                entry.action,
                str(entry.rows),
                " ".join([entry.table or entry.fingerprint or "all", format_key(entry.key or ())]),
                entry.why,
            )
            for entry in page.entries
        ],
        nothing="nothing was done by hand",
        as_json=as_json,
        spare=("starter", "rows"),
        summary=None if page.next is None else f"more: --before {page.next}",
    )


def _selected(
    graph: str,
    table: str | None,
    key: list[str] | None,
    fingerprint: str | None,
    everything: bool,
    who: str | None,
    reason: str,
) -> dict[str, object]:
    return {
        "graph": graph,
        "table": table,
        "key": key or None,
        "fingerprint": fingerprint,
        "everything": everything,
        "who": os_user() if who is None else who,
        "why": reason,
    }


def _act(request: "RetryFailuresInput | DiscardFailuresInput", timeout: float, as_json: bool) -> None:
    from syncline.messages.operator import FailuresActed

    done = ask(request, FailuresActed, seconds=timeout)
    if as_json:
        typer.echo(done.model_dump_json(indent=2))
    if not done.rows:
        exit_nothing_matched("No refused row matched, so nothing was done.")
    if not as_json:
        typer.echo(request.outcome(done))


def _short(message: str) -> str:
    return message if len(message) <= 100 else f"{message[:99]}…"
