"""SQL as text: named statements in `.sql` files, and the quoting of what goes into them."""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from string import Template
from typing import Final, Protocol

__all__ = [
    "Statements",
    "array_text",
    "literal",
    "named_statements",
    "quoted",
    "statements_of",
    "string_literal",
]

_NAME: Final = "-- name: "


def quoted(name: str) -> str:
    """Return a Postgres identifier. Always in quotes: which words need them differs between releases."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def literal(text: str) -> str:
    """Return the inside of a Postgres string literal."""
    return text.replace("'", "''")


def string_literal(text: str) -> str:
    """Return a Postgres string literal, quotes and all: the same under any `standard_conforming_strings`."""
    if "\\" not in text:
        return f"'{literal(text)}'"
    escaped = literal(text).replace("\\", "\\\\")
    return f"E'{escaped}'"


def array_text(items: Sequence[str]) -> str:
    """Return a Postgres array of texts as text."""
    escaped = (item.replace("\\", "\\\\").replace('"', '\\"') for item in items)
    return "{" + ",".join(f'"{item}"' for item in escaped) + "}"


class _SqlTemplate(Template):
    # `$1` is Postgres's; `@{name}` is ours.
    delimiter = "@"
    idpattern = r"(?!)"
    braceidpattern = r"[a-z_]+"


class Statements(Protocol):
    """The named statements of a package's `.sql` files."""

    def __call__(self, name: str, /, **fragments: str) -> str:
        """Return statement `name` with its fragments filled in; KeyError if one of them is missing."""


def statements_of(package: str, *, comments: bool = False) -> Statements:
    """Return the statements of the files `sql/*.sql` of a package: what follows each line `-- name: …`.

    Without their comments, unless people are to read them too. Each package is read once.
    """

    @cache
    def templates() -> Mapping[str, Template]:
        return {
            name: _SqlTemplate("\n".join(line for line in lines if comments or not line.startswith("--")))
            for name, lines in named_statements(package).items()
        }

    def statement(name: str, /, **fragments: str) -> str:
        return templates()[name].substitute(fragments)

    return statement


def named_statements(package: str) -> dict[str, list[str]]:
    """Return the lines of each named statement of a package, with comments; ValueError if one comes twice."""
    found: dict[str, list[str]] = {}
    for file in sorted(files(package).joinpath("sql").iterdir(), key=lambda file: file.name):
        # What stands before the first name is about the file.
        _, *parts = file.read_text(encoding="utf-8").split(_NAME)
        for part in parts:
            name, *lines = part.rstrip().splitlines()
            if name in found:
                raise ValueError(f"statement '{name}' of {package} is in two places, one of them {file.name}")
            found[name] = lines
    return found
