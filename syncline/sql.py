"""SQL text: named statements of `.sql` files, and quoting of identifiers and literals."""

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
    """Return a quoted Postgres identifier. Always in quotes: the reserved words differ between releases."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def literal(text: str) -> str:
    """Return the text escaped for the inside of a Postgres string literal."""
    return text.replace("'", "''")


def string_literal(text: str) -> str:
    """Return a Postgres string literal with quotes, valid under any `standard_conforming_strings`."""
    if "\\" not in text:
        return f"'{literal(text)}'"
    escaped = literal(text).replace("\\", "\\\\")
    return f"E'{escaped}'"


def array_text(items: Sequence[str]) -> str:
    """Return the text form of a Postgres `text[]`."""
    escaped = (item.replace("\\", "\\\\").replace('"', '\\"') for item in items)
    return "{" + ",".join(f'"{item}"' for item in escaped) + "}"


class _SqlTemplate(Template):
    # `$1` is a bind parameter of Postgres; `@{name}` is a fragment.
    delimiter = "@"
    idpattern = r"(?!)"
    braceidpattern = r"[a-z_]+"


class Statements(Protocol):
    """The named statements of a package's `.sql` files."""

    def __call__(self, name: str, /, **fragments: str) -> str:
        """Return statement `name` with its fragments filled in; KeyError if one is missing."""


@cache
def statements_of(package: str, *, comments: bool = False) -> Statements:
    """Return the statements of a package's files `sql/*.sql`: the text after each line `-- name: …`.

    Without comments, unless `comments`. Each package is read once.
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
    """Return the lines of each named statement of a package, with comments; ValueError for a duplicate."""
    found: dict[str, list[str]] = {}
    for file in sorted(files(package).joinpath("sql").iterdir(), key=lambda file: file.name):
        # The text before the first name is the file's header.
        _, *parts = file.read_text(encoding="utf-8").split(_NAME)
        for part in parts:
            name, *lines = part.rstrip().splitlines()
            if name in found:
                raise ValueError(f"statement '{name}' of {package} is defined twice, once in {file.name}")
            found[name] = lines
    return found
