"""`syncline sample …`: load sample data into a graph's write-db, where any sync picks it up."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from syncline.cli.operators import JsonOption, run
from syncline.cli.output import errors_printed

if TYPE_CHECKING:
    from syncline.cli.answers import Loaded

__all__ = ["app"]

app = typer.Typer(help="Load sample data into a graph's write-db.", no_args_is_help=True)

GraphOption = Annotated[str, typer.Option(metavar="GRAPH", help="Slug or id of the graph to load it into.")]


@app.command()
@errors_printed
def world(graph: GraphOption, as_json: JsonOption = False) -> None:
    """Load the world: ISO countries, subdivisions, languages, currencies and scripts."""
    _load("world", graph, None, as_json=as_json)


@app.command()
@errors_printed
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
    as_json: JsonOption = False,
) -> None:
    """Load WordNet 3.1: 117,000 synsets and their pointers.

    `make wordnet` unpacks the files to .wordnet/dict.
    """
    _load("wordnet", graph, dict_dir, as_json=as_json)


def _load(name: str, graph: str, dict_dir: Path | None, *, as_json: bool) -> None:
    loaded = run(_load_sample(name, graph, dict_dir))
    if as_json:
        typer.echo(loaded.model_dump_json(indent=2))
        return
    width = max(map(len, loaded.rows), default=0)
    for table, count in loaded.rows.items():
        typer.echo(f"{table:<{width}}  {count:>9,}")
    total = sum(loaded.rows.values())
    typer.echo(f"{total:,} rows written in {loaded.seconds:.1f} s, to the write-db of graph {loaded.graph}")


async def _load_sample(name: str, reference: str, dict_dir: Path | None) -> "Loaded":
    import time

    from syncline.cli.answers import Loaded
    from syncline.cli.target import find_settings
    from syncline.control.services import Services
    from syncline.samples import load_sample, open_sample

    async with Services.open(find_settings()) as services:
        graph = await services.graphs.get(reference)
        target = services.write_schema(graph)
        began = time.monotonic()
        rows = await load_sample(target.store, target.schema, open_sample(name, dict_dir=dict_dir))
        return Loaded(graph=graph.slug, rows=dict(rows), seconds=time.monotonic() - began)
