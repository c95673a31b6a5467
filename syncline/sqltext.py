"""SQL as text: templates in `.sql` files, and the quoting of what goes into them."""

from collections.abc import Callable
from functools import cache
from importlib.resources import files
from string import Template

__all__ = ["literal", "quoted", "templates_of"]


def quoted(name: str) -> str:
    """Return a Postgres identifier. Always in quotes: which words need them differs between releases."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def literal(text: str) -> str:
    """Return the inside of a Postgres string literal."""
    return text.replace("'", "''")


class _SqlTemplate(Template):
    # `$1` is Postgres's; `@{name}` is ours.
    delimiter = "@"
    idpattern = r"(?!)"
    braceidpattern = r"[a-z_]+"


def templates_of(package: str) -> Callable[[str], Template]:
    """Return a function `(name) -> template` for the files `sql/<name>.sql` of a package, comments removed.

    `template.substitute(fragment="…")` fills in `@{fragment}`, and raises KeyError for one that is missing.
    """

    @cache
    def template(name: str) -> Template:
        text = files(package).joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")
        return _SqlTemplate("\n".join(line for line in text.splitlines() if not line.startswith("--")))

    return template
