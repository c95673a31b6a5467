"""Map proposal: a map document from the catalogs of both databases, with comments where it did not decide."""

from collections.abc import Iterator
from typing import Final

import yaml

from syncline.capture.install.link_checks import filling
from syncline.errors import InputInvalid
from syncline.maps.document import VERSION
from syncline.maps.forms import RESERVED
from syncline.maps.tenants import NO_TENANT
from syncline.operator.map_decisions import COMPOSITE_KEYS, KEY_TYPES, Decisions, Proposed, Side
from syncline.operator.map_tenants import ProposedTenants, within_tenant

__all__ = ["propose_map"]

_TEXTS: Final = ("title", "name", "content", "text", "body", "description", "summary", "concept")
"""Names of columns whose text a vector may be made of."""


def propose_map(
    name: str,
    write: Side,
    graph: Side,
    *,
    key_types: frozenset[str] = KEY_TYPES,
    composite_keys: bool = COMPOSITE_KEYS,
    tenant: str | None = None,
) -> str:
    """Return a map document that syncs what can be synced of the write-db's tables.

    With `tenant`, the column that says whose a row is, each graph has the rows of one.

    Where the graph-db has tables of the same names, with or without a prefix that all sources share, their
    columns are those that are copied. What it leaves out it says in a comment. It reads back as it is. Raise
    InputInvalid if nothing can be synced.
    """
    tenants = None
    if tenant is not None:
        write, tenants = within_tenant(write, tenant)
    decided = Decisions(write, graph, key_types, composite_keys=composite_keys)
    decided.decide()
    return _Proposal(decided, tenants).document(name)


