"""Row checksums: SQL that computes the same number for a row in the write-db and in the graph-db."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from syncline.engine.key_forms import cast
from syncline.engine.keys import key_bytes, stage_type
from syncline.engine.render.fragments import (
    column_types,
    commas,
    merged_values,
    parts_together,
    reference_id,
    stage_columns,
    travels,
)
from syncline.engine.render.identity import Identity
from syncline.engine.render.kept import keeps, with_source
from syncline.engine.table_map import Reference, SchemaMap, TableMap
from syncline.sql import literal, quoted, statements_of

__all__ = [
    "BUCKETS",
    "RowChecksums",
    "TargetType",
    "bucket",
    "key_uuid",
    "numbered",
    "own_id",
    "staged_types",
]

_sql = statements_of("syncline.verify")

BUCKETS = 1 << 14
"""With a million rows, 61 per bucket: a wrong row costs listing 61. All sums are read at once."""

_FLOATS = ("real", "double precision")


@dataclass(frozen=True, kw_only=True)
class TargetType:
    """A target column's type. The write-db may lack it unless it is built in."""

    type: str
    builtin: bool


def key_uuid(key: str) -> str:
    """Return the expression for a TEXT key's id."""
    return _sql("key_uuid", bytes=key_bytes(key))


def own_id(ids: list[str]) -> str:
    """Return the expression for the id of a row from its key parts' ids."""
    return ids[0] if len(ids) == 1 else key_uuid(" || ".join(f"{part}::text" for part in ids))


def bucket(row_id: str) -> str:
    """Return the expression for an id's bucket."""
    return _sql("bucket", id=row_id)


def numbered(content: str) -> str:
    """Return the expression for 64 bits of the SHA-256 of a bytea."""
    return _sql("hash", bytes=content)


def staged_types(table: TableMap) -> list[str]:
    """Return the types of the copied columns and of values, as the stage spells them."""
    types = column_types(table)
    made = {column.name: column.type for column in table.columns if not column.copied}
    return [
        *(stage_type(name, types) for name in stage_columns(table)),
        *(stage_type(name, made) for name in made),
    ]


