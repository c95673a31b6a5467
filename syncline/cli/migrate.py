"""`syncline migrate`: bring every schema up to date."""

from typing import TYPE_CHECKING

import typer

from syncline.cli.operators import JsonOption, print_json_list, run
from syncline.cli.output import errors_printed

if TYPE_CHECKING:
    from syncline.cli.answers import Migrated

__all__ = ["migrate"]


@errors_printed
def migrate(as_json: JsonOption = False) -> None:
    """Create or upgrade the control plane and the schemas of every graph. Doing it again changes nothing."""
    done = run(_migrate(quiet=as_json))
    if as_json:
        print_json_list(done)


async def _migrate(*, quiet: bool) -> "list[Migrated]":
    from syncline.cli.answers import Migrated
    from syncline.cli.target import find_settings
    from syncline.control.services import Services

    done: list[Migrated] = []

    def report(graph: str | None, revisions: list[str]) -> None:
        done.append(Migrated(graph=graph, revisions=tuple(revisions)))
        if not quiet:
            what = "control plane" if graph is None else f"graph {graph}"
            typer.echo(f"{what}: {', '.join(revisions) if revisions else 'up to date'}")

    async with Services.open(find_settings()) as services:
        report(None, await services.prepare_control())
        for graph in await services.graphs.list():
            report(graph.slug, await services.prepare_graph(graph))
    return done