class _Proposal:
    """The text of a proposal."""

    def __init__(self, decided: Decisions, tenants: ProposedTenants | None) -> None:
        self._decided, self._tenants = decided, tenants
        self._write, self._graph = decided.write, decided.graph

    def document(self, name: str) -> str:
        """Return the YAML."""
        lines = [
            f"# Proposed from schema {self._write.catalog.schema} of the write-db"
            + (f" and schema {self._graph.catalog.schema} of the graph-db." if self._graph.tables else "."),
            "# Read the comments, then: syncline map check FILE",
            f"version: {VERSION}",
            f"name: {_scalar(name)}",
        ]
        if self._tenants is not None:
            lines += [
                '# A graph names its own: "options": {"map": …, "tenant": …}.',
                f"tenant: {_tenant(self._tenants.column, self._tenants.type)}",
            ]
        if self._decided.prefix:
            lines.append(f"# All sources begin with {self._decided.prefix}: targets are named without it.")
        synced = self._decided.synced()
        left = [table for table in self._decided.all.values() if table.refused is not None]
        if not synced:
            schema = self._write.catalog.schema
            why = [_one_line(f"{table.source}: {table.refused}") for table in left] or ["There is none."]
            raise InputInvalid(f"No table of schema {schema} of the write-db can be synced. {' '.join(why)}")
        lines.append("tables:")
        for table in synced:
            lines += ["", *self._table(table)]
        if left:
            lines += ["", "# Not proposed:"]
            lines += [f"#   {table.source}: {table.refused}" for table in left]
        unused = sorted(self._graph.tables.keys() - self._decided.used())
        if unused:
            lines += ["", "# In the graph-db, and of no source above:", *(f"#   {each}" for each in unused)]
        # Names may have line breaks, which would end a comment; where they are values they are escaped.
        return "\n".join(_one_line(line) for line in lines) + "\n"

    def _table(self, table: Proposed) -> Iterator[str]:
        yield f"  {_scalar(table.name)}:"
        for remark in table.remarks:
            yield f"    # {remark}"
        if self._graph.tables and table.name not in self._graph.tables:
            yield f"    # The graph-db has no table {table.name}: `syncline map check` prints the DDL."
        yield f"    source: {_scalar(table.source)}"
        yield from self._whose(table)
        key = ", ".join(_scalar(name) for name in table.key)
        if table.key != ("id",):
            yield f"    key: {key}" if len(table.key) == 1 else f"    key: [{key}]"
        if self._decided.same_id(table):
            yield "    id: same" if table.key == ("id",) else f"    id: {{rule: same, column: {key}}}"
        target = self._graph.tables.get(table.name)
        if target is not None and "sync_version" not in target.columns:
            yield "    stamped: false"
        yield from self._types(table)
        if table.references:
            yield "    references:"
            for column, parent in table.references.items():
                yield f"      {_scalar(column)}: {self._reference(table, column, parent)}"
        yield from self._columns(table)
        for number, column in enumerate(table.arrays):
            if number == 0:
                yield "    links:"
            links, owner, member = self._decided.link_table(table, column)
            parent = self._decided.all[table.arrays[column]].name
            yield f"      {_scalar(links)}:"
            yield f"        source: {_scalar(column)}"
            yield f"        owner: {_scalar(owner)}"
            yield f"        member: {_scalar(member)}"
            yield f"        parent: {_scalar(parent)}"
            yield from self._link_columns(links, (owner, member))
        yield from self._suggestions(table)

    def _whose(self, table: Proposed) -> Iterator[str]:
        """Yield the tenant of a table that has another one than the map, or none."""
        if self._tenants is None or table.source not in self._tenants.others:
            return
        own = self._tenants.others[table.source]
        if own is None:
            yield f"    tenant: {NO_TENANT}  # every graph has all of its rows"
        else:
            yield f"    tenant: {_tenant(own, self._tenants.type)}"

    def _link_columns(self, links: str, ends: tuple[str, str]) -> Iterator[str]:
        """Yield values of the further columns of a link table; as comments where NULL may stay."""
        found = self._graph.catalog.tables.get(links)
        columns = () if found is None else found.columns.values()
        more = [each for each in columns if each.name not in ends and not each.filled]
        if not more:
            return
        needed = any(column.not_null for column in more)
        yield "        columns:" if needed else "        # columns:"
        for column in more:
            if column.not_null:
                yield f"          {filling(column)}  # NOT NULL without a default: the value of a new link"
            else:
                yield f"        #   {filling(column)}"

    def _types(self, table: Proposed) -> Iterator[str]:
        """Yield the types of keys, references and arrays that are no texts."""
        named = {
            name: self._write.type_of(table.source, name)
            for name in dict.fromkeys([*table.key, *table.references, *table.arrays])
        }
        other = {name: kind for name, kind in named.items() if kind not in ("text", "text[]")}
        if other:
            yield "    types:"
            yield from (f"      {_scalar(name)}: {_scalar(kind)}" for name, kind in other.items())

    def _reference(self, table: Proposed, column: str, parent: str) -> str:
        name = _scalar(self._decided.all[parent].name)
        return f"{{parent: {name}, required: false}}" if column in table.optional else name

    def _columns(self, table: Proposed) -> Iterator[str]:
        taken = {*table.key, *table.references, *table.arrays}
        columns = [
            name
            for name in self._write.tables[table.source].columns
            if name not in taken and not name.startswith(RESERVED)
        ]
        if not columns:
            return
        target = self._graph.tables.get(table.name)
        lines: list[str] = []
        for name in columns:
            note = table.notes.get(name)
            line = f"{_scalar(name)}: {_scalar(self._write.type_of(table.source, name))}"
            if name in table.left:
                lines.append(f"      # {line}  # {table.left[name]}")
                continue
            if self._decided.identified(table) and not self._decided.same_id(table) and name in ("id", "key"):
                lines.append(f"      # {line}  # {name} of the target is what the engine makes of the key")
            elif target is not None and name not in target.columns:
                lines.append(f"      # {line}  # the graph-db has no such column")
            elif target is not None and target.columns[name].generated:
                lines.append(f"      # {line}  # the graph-db generates it")
            else:
                lines.append(f"      {line}" + ("" if note is None else f"  # {note}"))
        copied = any(not line.lstrip().startswith("#") for line in lines)
        yield "    columns:" if copied else "    columns: {}"
        yield from lines

    def _suggestions(self, table: Proposed) -> Iterator[str]:
        """Yield as comments what only the makers of the tables can know."""
        source, target = self._write.tables[table.source], self._graph.tables.get(table.name)
        if target is not None:
            filled = {"id", "key", *source.columns}
            for column in target.columns.values():
                if column.name in filled or column.name.startswith(RESERVED) or column.generated:
                    continue
                kind = "NOT NULL, and of" if column.not_null else "of"
                counter = " A counter? `stats` keeps counts, in the row too." * column.name.endswith(
                    ("_count", "_total")
                )
                yield f"    # {column.name} of the graph-db is {kind} no source column.{counter}"
        text = next((name for name in _TEXTS if name in source.columns), None)
        if text is not None and self._decided.identified(table):
            yield "    # vector:  # to search it by meaning"
            yield f"    #   collection: {_scalar(table.name)}"
            yield f"    #   text: t.{_scalar(text)}"
            yield f"    #   payload: {{{_scalar(text)}: t.{_scalar(text)}}}"


def _tenant(column: str, type_: str) -> str:
    if type_ == "text" and column != NO_TENANT:
        return _scalar(column)
    return f"{{column: {_scalar(column)}, type: {_scalar(type_)}}}"


def _scalar(text: str) -> str:
    """Return a text as YAML in one line."""
    style = None if text.isprintable() else '"'
    written: str = yaml.safe_dump(text, width=10_000, allow_unicode=True, default_style=style)
    return written.removesuffix("...\n").rstrip("\n")


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
