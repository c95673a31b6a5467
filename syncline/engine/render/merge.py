"""Merge statements: turn a stage into rows and links of the graph-db."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from syncline.engine.render.fragments import (
    Rendered,
    column,
    commas,
    link_names,
    merged_values,
)
from syncline.engine.render.identity import Identity
from syncline.engine.render.links import LinkTable
from syncline.engine.render.points import queue
from syncline.engine.render.stats import counting_columns, first_counts, merged, new_lines, touched
from syncline.engine.table_map import Links, SchemaMap, TableMap
from syncline.engine.template import sql
from syncline.maps.ids import IdRule
from syncline.maps.into import written_beside
from syncline.sql import literal, quoted

__all__ = ["EQUAL_IS_SAME", "Merging", "Ranged", "ranged"]

EQUAL_IS_SAME: Final = {
    *("boolean", "smallint", "integer", "bigint", "real", "double precision", "text", "uuid", "bytea"),
    *("date", "time", "timestamp", "timestamptz"),
}
"""Types whose `=` detects every change: for others '1 day' equals '24 hours', or there is no `=`.

jsonb is not one of them: to it, 1.5 and 1.50 are equal."""


@dataclass(frozen=True, kw_only=True)
class Ranged:
    """A statement over the whole stage, and over its rows from tid `$1` to tid `$2`."""

    whole: str
    part: str


def ranged(stage: str, whole: Rendered, part: Rendered) -> Ranged:
    """Return a statement over the stage that may be another one over its parts."""
    return Ranged(whole=whole(stage), part=part(sql("attempt_range", stage=stage).strip()))


class Merging:
    """The merge statements of one table. Each returns the number of changes.

    A batch whose rows are all new, as `known` tells, is inserted, which is cheaper. If that is rejected, its
    parts are merged like any other batch.
    """

    def __init__(self, schema_map: SchemaMap, table: TableMap, stage: str) -> None:
        self._map, self._table, self._stage = schema_map, table, stage
        self._values = merged_values(table)
        own = {"sync_version": "s.sync_xid", "sync_run": "(SELECT fence FROM sync_state)"}
        self.written = self._values | (own if table.stamps else {})
        self._first = first_counts(table) | written_beside(schema_map.tables, table)
        self._counted = counting_columns(schema_map, table.target)
        self._rematched = [
            (child, reference)
            for child in schema_map
            for reference in child.references
            if reference.by is not None and reference.parent == table.name
        ]
        self.here = " AND ".join(f"t.{quoted(name)} = {self._values[name]}" for name in table.target_key)
        self.rematches = bool(self._rematched)
        self.known = sql("known", stage=stage, target=quoted(table.target), here=self.here)
        self.rows = self._ranged(self._merge, self._merge)
        made = table.into is None
        self.new_rows = self._ranged(self._insert, self._merge) if made else self.rows
        self.uncounted_rows = self._ranged(self._insert_uncounted, self._merge) if made else self.rows
        """`new_rows` of a first load: nothing is noted to be counted."""
        self.first_rows = self._ranged(self._insert_first, self._merge) if made else self.rows
        """The same without keys: rows come in order of their ids."""
        self.links = [
            self._ranged(self._linked(links, "merge_links"), self._linked(links, "merge_links"))
            for links in table.links
        ]
        self.new_links = [
            self._ranged(self._linked(links, "insert_links"), self._linked(links, "merge_links"))
            for links in table.links
        ]
        self.uncounted_links = [
            self._ranged(
                self._linked(links, "insert_links", counts=False), self._linked(links, "merge_links")
            )
            for links in table.links
        ]

    def _ranged(self, whole: Rendered, part: Rendered) -> Ranged:
        return ranged(self._stage, whole, part)

    def _insert(self, stage: str) -> str:
        return sql(
            "insert",
            **self._inserted(stage),
            queue=queue(self._table),
            touched=touched(self._map, self._table.target, [("changed c", self._counted)])
            + new_lines(self._map, self._table),
        )

    def _insert_first(self, stage: str) -> str:
        order = commas([self._values[name] for name in self._table.target_key])
        return self._insert_uncounted(stage, order=f" ORDER BY {order}")

    def _insert_uncounted(self, stage: str, **other: str) -> str:
        return sql(
            "insert",
            **self._inserted(stage) | other,
            queue=queue(self._table),
            touched=touched(self._map, self._table.target, [("changed c", self._counted)], counts=False),
        )

    def _merge(self, stage: str) -> str:
        table = self._table
        key = table.target_key
        was = " AND ".join(f"o.{quoted(name)} = c.{quoted(name)}" for name in key)
        before = sql(
            "before",
            target=quoted(table.target),
            columns=commas([f"o.{quoted(name)}" for name in self._counted]),
            same=was,
        ).strip()
        rematch = [
            sql(
                "rematch",
                name=f"rematched{number or ''}",
                child=quoted(child.name),
                child_name=literal(child.name),
                child_row=Identity(self._map, child).row_id("t"),
                child_key=commas(Identity(self._map, child).parts("t")),
                parent=quoted(table.name),
                id=column(table.id_column),
                reference=quoted(reference.target_column),
                by=quoted(reference.by or ""),
                ours=Identity(self._map, child).only_ours("t"),
            )
            for number, (child, reference) in enumerate(self._rematched)
        ]
        assigned = [name for name in self.written if name not in key]
        compared = [name for name in self._values if name not in key]
        return sql(
            "merge" if table.into is None else "merge_into",
            **self._inserted(stage),
            proposed=commas([f"{value} AS {quoted(name)}" for name, value in self.written.items()]),
            same=" AND ".join(f"t.{quoted(name)} = p.{quoted(name)}" for name in key),
            here=self.here,
            assignments=commas([f"{quoted(name)} = p.{quoted(name)}" for name in assigned or key[:1]]),
            # A row that is nothing but its key never changes.
            differs=_differs(self._map, table, compared) if compared else "false",
            queue=queue(self._map[table.target]),
            touched=merged(
                self._map,
                table.target,
                same=was,
                before=before,
                written=assigned,
                inserts=table.into is None,
            )
            + new_lines(self._map, table, updates=True),
            rematch="".join(rematch),
        )

    def _inserted(self, stage: str) -> dict[str, str]:
        by_value = [reference.by for _, reference in self._rematched if reference.by]
        returned = dict.fromkeys([*self._table.target_key, *self._counted, *by_value])
        return {
            "target": quoted(self._table.target),
            "stage": stage,
            # A new row begins with the counts of nothing, and without what other sources write: those columns
            # are not the merge's to write again.
            "columns": commas([quoted(name) for name in (*self.written, *self._first)]),
            "overriding": " OVERRIDING SYSTEM VALUE" if self._table.id_rule is IdRule.ASSIGNED else "",
            "values": commas([*self.written.values(), *self._first.values()]),
            "order": _order(self._table, self._values),
            "returned": commas([f"t.{quoted(name)}" for name in returned]),
        }

    def _linked(self, links: Links, template: str, *, counts: bool = True) -> Rendered:
        table = LinkTable(self._map, self._table, links)
        if not links.bare:
            # Also of new rows: links of others may be there before the row is.
            return partial(table.merge, counts=counts)
        parts = ("removed", "added") if template == "merge_links" else ("added",)

        def rendered(stage: str) -> str:
            return sql(
                template,
                stage=stage,
                wanted=table.wanted(stage),
                own_id=table.own.staged,
                parked=table.parked(stage),
                touched=table.touched(parts, counts=counts),
                **link_names(links),
            )

        return rendered


def _order(table: TableMap, values: Mapping[str, str]) -> str:
    """Return the order in which rows are inserted: that of the primary key's index, which is read once then.

    Rows that hang on others are left as captured: neighbours there often hang on the same ones.
    """
    if table.identified and table.required:
        return ""
    return f" ORDER BY {commas([values[name] for name in table.target_key])}"


def _differs(schema_map: SchemaMap, table: TableMap, compared: Sequence[str]) -> str:
    """Return the condition that the proposed row `p` differs from the current one `t`.

    Where `=` does not detect a change, bytes are compared, which costs more: both rows are built for it.
    """
    types = {column.name: column.type for column in table.columns}
    if table.key_column is not None:
        types[table.key_column] = table.key_types[0].name
    types |= {name: type_.name for name, type_ in table.own_parts.items()}
    types |= {
        reference.target_column: schema_map[reference.parent].id_type.name for reference in table.filled
    }
    by_value = [quoted(name) for name in compared if types.get(name) in EQUAL_IS_SAME]
    by_image = [quoted(name) for name in compared if types.get(name) not in EQUAL_IS_SAME]
    # Some collations treat two texts as equal. The result of an expression over text may not be text.
    plain = {name for name, type_ in types.items() if type_ == "text"} - table.expressions.keys()
    texts = {quoted(name) for name in compared if name in plain}
    current = {
        name: f't.{name} COLLATE "C"' if name in texts else f"t.{name}" for name in map(quoted, compared)
    }
    proposed = {name: f"p.{name}" for name in map(quoted, compared)}
    # Images can be compared only of values of one type, and that of an expression, or the domain of a
    # column, is known to Postgres alone: both get the type to which either can be made.
    made = {column.name for column in table.columns if not column.copied} | table.expressions.keys()
    for name in (quoted(name) for name in compared if name in made and types.get(name) not in EQUAL_IS_SAME):
        current[name], proposed[name] = (
            f"CASE WHEN {which} THEN t.{name} ELSE p.{name} END" for which in ("true", "false")
        )
    conditions = [
        f"{row}({commas([current[name] for name in names])}){record} {differs}"
        f" {row}({commas([proposed[name] for name in names])}){record}"
        for names, row, record, differs in (
            (by_value, "", "", "IS DISTINCT FROM"),
            (by_image, "ROW", "::record", "OPERATOR(pg_catalog.*<>)"),
        )
        if names
    ]
    return " OR ".join(conditions) or "false"
