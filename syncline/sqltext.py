"""SQL as text: templates in `.sql` files, and the quoting of what goes into them."""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from string import Template
from typing import Protocol

__all__ = ["Statements", "array_text", "literal", "quoted", "statements_of", "string_literal"]


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
    """The SQL files of a package, by their names."""

    def __call__(self, name: str, /, **fragments: str) -> str:
        """Return file `name` with each `@{fragment}` filled in; KeyError if one is missing."""


def statements_of(package: str, *, comments: bool = False) -> Statements:
    """Return the files `sql/<name>.sql` of a package; each is read once.

    Without their comments, unless people are to read them too.
    """

    @cache
    def template(name: str) -> Template:
        text = files(package).joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if comments or not line.startswith("--")]
        return _SqlTemplate("\n".join(lines))

    def statement(name: str, /, **fragments: str) -> str:
        return template(name).substitute(fragments)

    return statement