class RowChecksums:
    """The checksum expressions of one table, rendered for its target's types.

    `builtin`: those of its `staged_types` that are built in.

    The expected row is what a merge would write: the map's expressions, evaluated in the write-db over what
    would be staged, cast to the target's types. Excluded are the engine's columns, and expressions over
    references that only the graph-db can resolve.
    """

    def __init__(
        self,
        schema_map: SchemaMap,
        table: TableMap,
        types: Mapping[str, TargetType],
        builtin: Collection[str],
    ) -> None:
        self.table = table
        self._builtin = builtin
        self._parents = {reference.column: schema_map[reference.parent] for reference in table.references}
        self._types = types
        self._values = merged_values(table, typed=cast, known=builtin)
        self._own = own = Identity(schema_map, table)
        self._named = {reference.target_column: reference for reference in table.filled}
        self.source_columns = list(self._staged())
        self._joined = own.joined("t", "k", 0)
        hashes = all(
            reference is not None and own.of(reference).hashed
            for reference in map(table.parent_part, table.key)
        )
        """Whether the ids of the row's parents are their row ids."""
        hashes = hashes and not table.identified
        self.source_id = own_id(
            [
                f"s.{reference_id(column)}" if hashes else key_uuid(f"s.{quoted(column)}")
                for column in table.key
            ]
        )
        keys = [f"t.{quoted(column)}" for column in table.target_key]
        places = range(1, len(table.key) + 1)
        self._parts = [f"t.sync_key[{place}]" for place in places] if table.listed else own.parts("t")
        ids = keys if hashes or own.hashed else [key_uuid(part) for part in self._parts]
        stored = len(keys) == 1 and ids == keys and not table.listed
        # A computed id is computed once.
        self.target_id = keys[0] if stored else "t.sync_row_id"
        rows = quoted(table.target)
        if table.into is not None:
            written = {column.name: f"t.{quoted(column.name)}" for column in table.columns}
            # Rows of others are no rows without a source row.
            rows = _sql("target_where", target=own.ours, condition=self._unlike_none(written))
        elif under := own.of_listed("t"):
            # What hangs by its key on a row of others is theirs too.
            rows = _sql("target_where", target=rows, condition=" AND ".join(under))
        if keeps(schema_map, table):
            # What has no source row, and is kept for it, is neither extra nor stale.
            rows = with_source(table, rows)
        self._target = (
            f"{rows} t"
            if stored
            else _sql("target_listed", target=rows, of_row=own.is_row("t"))
            if table.listed
            else _sql("target_with_id", target=rows, row_id=self._bucketed(own_id(ids)))
        )

    def _staged(self) -> Iterator[str]:
        """Yield the stage's columns, from a source row."""
        types = column_types(self.table)
        for name in stage_columns(self.table):
            staged = stage_type(name, types)
            # Any other type is in the graph's schema, which is not searched here; adoption has checked that
            # the column has that type.
            spelled = f"::{staged}" if staged in self._builtin else ""
            yield f"{travels(self.table, name)}{spelled} AS {quoted(name)}"
        for reference in self.table.references:
            parent = self._own.of(reference)
            if not reference.fills:
                continue
            if reference.columns and parent.hashed:
                ids = [key_uuid(part) for part in parts_together(self.table, reference)]
                yield f"{own_id(ids)} AS {reference_id(reference.column)}"
            elif reference.by is None and not parent.only_here:
                named = travels(self.table, reference.column)
                named = parent.named_by(self.table, reference, named, there=True)
                value = key_uuid(named) if parent.hashed else cast(parent.table.key_types[0], f"({named})")
                yield f"{value} AS {reference_id(reference.column)}"

    def target(self, *, waiting: bool, keys: bool) -> str:
        """Return the FROM item `t`: the target, with what its checksum and key need from other tables."""
        joins = [
            _join(self._own.of(reference), f"v{place}", reference.target_column)
            for place, reference in enumerate(self.table.references)
            if reference.by is not None
        ]
        if waiting:
            joins += [
                _sql(
                    "waiting",
                    table=literal(self.table.name),
                    name=literal(reference.column),
                    parent=quoted(reference.parent),
                    is_parent=self._own.of(reference).is_landed(
                        "p", "r.waits_for_key", self._own.of(reference).parked()
                    ),
                    kept="r.waits_for" if self._own.of(reference).hashed else "r.waits_for_key",
                    alias=f"w{place}",
                    row_id=self.target_id,
                )
                for place, reference in enumerate(self.table.optional)
            ]
        if keys:
            joins += [f"LEFT JOIN {join}" for join, _ in self._joined or ()]
        return " ".join([self._target, *joins])

    @property
    def target_key(self) -> str:
        """The key parts of row `t`, if it was requested with keys; from its parents where needed."""
        if self._joined is None:
            return commas(self._parts)
        keys = zip(self._joined, self.table.target_key, strict=True)
        return commas([f"coalesce({key}, t.{quoted(column)}::text)" for (_, key), column in keys])

    def _bucketed(self, row_id: str) -> str:
        """Return the row id; where the target does not tell the key, one made of the primary key.

        Else such a row, which somebody else wrote, or whose parent is somebody else's, would be in no bucket.
        """
        if not self._own.can_be_strange and not any(map(self.table.parent_part, self.table.key)):
            return row_id
        stand_in = "'? ' || " + " || ' ' || ".join(
            f"t.{quoted(name)}::text" for name in self.table.target_key
        )
        return f"coalesce({row_id}, {key_uuid(stand_in)})"

    @property
    def target_waits(self) -> str:
        """Whether a reference of row `t` is parked, if `t` was requested with `waiting`."""
        waits = [f"w{place}.owner IS NOT NULL" for place in range(len(self.table.optional))]
        return f"({' OR '.join(waits)})" if waits else "false"

    def with_values(self, rows: str) -> str:
        """Return the FROM item `s` without source rows that a target row without one equals, if any can."""
        if self.table.into is None:
            return rows
        expected = {column.name: self._expected(column.name) for column in self.table.columns}
        return _sql("source_with_values", rows=rows, differs=self._unlike_none(expected))

    def _unlike_none(self, values: Mapping[str, str]) -> str:
        """Return the condition that these values are not those of a target row without a source row."""
        none = {name: self._typed(name, self.table.otherwise.get(name, "NULL")) for name in values}
        texts = [_row_text([self._canonical(name, side[name]) for name in values]) for side in (values, none)]
        return f"{texts[0]} IS DISTINCT FROM {texts[1]}"

    def source_hash(self) -> str:
        """Return the expression for the checksum of row `s`: of the row expected in the target."""
        return _row_bytes([self._canonical(name, self._expected(name)) for name in self._compared()])

    def target_hash(self, *, waiting: bool) -> str:
        """Return the expression for the checksum of row `t`; `waiting`: as if no reference were parked."""
        return _row_bytes([self._canonical(name, self._actual(name, waiting)) for name in self._compared()])

    def _compared(self) -> Iterator[str]:
        late = [
            reference
            for reference in self.table.references
            if not reference.required or reference.by or self._own.of(reference).only_here
        ]
        for name in self._values:
            expression = self.table.computed.get(name, "")
            if not any(_mentions(expression, reference) for reference in late):
                yield name

    def _expected(self, name: str) -> str:
        reference = self._by_value(name)
        if reference is not None:
            return f"s.{quoted(reference.column)}"
        if self._is_own(name):
            if self.table.id is not None and self.table.id.source and not self.table.keeps_ids:
                return f"s.{quoted(self.table.id.source)}"
            return (
                "true"
                if self._own.only_here
                else cast(self.table.key_types[0], f"s.{quoted(self.table.key[0])}")
            )
        parent = self._by_key(name)
        if parent is not None:
            named = self._named[name]
            return parent.named_by(self.table, named, f"s.{quoted(named.column)}", there=True)
        return self._typed(name, self._values[name])

    def _actual(self, name: str, waiting: bool) -> str:
        reference = self._by_value(name)
        if reference is not None:
            # Of several parents with one value any is valid, so the value is compared, not the parent.
            return f"v{self.table.references.index(reference)}.{quoted(reference.by or '')}"
        if self._is_own(name):
            found = f"t.{self._own.column}"
            if self.table.looked_up:
                return "true" if self.table.keeps_ids else found
            return f"({found} = {self._own.derived(self._parts)})" if self._own.only_here else found
        parent, found = self._by_key(name), f"t.{quoted(name)}"
        if parent is not None:
            found = parent.named_of(found)
        if waiting and name in self._named and not self._named[name].required:
            waits = f"w{self.table.optional.index(self._named[name])}.waits_for"
            other = self._own.of(self._named[name])
            if not (other.hashed or parent):
                waits = other.derived([waits])
            return f"coalesce({found}, {waits})"
        return found

    def _is_own(self, name: str) -> bool:
        """Whether it is the id, and not the row id."""
        return self.table.identified and not self._own.hashed and name == self.table.id_column

    def _by_key(self, name: str) -> Identity | None:
        """Return the parent that this column refers to, if its ids can be made in the graph-db alone."""
        reference = self._named.get(name)
        if reference is None or reference.by or name in self.table.expressions:
            return None
        parent = self._own.of(reference)
        return parent if parent.only_here else None

    def _by_value(self, name: str) -> Reference | None:
        reference = self._named.get(name)
        return reference if reference and reference.by and name not in self.table.expressions else None

    def _typed(self, name: str, expression: str) -> str:
        known = self._types.get(name)
        return f"({expression})" + (f"::{known.type}" if known and known.builtin else "")

    def _canonical(self, name: str, expression: str) -> str:
        known = self._types.get(name)
        # Minus zero equals zero, so the engine need not write it, but its text differs.
        return f"({expression} + 0::{known.type})" if known and known.type in _FLOATS else expression


def _join(parent: Identity, alias: str, column: str) -> str:
    return f"LEFT JOIN {quoted(parent.table.name)} {alias} ON {alias}.{parent.column} = t.{quoted(column)}"


def _row_bytes(values: list[str]) -> str:
    return numbered(f"convert_to({_row_text(values)}, 'UTF8')")


def _row_text(values: list[str]) -> str:
    return f"ROW({commas(values)})::text"


def _mentions(expression: str, reference: Reference) -> bool:
    return re.search(rf"\b(ref_)?{re.escape(reference.column)}\b", expression) is not None
