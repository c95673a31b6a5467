"""Rules of SQL: what no expression or condition of a table map can have, as far as its text shows it."""

import re
from collections.abc import Iterator
from typing import Final

from syncline.maps.key_rules import Found
from syncline.maps.table_map import TableMap

__all__ = ["parameter_faults"]

_LITERAL: Final = re.compile(
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|(\$(?:[^\W\d]\w*)?\$).*?\1""",
    re.DOTALL,
)
"""A quoted text or name."""
_PARAMETER: Final = re.compile(r"\$\d+")


def parameter_faults(table: TableMap) -> Iterator[Found]:
    """Yield SQL with a parameter of its own: it would be one of the statement that it becomes part of."""
    for path, written in _written(table):
        found = _PARAMETER.search(_LITERAL.sub("''", written))
        if found is not None:
            yield (
                path,
                f"{found[0]} stands for nothing here",
                "Write the value itself, in quotes if it is a text; only an id's expression has $1, $2 …",
            )


def _written(table: TableMap) -> Iterator[tuple[tuple[str | int, ...], str]]:
    yield ("present",), table.present
    for position, column in enumerate(table.columns):
        if column.value is not None:
            yield ("columns", position, "value"), column.value
    for name, value in table.otherwise.items():
        yield ("otherwise", name), value
    for name, value in table.marked.items():
        yield ("marked", name), value
    for name, expression in table.expressions.items():
        yield ("expressions", name), expression
    for position, reference in enumerate(table.references):
        for name, expression in (reference.stub or {}).items():
            yield ("references", position, "stub", name), expression
    for position, links in enumerate(table.links):
        for name, expression in links.columns.items():
            yield ("links", position, "columns", name), expression
    if table.vector is not None:
        yield ("vector", "text"), table.vector.text
        for name, expression in table.vector.payload.items():
            yield ("vector", "payload", name), expression
    for position, stat in enumerate(table.stats.columns if table.stats else ()):
        yield ("stats", "columns", position, "value"), stat.value
