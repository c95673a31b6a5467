"""A graph's record, as commands print it, and the rules of its vectors, as options give them."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from syncline.cli.output import print_fields
from syncline.errors import ConfigurationError
from syncline.quoting import counted

if TYPE_CHECKING:
    from syncline.control.graphs import Graph

__all__ = ["print_graph", "read_json", "vector_rules"]


def print_graph(graph: "Graph", *, as_json: bool) -> None:
    """Print a graph's record, one field a line or as JSON."""
    if as_json:
        typer.echo(graph.model_dump_json(indent=2))
        return
    print_fields(list(_fields(graph)))


def _fields(graph: "Graph") -> Iterator[tuple[str, str]]:
    for field, value in graph.model_dump(mode="json").items():
        if field == "vectors":
            shown = _vectors_in_words(graph)
        else:
            shown = json.dumps(value) if isinstance(value, dict | bool) else value
        yield field, "-" if shown is None else str(shown)


def _vectors_in_words(graph: "Graph") -> str | None:
    """Return the rules of vectors that are set, in words; None if none is."""
    rules, told = graph.vectors, []
    if rules.tokens_per_day is not None:
        told.append(f"at most {counted(rules.tokens_per_day, 'token')} a day (UTC)")
    kept = {name: getattr(rules.collections, name) for name in rules.collections.given}
    told += [f"{name} {str(value).lower()}" for name, value in kept.items()]
    return ", ".join(told) or None


def vector_rules(tokens_per_day: int | None, collections: str | None) -> dict[str, object]:
    """Return the rules of vectors that are given, or raise ConfigurationError; 0 tokens: no limit."""
    rules: dict[str, object] = {}
    if tokens_per_day is not None:
        rules["tokens_per_day"] = tokens_per_day or None
    if collections is not None:
        rules["collections"] = read_json("--collections", collections)
    return rules


def read_json(option: str, typed: str) -> object:
    """Return what the JSON of an option says, or raise ConfigurationError."""
    try:
        said: object = json.loads(typed)
    except ValueError as error:
        raise ConfigurationError(f"{option} is not JSON: {error}") from None
    return said
