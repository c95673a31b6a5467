"""Listing: the statements by which rows find their ids in the list `sync_row`, and are entered there.

For tables whose target does not tell the key of a row, or whose ids do not follow from the key. Everything is
set-wise over the stage: ids are looked up before rows are parked, and entered once they are merged.
"""

from collections.abc import Mapping, Sequence

from syncline.engine.key_forms import read
from syncline.engine.render.fragments import commas, merged_values, reference_id
from syncline.engine.render.identity import Identity, listed_as, row_hash
from syncline.engine.render.kept import keeps
from syncline.engine.render.points import PointNames
from syncline.engine.table_map import Reference, SchemaMap, TableMap
from syncline.engine.template import sql
from syncline.maps.ids import IdRule
from syncline.sql import literal, quoted

__all__ = ["Listing", "keys_from_list", "list_marked"]


class Listing:
    """The statements of one table."""

    def __init__(self, schema_map: SchemaMap, table: TableMap, stage: str) -> None:
        self.table, self._stage = table, stage
        self._own = Identity(schema_map, table)
        self._names = {
            "stage": stage,
            "table": literal(table.name),
            "key": commas([f"s.{quoted(name)}" for name in table.key]),
            "staged": self._own.staged,
            "id": listed_as(table, f"s.{self._own.staged}")
            if table.listed and not self._own.hashed
            else "NULL",
        }
        self.entry_id = self._names["id"]
        """The target id of a staged row, as the list has it."""
        parents = [
            (reference, self._own.of(reference))
            for reference in table.references
            if reference.by is None and schema_map[reference.parent].looked_up
        ]
        own = [(reference, parent) for reference, parent in parents if reference.parent == table.name]
        others = [pair for pair in parents if pair not in own]
        self.references: Sequence[str] = self._references(others, keep=table.keeps_ids)
        """Fill in the ids of rows of other tables that are referred to, and those that the rows keep."""
        self.many_references = self.references if table.keeps_ids else self._many_references(others)
        """The same for many rows."""
        self._others = others
        self.any_listed = sql("list_any", table=literal(table.name)) if table.keeps_ids and others else None
        """Whether a row of the table is listed: `first` or `many` then does what the others do."""
        self.own_references: Sequence[str] = self._references(own)
        """The same for rows of this table: once it is clear which ones have their ids."""
        self.many_own_references = self._many_references(own)
        self.references_beside: Sequence[str] = [self._beside(*pair) for pair in own]
        """The same for rows of this table that are in the batch and may not be listed yet."""
        moves = table.id_rule is IdRule.COLUMN and not table.keeps_ids
        self.moved = sql("list_moved", **self._names) if moves else None
        self.unmoved = sql("list_unmoved", **self._names) if moves else None
        self.default = sql("list_default")
        # Hashes of two keys are never equal, nor are uuids made of them; a row that was found may have one.
        clear = table.id_rule in (IdRule.HASH, IdRule.UUID5, IdRule.SAME) and not table.keeps_ids
        shared = self._own.shared and not table.listed
        holder = sql("list_holder", **self._names).strip()
        if shared:
            holder = self._own.holder(f"s.{self._own.staged}")
        unclear = shared or (table.listed and not clear)
        self.unclear = sql("list_unclear", **self._names, holder=holder) if unclear else None
        self.give_way: str | None = None
        """Note for removal what has no source row and stands under another row's id."""
        if unclear and keeps(schema_map, table):
            names = {name: self._names[name] for name in ("stage", "table")}
            self.give_way = sql("kept_give_way", **names, holder=holder)
        self.elsewhere: str | None = None
        """Whether a row may have another's id, or none, and whether a row's id is another than before."""
        if shared:
            self.elsewhere = sql("list_shared", **self._names, holder=holder)
        elif unclear and not table.keeps_ids:
            self.elsewhere = sql("list_elsewhere", **self._names)
        self.kept = self._kept() if table.keeps_ids and not others else None
        """Give listed rows the ids that they keep, unless `references` does."""
        self.nameless = sql("list_nameless", **self._names) if table.listed and unclear else None
        stamps = self._stamps()
        self.new = sql("list_new", **self._names, **stamps) if table.listed else None
        """Enter what is staged, of which nothing is listed."""
        self.landed = self._landed(stamps) if table.listed else None
        """Enter what is still staged, which has been applied."""
        self.points = self._points() if table.listed else None
        """Before that, queue the points of rows that stood there: one that is equal was not written."""

    @property
    def any(self) -> bool:
        """Whether there is anything to do for a batch."""
        return bool(self.references or self.own_references) or self.table.listed

    @property
    def made(self) -> str | None:
        """The id that the rule makes of a staged row; None if the target assigns it."""
        if self.table.id is None or self.table.id_rule is IdRule.ASSIGNED:
            return None
        if self.table.id.source is not None:
            return f"s.{quoted(self.table.id.source)}"
        return self._own.made([f"s.{quoted(name)}" for name in self.table.key])

    def assigned(self, made: str) -> str:
        """Return the statement that gives ids to rows that have none by the list; it counts them."""
        table = self.table
        if table.id is not None and table.id.natural:
            values = merged_values(table)
            made = sql(
                "list_natural",
                id=self._own.column,
                target=quoted(table.name),
                same=" AND ".join(f"t.{quoted(name)} = {values[name]}" for name in table.id.natural),
                is_ours=self._own.is_ours("t"),
                made=made,
            ).strip()
        return sql("list_known", stage=self._stage, made=made)

    def first(self, made: str) -> str:
        """Return the statement that gives ids to rows of which none is listed, and to what they refer to."""
        if natural := self._natural("r.{name}"):
            made = sql("list_first_natural", **natural, made=made).strip()
        return self._joined(self._others, made=sql("list_made", made=made).rstrip())

    def many(self, made: str) -> str:
        """Return the same where some are listed: it tells whether one is not."""
        natural = self._natural("f{number}.id")
        is_ours = self._own.is_ours("t") if natural else ""
        return sql(
            "list_many",
            stage=self._stage,
            table=self._names["table"],
            kept=read(self.table.id_type, "l.target_id"),
            natural=", r.sync_natural" if natural else "",
            natural_found=", n.id AS sync_natural" if natural else "",
            natural_joined=sql("list_many_natural", **natural, is_ours=is_ours).rstrip() if natural else "",
            made=made,
            **self._found(self._others),
        )

    def _joined(self, references: Sequence[tuple[Reference, Identity]], *, made: str = "") -> str:
        found = self._found(references)
        return sql("list_first", stage=self._stage, **found | {"changes": found["changes"] + made})

    def _found(self, references: Sequence[tuple[Reference, Identity]]) -> dict[str, str]:
        """Return the fragments for what staged rows refer to, each value looked up once."""
        names = [reference_id(reference.column) for reference, _ in references]
        return {
            "changes": commas([f"{name} = r.{name}" for name in names]),
            "found": commas([f"f{number}.id AS {name}" for number, name in enumerate(names)]),
            "joins": " ".join(
                f"LEFT JOIN {self._values(*pair)} f{number} ON f{number}.value = s.{quoted(pair[0].column)}"
                for number, pair in enumerate(references)
            ),
        }

    def _natural(self, found: str) -> dict[str, str]:
        """Return the fragments by which a standing row is found; `found`: where an id was looked up."""
        table = self.table
        if table.id is None or not table.id.natural:
            return {}
        values = merged_values(table)
        ids = {
            f"s.{name}": found.format(name=name, number=number)
            for number, name in enumerate(reference_id(reference.column) for reference, _ in self._others)
        }
        same = [f"t.{quoted(name)} = {ids.get(values[name], values[name])}" for name in table.id.natural]
        return {"id": self._own.column, "target": quoted(table.name), "same": " AND ".join(same)}

    def _kept(self) -> str:
        return sql("list_kept", **self._names, kept=read(self.table.id_type, "o.target_id"))

    def _references(
        self, references: Sequence[tuple[Reference, Identity]], *, keep: bool = False
    ) -> Sequence[str]:
        """Return the statement for all of these: the stage is written once. `keep`: for kept ids, too."""
        if not references:
            return []
        changes = [
            f"{reference_id(reference.column)} = {parent.listed_id(self._named(reference, parent))}"
            for reference, parent in references
        ]
        named = [f"s.{quoted(reference.column)} IS NOT NULL" for reference, _ in references]
        if keep:
            changes.append(f"sync_id = {self._own.listed_id('s.sync_row_id')}")
        return [
            sql(
                "list_references",
                stage=self._stage,
                changes=commas(changes),
                named="true" if keep else " OR ".join(named),
            )
        ]

    def _many_references(self, references: Sequence[tuple[Reference, Identity]]) -> Sequence[str]:
        """Return the same for many rows; of several references, the stage is still written once."""
        if len(references) != 1:
            return [self._joined(references)] if references else []
        [(reference, parent)] = references
        return [
            sql(
                "list_reference",
                stage=self._stage,
                reference_id=reference_id(reference.column),
                reference=quoted(reference.column),
                found=self._values(reference, parent),
            )
        ]

    def _values(self, reference: Reference, parent: Identity) -> str:
        """Return the values of a reference with the ids that are listed for them, as what stands in FROM."""
        return sql(
            "list_values",
            stage=self._stage,
            reference=quoted(reference.column),
            id=parent.listed_id("n.row_id"),
            row_id=self._named(reference, parent, "v.value"),
        ).strip()

    def _beside(self, reference: Reference, parent: Identity) -> str:
        return sql(
            "list_reference_beside",
            stage=self._stage,
            reference_id=reference_id(reference.column),
            waits_for=self._named(reference, parent),
        )

    def _named(self, reference: Reference, parent: Identity, value: str | None = None) -> str:
        """Return the row id of what a staged row refers to; or of what a `value` of the reference names."""
        named = value or f"s.{quoted(reference.column)}"
        return row_hash(parent.split(parent.named_by(self.table, reference, named)))

    def _points(self) -> str | None:
        if self.table.vector is None:
            return None
        points, staged = PointNames(self.table), f"s.{self._own.staged}"
        return sql(
            "list_points",
            collection=literal(self.table.vector.collection),
            named=points.queued()["named"],
            point=points.of_id(staged),
            text="" if points.same else f", {self._names['id']}",
            **{name: self._names[name] for name in ("stage", "table")},
        )

    def _stamps(self) -> dict[str, str]:
        """Return the further columns of the list that a row is entered with, and their values."""
        stamps = self.table.stamped and self.table.beside
        return {
            "stamps": ", version, run" if stamps else "",
            "stamped": ", s.sync_xid, (SELECT fence FROM sync_state)" if stamps else "",
        }

    def _landed(self, stamps: Mapping[str, str]) -> str:
        stamped = bool(stamps["stamps"])
        names = [*([] if self._own.hashed else ["target_id"]), *(["version"] if stamped else [])]
        again = sql(
            "list_again",
            changes=commas([f"{name} = excluded.{name}" for name in (*names, *["run"] * stamped)]),
            differs=" OR ".join(f"l.{name} IS DISTINCT FROM excluded.{name}" for name in names),
        ).strip()
        return sql("list_landed", **self._names, **stamps, again=again if names else "NOTHING")


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


def list_marked(schema_map: SchemaMap, name: str) -> str | None:
    """Return the statement that lists a table's marked rows, which no cycle reads; None if there are none."""
    table = schema_map[name]
    if not table.listed or not table.marked:
        return None
    own = Identity(schema_map, table)
    return sql(
        "list_marked",
        target=quoted(name),
        table=literal(name),
        id="NULL" if own.hashed else listed_as(table, f"t.{own.column}"),
        row=f"t.{own.column}",
        type=table.id_type.native,
    )
