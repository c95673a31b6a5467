"""`syncline usage`: what embeddings used, by month, graph and run, and what is left of budgets."""

from typing import TYPE_CHECKING, Annotated, Final

import typer

from syncline.cli.operators import JsonOption, LimitOption, OptionalGraphArgument, ask, format_time
from syncline.cli.output import errors_printed, print_columns

if TYPE_CHECKING:
    from syncline.messages.usage import BudgetState, UsageLine

__all__ = ["usage"]

_COUNTS: Final = ("texts", "tokens", "estimated", "requests", "refused")
_SPARE: Final = ("requests", "estimated")


@errors_printed
def usage(
    graph: OptionalGraphArgument = None,
    month: Annotated[
        str | None, typer.Option(metavar="YYYY-MM", help="Only this month, in UTC; all when left out.")
    ] = None,
    limit: LimitOption = 100,
    as_json: JsonOption = False,
) -> None:
    """List what embeddings used: texts, tokens and requests by month and graph, and a graph's newest runs.

    Tokens are those that the service counted; `estimated` are those of them that it did not count itself.
    `refused` are texts of requests that it refused or never answered.
    """
    from syncline.messages.operator import ListUsageInput
    from syncline.messages.usage import UsageReport

    report = ask(ListUsageInput(graph=graph, month=month, limit=limit), UsageReport)
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
        return
    if report.months:
        print_columns(
            ("month", "graph", "service", *_COUNTS),
            [(line.month, line.graph, line.service, *_counts(line)) for line in report.months],
            spare=_SPARE,
        )
    else:
        typer.echo("nothing was embedded")
    if report.runs:
        typer.echo()
        lines = [
            (format_time(line.last_at), line.run_id or "-", line.service, *_counts(line))
            for line in report.runs
        ]
        print_columns(("last request", "run", "service", *_COUNTS), lines, spare=_SPARE)
    if report.budgets:
        typer.echo()
        print_columns(
            ("budget of", "name", "tokens a day", "used today", "held"), map(_budget, report.budgets)
        )


def _counts(line: "UsageLine") -> tuple[str, ...]:
    return tuple(f"{getattr(line, name):,}" for name in _COUNTS)


def _budget(state: "BudgetState") -> tuple[str, ...]:
    return (state.scope, state.name, f"{state.budget:,}", f"{state.used:,}", f"{state.held:,}")
