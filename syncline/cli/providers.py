"""`syncline providers`: which providers are installed where, and which graphs use them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from syncline.cli.columns import one_line, print_table
from syncline.cli.operators import JsonOption, run, told_at
from syncline.cli.sentences import errors_as_sentences

if TYPE_CHECKING:
    from syncline.fleet import Fleet, ProviderUse

__all__ = ["providers"]


@errors_as_sentences
def providers(
    timeout: Annotated[float, typer.Option(metavar="S", min=1, help="Seconds to wait for a worker.")] = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Show every provider: its versions, the workers that have it, the graphs that name it; then the workers.

    What graphs name and no worker has comes first. A worker answers; it needs no plugin itself.
    """
    fleet = run(_fleet(timeout))
    if as_json:
        typer.echo(fleet.model_dump_json(indent=2))
        return
    missing_first = sorted(fleet.providers, key=lambda use: (bool(use.installed), use.kind, use.id))
    header = ("kind", "provider", "version", "API", "from", "workers", "graphs", "used by")
    lines = [line for use in missing_first for line in _lines(use)]
    print_table(header, lines, styles={"installed nowhere": "bold red"})
    if fleet.undeclared:
        named = _named(fleet.undeclared_names, fleet.undeclared)
        typer.echo(one_line(f"{fleet.undeclared:,} graphs declare no sync provider: {named}"))
    for slug, problem in fleet.refused.items():
        typer.echo(one_line(f"{slug}: {problem}"), err=True)
    typer.echo()
    print_table(
        ("worker", "task queue", "Syncline", "Python", "since", "left out"),
        (
            (
                worker.identity,
                worker.task_queue,
                worker.syncline_version,
                worker.python_version,
                told_at(worker.started_at),
                "; ".join(worker.problems),
            )
            for worker in fleet.worker_list
        ),
    )
    if not fleet.workers:
        typer.echo("No worker has told about itself yet; `syncline doctor` says why.", err=True)


async def _fleet(seconds: float) -> "Fleet":
    from uuid import uuid4

    from syncline import names
    from syncline.by_hand import run_by_hand
    from syncline.cli.target import connect_temporal, find_task_queue
    from syncline.fleet import Fleet

    client = await connect_temporal(prepare=False)
    return await run_by_hand(
        client,
        names.DESCRIBE_FLEET,
        Fleet,
        workflow_id=f"describe-fleet/{uuid4().hex[:8]}",
        task_queue=find_task_queue(),
        seconds=seconds,
        summary="Describe the workers and their providers",
    )


def _lines(use: "ProviderUse") -> Iterator[tuple[str, ...]]:
    graphs = (f"{use.graphs:,}", _named(use.graph_names, use.graphs))
    if not use.installed:
        yield (use.kind, use.id, "-", "-", "installed nowhere", "0", *graphs)
    for number, found in enumerate(use.installed):
        used = ("", "") if number else graphs
        facts = (found.version, str(found.api_version), found.distribution, f"{found.workers:,}")
        yield (use.kind, use.id, *facts, *used)


def _named(names: tuple[str, ...], number: int, most: int = 5) -> str:
    more = f" and {number - most:,} more" if number > most else ""
    return ", ".join(names[:most]) + more
