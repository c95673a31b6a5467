"""Listing: the statements by which rows find their ids in the list `sync_row`, and are entered there.

For tables whose target does not tell the key of a row, or whose ids do not follow from the key. Everything is
set-wise over the stage: ids are looked up before rows are parked, and entered once they are merged.
"""

from collections.abc import Iterator, Sequence

from syncline.engine.key_forms import read
from syncline.engine.render.fragments import commas, merged_values, reference_id
from syncline.engine.render.identity import Identity, key_hash, listed_as
from syncline.engine.table_map import Reference, SchemaMap, TableMap
from syncline.engine.template import sql
from syncline.maps.ids import IdRule
from syncline.sql import literal, quoted

__all__ = ["Listing", "keys_from_list"]


class Listing:
    """The statements of one table."""

    def __init__(self, schema_map: SchemaMap, table: TableMap, stage: str) -> None:
        self.table, self._stage = table, stage
        self._own = Identity(schema_map, table)
        self._names = {
            "stage": stage,
            "table": literal(table.name),
            "target": quoted(table.name),
            "key": commas([f"s.{quoted(name)}" for name in table.key]),
            "staged": self._own.staged,
            "id": listed_as(table, f"s.{self._own.staged}")
            if table.listed and not self._own.hashed
            else "NULL",
        }
        parents = [
            (reference, self._own.of(reference))
            for reference in table.references
            if reference.by is None and schema_map[reference.parent].looked_up
        ]
        own = [(reference, parent) for reference, parent in parents if reference.parent == table.name]
        self.references: Sequence[str] = [self._reference(*pair) for pair in parents if pair not in own]
        """Fill in the ids of rows of other tables that are referred to."""
        self.references_beside: Sequence[str] = [
            statement for pair in own for statement in (self._reference(*pair), self._beside(*pair))
        ]
        """The same for rows of this table, in the batch too: once it is clear which ones have their ids."""
        self.known: Sequence[str] = list(self._known())
        """Fill in the ids that rows have in the target already; the others are assigned."""
        self.assigns = table.id_rule is IdRule.ASSIGNED
        self.moved = sql("list_moved", **self._names) if table.id_rule is IdRule.COLUMN else None
        self.unmoved = sql("list_unmoved", **self._names) if table.id_rule is IdRule.COLUMN else None
        self.default = sql("list_default")
        # Hashes of two keys are never equal, nor are the uuids made of them.
        clear = table.id_rule in (IdRule.HASH, IdRule.UUID5, IdRule.SAME)
        self.unclear = sql("list_unclear", **self._names) if table.listed and not clear else None
        self.landed: Sequence[str] = list(self._landed()) if table.listed else ()
        """Enter what is still staged, which has been applied."""

    @property
    def any(self) -> bool:
        """Whether there is anything to do for a batch."""
        return bool(self.references or self.references_beside) or self.table.listed

    def assigned(self, default: str) -> str:
        """Return the statement that gives the other rows their ids, by the default of the id column."""
        return sql("list_assigned", stage=self._stage, default=default)

    def _reference(self, reference: Reference, parent: Identity) -> str:
        return sql(
            "list_reference",
            stage=self._stage,
            reference_id=reference_id(reference.column),
            id=read(parent.table.id_type, "sync_row.target_id"),
            parent_name=literal(parent.table.name),
            waits_for=self._named(reference, parent),
        )

    def _beside(self, reference: Reference, parent: Identity) -> str:
        return sql(
            "list_reference_beside",
            stage=self._stage,
            reference_id=reference_id(reference.column),
            waits_for=self._named(reference, parent),
        )

    def _named(self, reference: Reference, parent: Identity) -> str:
        type_ = self.table.key_texts[reference.column]
        return key_hash(parent.referred(type_, f"s.{quoted(reference.column)}"))

    def _known(self) -> Sequence[str]:
        table = self.table
        if table.id is None or table.id_rule is not IdRule.ASSIGNED:
            return ()
        known = sql("list_known", **self._names | {"id": read(table.id_type, "sync_row.target_id")})
        if not table.id.natural:
            return (known,)
        values = merged_values(table)
        natural = sql(
            "list_natural",
            stage=self._stage,
            id=self._own.column,
            target=quoted(table.name),
            same=" AND ".join(f"t.{quoted(name)} = {values[name]}" for name in table.id.natural),
            is_ours=self._own.is_ours("t"),
        )
        return (known, natural)

    def _landed(self) -> Iterator[str]:
        stamps = self.table.stamped and self.table.beside
        run = "(SELECT fence FROM sync_state)"
        changes = [] if self._own.hashed else [("target_id", self._names["id"])]
        changes += [("version", "s.sync_xid")] if stamps else []
        if changes:
            yield sql(
                "list_again",
                **self._names,
                changes=commas([f"{name} = {value}" for name, value in changes] + [f"run = {run}"] * stamps),
                differs=" OR ".join(f"l.{name} IS DISTINCT FROM {value}" for name, value in changes),
            )
        yield sql(
            "list_landed",
            **self._names,
            stamps=", version, run" if stamps else "",
            stamped=f", s.sync_xid, {run}" if stamps else "",
        )


def keys_from_list(schema_map: SchemaMap, name: str) -> str | None:
    """Return the statement that writes listed keys into a target that tells them itself by the map of now."""
    table = schema_map[name]
    if table.listed or not table.identified:
        return None
    own = Identity(schema_map, table)
    columns = [table.key_column] if table.key_column is not None else list(table.own_parts)
    places = [1] if table.key_column is not None else [table.key.index(column) + 1 for column in columns]
    types = [table.key_types[place - 1] for place in places]
    written = [
        f"{quoted(column)} = {read(type_, f'sync_row.key[{place}]')}"
        for column, type_, place in zip(columns, types, places, strict=True)
        if column is not None
    ]
    if not written:
        return None
    return sql(
        "list_keys",
        target=quoted(name),
        table=literal(name),
        changes=commas(written),
        id=listed_as(table, f"t.{own.column}"),
    )
