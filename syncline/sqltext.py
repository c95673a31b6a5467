"""SQL as text: templates in `.sql` files, and the quoting of what goes into them."""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from string import Template
from typing import Protocol

__all__ = ["Statements", "array_text", "literal", "quoted", "statements_of"]


def quoted(name: str) -> str:
    """Return a Postgres identifier. Always in quotes: which words need them differs between releases."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def literal(text: str) -> str:
    """Return the inside of a Postgres string literal."""
    return text.replace("'", "''")


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


def statements_of(package: str) -> Statements:
    """Return the files `sql/<name>.sql` of a package, without their comments; each is read once."""

    @cache
    def template(name: str) -> Template:
        text = files(package).joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")
        return _SqlTemplate("\n".join(line for line in text.splitlines() if not line.startswith("--")))

    def statement(name: str, /, **fragments: str) -> str:
        return template(name).substitute(fragments)

    return statement
