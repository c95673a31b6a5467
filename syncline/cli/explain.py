"""`syncline explain`: where one row is, and what keeps it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from syncline.cli.operators import GraphArgument, JsonOption, ask, format_key, format_time
from syncline.cli.output import EXIT_FAILED, errors_printed, one_line

if TYPE_CHECKING:
    from syncline.operator.explanation import Explanation, InVectorStore

__all__ = ["explain"]


@errors_printed
def explain(
    graph: GraphArgument,
    table: Annotated[
        str, typer.Argument(metavar="TABLE", help="Its name in the graph-db or in the write-db.")
    ],
    key: Annotated[list[str], typer.Argument(metavar="KEY", help="The row's key, part by part.")],
    as_json: JsonOption = False,
) -> None:
    """Say where one row is in each store, and what keeps it: the first line is the answer.

    Put `--` before a key that begins with `-`.
    """
    from syncline.messages.operator import ExplainRowInput
    from syncline.operator.explanation import Explanation

    found = ask(ExplainRowInput(graph=graph, table=table, key=tuple(key)), Explanation)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        typer.echo(one_line(f"{found.table} {format_key(found.key)}: {found.verdict}"))
        for name, value in _details(found):
            typer.echo(f"{name:<18} {one_line(value)}")
    if found.state == "unknown_key":
        raise typer.Exit(EXIT_FAILED)


def _details(row: "Explanation") -> Iterator[tuple[str, str]]:
    write, graph = row.write, row.graph
    yield "state", row.state
    if write.exists:
        yield (
            "write-db",
            f"version {write.version}" + ("" if write.belongs else ", kept out by the table map"),
        )
    else:
        yield "write-db", "-" if write.deleted_at is None else f"deleted {format_time(write.deleted_at)}"
    if write.pending:
        yield "read by a cycle", "not yet" + (", held back by an open transaction" if write.held_back else "")
    # A row that was there before its capture has version 0.
    known = [("version", graph.version), ("id", graph.id)]
    said = ", ".join(f"{name} {value}" for name, value in known if value is not None)
    yield "graph-db", (said or "there") if graph.exists else "-"
    if graph.synced_by is not None:
        by = graph.synced_by
        yield "brought by", f"{by.provider} {by.provider_version or ''}"
        yield "in run", f"{by.run_id} of {by.workflow_id}, attempt {by.attempt}, {format_time(by.taken_at)}"
    if row.parked is not None:
        yield "waits for", f"{row.parked.waits_for_table} {format_key([row.parked.waits_for_key])}"
    for wait in row.waits:
        yield f"{wait.name} waits", f"for {wait.waits_for_table} {format_key([wait.waits_for_key])}"
    if row.waits_in_all > len(row.waits):
        yield "", f"and {row.waits_in_all - len(row.waits)} more"
    for part in row.waiting_for_it:
        since = format_time(part.since)
        yield "waiting for it", f"{part.waiting} {part.table} {part.name or ''} since {since}"
    if row.requeued is not None:
        yield "asked for again", f"{row.requeued.reason}, {format_time(row.requeued.queued_at)}"
    if row.dead_letter is not None:
        letter = row.dead_letter
        yield "refused", f"[{letter.sqlstate}] {letter.message}"
        yield (
            "tries",
            f"{letter.attempts}, next {format_time(letter.next_retry_at)}, fingerprint {letter.fingerprint}",
        )
    if row.discarded is not None:
        yield "discarded", f"{format_time(row.discarded.at)} by {row.discarded.who}: {row.discarded.why}"
    for vector in (row.vector, row.second):
        if vector is not None:
            yield from _vector_details(vector)


def _vector_details(vector: "InVectorStore") -> Iterator[tuple[str, str]]:
    if not vector.written:
        known = "not written" if vector.wanted else "none wanted"
    else:
        known = f"written by {vector.embedding}" + ("" if vector.current else ", of an older text")
    if vector.point is not None:
        known += ", the point is " + ("there" if vector.point else "not there")
    yield f"vector, {vector.collection}", known
    if vector.problem is not None:
        yield "vector store", vector.problem
    if vector.queued_at is not None:
        queued = format_time(vector.queued_at)
        yield "queued", f"{queued}, tries {vector.attempts}: {vector.error or 'no error'}"
    if vector.delayed_since is not None:
        yield "delayed", f"since {format_time(vector.delayed_since)}: {vector.delay_error}"
