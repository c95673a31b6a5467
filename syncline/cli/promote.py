"""`syncline provider promote`: a graph's shadow takes over."""

from typing import TYPE_CHECKING, Annotated

import typer

from syncline.cli.columns import one_line
from syncline.cli.operators import GraphArgument, JsonOption, TimeoutOption, ask, os_user
from syncline.cli.sentences import errors_as_sentences

if TYPE_CHECKING:
    from syncline.operations.requests import Promotion

__all__ = ["promote"]


@errors_as_sentences
def promote(
    graph: GraphArgument,
    why: Annotated[str, typer.Option(help="Why, for the audit.")] = "promote",
    who: Annotated[
        str | None, typer.Option(help="Who does this, for the audit; the user of this process when left out.")
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Even if the shadow is behind, or lacks what the live schema has."),
    ] = False,
    timeout: TimeoutOption = 180.0,
    as_json: JsonOption = False,
) -> None:
    """Swap a graph and its shadow: providers, schemas of the graph-db, prefixes of the collections.

    What was live is the shadow then, so that it can be promoted back.
    """
    from syncline.operations.requests import PromoteShadowInput, Promotion

    request = PromoteShadowInput(graph=graph, force=force, who=who or os_user(), why=why)
    done = ask(request, Promotion, seconds=timeout)
    if as_json:
        typer.echo(done.model_dump_json(indent=2))
    else:
        _print(done)


def _print(done: "Promotion") -> None:
    if done.resumed:
        typer.echo("A promotion that was cut off is finished now; nothing was swapped again.")
    for reason in done.despite:
        typer.echo(one_line(f"Although {reason}"), err=True)
    typer.echo(
        one_line(f"{done.graph}: served by {done.provider_id}, its shadow by {done.shadow_provider_id}")
    )
    typer.echo(one_line(f"its collections in Qdrant begin with {done.qdrant_prefix} now"))
