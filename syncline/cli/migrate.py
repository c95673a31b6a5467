"""`syncline migrate`: bring every schema up to date."""

import typer

from syncline.cli.sentences import errors_as_sentences

__all__ = ["migrate"]


@errors_as_sentences
def migrate() -> None:
    """Create or upgrade the control plane and the schemas of every graph. Doing it again changes nothing."""
    import asyncio

    asyncio.run(_migrate())


async def _migrate() -> None:
    from syncline.cli.target import find_settings
    from syncline.services import Services

    async with Services.open(find_settings()) as services:
        _report("control plane", await services.prepare_control())
        for graph in await services.graphs.list():
            _report(f"graph {graph.slug}", await services.prepare_graph(graph))


def _report(what: str, revisions: list[str]) -> None:
    typer.echo(f"{what}: {', '.join(revisions) if revisions else 'up to date'}")
