"""What each statement read of each table: counted by Postgres within its own transaction, whoever sends it.

Plans are those that the engine gets: over its temporary tables, after its settings, and generic ones where it has them.
A statement is known by its name in the `sql/` files, which is found by its text.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import asyncpg
import pytest

from syncline.sql import named_statements

__all__ = ["StatementReads", "name_of", "names_in"]

_PACKAGES = ("syncline.engine", "syncline.verify", "syncline.shadow", "syncline.capture.listen")
_METHODS = ("execute", "fetch", "fetchrow", "fetchval", "copy_from_query", "copy_to_table")
_COUNTS = """
SELECT c.relname AS name, pg_stat_get_xact_tuples_returned(c.oid) + coalesce(
           (SELECT sum(pg_stat_get_xact_tuples_returned(i.indexrelid)) FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid), 0
       )::bigint AS rows
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'kg' AND c.relkind IN ('r', 'p')
"""
_OF_CATALOGS = """
SELECT c.relname AS name, pg_stat_get_xact_tuples_returned(c.oid) + coalesce(
           (SELECT sum(pg_stat_get_xact_tuples_returned(i.indexrelid)) FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid), 0
       )::bigint AS rows
FROM pg_catalog.pg_class c
WHERE c.relname IN ('pg_trigger', 'pg_attribute', 'pg_proc', 'pg_inherits', 'pg_constraint', 'pg_depend', 'pg_description', 'pg_attrdef')
  AND c.relnamespace = 'pg_catalog'::regnamespace
"""
_CONTROLS = re.compile(
    r"\s*(BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|LISTEN|UNLISTEN|SET|RESET|CLOSE|DEALLOCATE|DISCARD)\b"
)


@dataclass
class StatementReads:
    """The most that one execution of a statement read of one table: (statement, table) -> rows, and index entries."""

    most: dict[tuple[str, str], int] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    catalogs: bool = False
    """Whether to count what is read of the catalogs, not of schema kg."""

    def most_read(self) -> dict[str, tuple[int, str]]:
        """Return statement -> the rows that it read of the table of which it read most."""
        found: dict[str, tuple[int, str]] = dict.fromkeys(self.seen, (0, ""))
        for (name, table), rows in self.most.items():
            found[name] = max(found[name], (rows, table))
        return dict(sorted(found.items()))

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what every connection of this process reads of these tables."""
        own: set[asyncpg.Connection] = set()
        with pytest.MonkeyPatch.context() as patch:
            for method in _METHODS:
                patch.setattr(
                    asyncpg.Connection, method, self._counted(getattr(asyncpg.Connection, method), own)
                )
            yield

    def _counted(self, original: Any, own: set[asyncpg.Connection]) -> Any:
        fetch = asyncpg.Connection.fetch

        async def counts(connection: asyncpg.Connection) -> dict[str, int]:
            query = _OF_CATALOGS if self.catalogs else _COUNTS
            return {row["name"]: row["rows"] for row in await fetch(connection, query)}

        async def call(connection: asyncpg.Connection, query: Any, *args: Any, **options: Any) -> Any:
            if connection in own or _CONTROLS.match(str(query)):
                return await original(connection, query, *args, **options)
            own.add(connection)
            try:
                if connection.is_in_transaction():
                    before = await counts(connection)
                    result = await original(connection, query, *args, **options)
                    after = await counts(connection) if connection.is_in_transaction() else before
                else:
                    # Counted before they are sent to the other counters, which a transaction's end may do.
                    async with connection.transaction():
                        before = await counts(connection)
                        result = await original(connection, query, *args, **options)
                        after = await counts(connection)
            finally:
                own.discard(connection)
            # What is tried within a subtransaction is an argument of the function that tries it.
            self._note(str(args[0] if "syncline.try_part(" in str(query) else query), before, after)
            return result

        return call

    def _note(self, query: str, before: dict[str, int], after: dict[str, int]) -> None:
        name = name_of(query)
        self.seen.add(name)
        for table, rows in after.items():
            read = rows - before.get(table, 0)
            if read > 0:
                self.most[name, table] = max(read, self.most.get((name, table), 0))


@cache
def _templates() -> list[tuple[str, str, re.Pattern[str]]]:
    found = []
    for package in _PACKAGES:
        for name, lines in named_statements(package).items():
            text = "\n".join(line for line in lines if not line.startswith("--")).strip()
            first, *fragments = re.split(r"@\{[a-z_]+\}", text)
            pattern = ".*?".join(re.escape(part) for part in (first, *fragments))
            found.append(
                (f"{package.removeprefix('syncline.')}/{name}", text, re.compile(pattern, re.DOTALL))
            )
    # The more of a text is literal, the more it says; expressions are no statements.
    said = {name: len(re.sub(r"@\{[a-z_]+\}", "", text)) for name, text, _ in found}
    return sorted((each for each in found if said[each[0]] > 24), key=lambda each: -said[each[0]])


@cache
def name_of(query: str) -> str:
    """Return the name of the statement with this text, else the beginning of the text."""
    text = query.strip().rstrip(";").strip()
    for name, _, pattern in _templates():
        if pattern.fullmatch(text):
            return name
    # Several in one message, or one within another.
    for name, template, pattern in _templates():
        if len(template) > 60 and pattern.search(text):
            return f"{name} …"
    return re.sub(r"\s+", " ", text)[:60]


def names_in(package: str) -> set[str]:
    """Return the names of a package's statements."""
    return {name for name, _, _ in _templates() if name.startswith(f"{package.removeprefix('syncline.')}/")}
