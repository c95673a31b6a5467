"""`syncline runs`: the last runs of a graph, and how each came and ended."""

from typing import TYPE_CHECKING, Annotated

import typer

from syncline.cli.columns import print_table
from syncline.cli.completion import SlugArgument
from syncline.cli.operators import JsonOption, print_json_list, run, say_nothing_matched, told_at
from syncline.cli.sentences import errors_as_sentences
from syncline.cli.status import STANDING_STYLES
from syncline.cli.telling import told_seconds
from syncline.quoting import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from syncline.runs import RunEntry

__all__ = ["runs"]


@errors_as_sentences
def runs(
    graph: SlugArgument,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, at most.")] = 20,
    failed: Annotated[bool, typer.Option("--failed", help="Only those that did not succeed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List a graph's last runs, newest first: what started each, how it ended, what it wrote.

    Needs Temporal only, no worker. How the cycle ended is read for the first hundred.
    """
    found = run(_runs(graph, limit, failed))
    if as_json:
        print_json_list(found)
    elif found:
        header = ("started", "by", "run", "cycle", "provider", "rows", "failures", "took", "id", "error")
        print_table(header, map(_line, found), styles=STANDING_STYLES)
    if not found:
        kind = "run that did not succeed" if failed else "run"
        say_nothing_matched(f"Temporal keeps no {kind} of graph {shown(graph)}.")


async def _runs(slug: str, limit: int, failed: bool) -> "Sequence[RunEntry]":
    from syncline.cli.target import connect_temporal
    from syncline.runs import run_entries

    return await run_entries(await connect_temporal(prepare=False), slug, limit=limit, failed=failed)


def _line(found: "RunEntry") -> tuple[str, ...]:
    listed = found.run
    return (
        told_at(listed.started_at),
        listed.started_by,
        listed.status,
        found.cycle or "-",
        f"{listed.provider or '-'} {listed.provider_version or ''}".rstrip(),
        "-" if listed.rows is None else f"{listed.rows:,}",
        "-" if listed.failures is None else f"{listed.failures:,}",
        told_seconds(listed.seconds),
        f"{listed.workflow_id} {listed.run_id}",
        found.error or ("" if found.stall is None else f"{found.stall.problem} {found.stall.fix}"),
    )
