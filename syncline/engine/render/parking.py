"""Parking: rows, links and references whose other end is missing are parked, and released when it arrives."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from syncline.engine.render.fragments import (
    commas,
    image,
    image_texts,
    image_values,
    link_names,
    merged_values,
    named_together,
    of_table,
    reference_id,
    row_id,
    unrejected,
)
from syncline.engine.render.identity import Identity, key_hash, row_hash
from syncline.engine.render.links import LinkTable
from syncline.engine.render.merge import Ranged
from syncline.engine.render.points import queue
from syncline.engine.render.stats import touched
from syncline.engine.table_map import Links, Reference, SchemaMap, TableMap
from syncline.engine.template import sql
from syncline.sql import literal, quoted

__all__ = ["Release", "Waiting"]

_PART = " AND s.ctid >= $1 AND s.ctid <= $2"


@dataclass(frozen=True, kw_only=True)
class Release:
    """What applied rows complete in another table, or in the same one."""

    child: str
    links: bool
    """Whether it adds links or sets a reference."""
    statement: str
    few: str
    """The same, for a stage of few rows."""
    ask_again: str
    """The statement to run if this one is rejected."""


@dataclass(frozen=True, kw_only=True)
class Released:
    """The statements that release whole rows, for a stage of many rows and for a stage of few."""

    many: Sequence[str]
    few: Sequence[str]


class Waiting:
    """The statements that park a table's rows and release rows parked for them."""

    def __init__(self, schema_map: SchemaMap, table: TableMap, stage: str) -> None:
        self._map, self._table, self._stage = schema_map, table, stage
        self._own = Identity(schema_map, table)
        name = literal(table.name)
        self.awaited = table.identified or named_together(schema_map, table)
        """Whether other rows may wait for rows of this table."""
        values = image_values(table)
        self.stage_released = sql(
            "stage_released",
            stage=stage,
            table=name,
            columns=commas([quoted(column) for column in values]),
            values=commas(list(values.values())),
            texts=image_texts(table),
        )
        self.resolve = [
            sql("resolve_by_value", stage=stage, by=quoted(reference.by), **self._names(reference))
            for reference in table.references
            if reference.by is not None
        ]
        # Parked rows are stored as jsonb, which cannot hold a text of 256 MB.
        self.park_rows = [
            Ranged(whole=self._park_rows(reference), part=self._park_rows(reference, within=_PART))
            for reference in table.required
            if reference.stub is None
        ]
        self.unpark_rows = sql("unpark_rows", stage=stage, of_table=of_table(table), row_id=row_id(table))
        self.unpark_references = sql(
            "unpark_references", stage=stage, of_table=of_table(table), row_id=row_id(table)
        )
        self.park_references = [
            self._park_reference(reference, beside=self._beside(reference)) for reference in table.optional
        ]
        # For a batch applied in parts: the parent may be in a later part, or be rejected.
        self.park_beside = [
            self._park_reference(reference, beside="")
            for reference in table.optional
            if reference.parent == table.name
        ]
        self.release_rows = Released(
            many=list(self._release_rows(few=False)), few=list(self._release_rows(few=True))
        )
        self.releases = [release for child in schema_map for release in self._releases(child)]
        self.reject = [
            (child.name, self._reject(child, links))
            for child in schema_map
            for links in child.links
            if links.rejected_by == table.name
        ]

    def _park_rows(self, reference: Reference, *, within: str = "") -> str:
        table = self._table
        return sql(
            "park_rows",
            stage=self._stage,
            table=literal(table.name),
            of_table=of_table(table),
            row_id=row_id(table),
            key=commas([f"s.{quoted(name)}" for name in table.key]),
            image=image(table),
            target=quoted(table.target),
            same_row=self._same_row(),
            within=within,
            **self._waits_for(reference),
            **self._names(reference),
        )

    def _park_reference(self, reference: Reference, *, beside: str) -> str:
        own_key = commas([f"s.{quoted(name)}" for name in self._table.key])
        looked_up = self._own.of(reference).table.looked_up
        return sql(
            "park_reference",
            stage=self._stage,
            table=literal(self._table.name),
            name=literal(reference.column),
            row_id=row_id(self._table),
            owner_key="" if self._own.hashed else f", ARRAY[{own_key}] AS owner_key",
            also="" if self._own.hashed else ", owner_key",
            beside=beside,
            named=self._named(reference) if looked_up else f"s.{reference_id(reference.column)}",
            with_id=f", {reference_id(reference.column)} = NULL" if looked_up else "",
            **self._waits_for(reference),
            **self._names(reference),
        )

    def _beside(self, reference: Reference) -> str:
        """Return the condition that the parent is not in this batch either."""
        if reference.parent != self._table.name:
            return ""
        own_id, named_id = self._own.staged, f"s.{reference_id(reference.column)}"
        if self._own.may_be_anothers:
            own_id, named_id = "sync_row_id", self._waits_for(reference)["waits_for"]
        return sql("beside", stage=self._stage, own_id=own_id, named_id=named_id)

    def _release_rows(self, *, few: bool) -> Iterator[str]:
        name = literal(self._table.name)
        condition = f"NOT r.released AND r.waits_for_table = '{name}'"
        yield sql("release_rows", awaiting=self._awaiting("sync_parked_row", condition, few=few))
        for child in self._map:
            for reference in child.references:
                if reference.by is not None and reference.parent == self._table.name:
                    awaiting = self._awaiting(
                        "sync_parked_row",
                        f"{condition} AND r.table_name = '{literal(child.name)}'",
                        landed=f"syncline.key_uuid({merged_values(self._table)[reference.by]})",
                        few=few,
                    )
                    yield sql("release_rows", awaiting=awaiting)

    def _awaiting(self, parked: str, condition: str, *, landed: str | None = None, few: bool) -> str:
        """Return the condition that a parked `r` waits for a staged row: for its id, unless for `landed`."""
        landed = landed or row_id(self._table)
        if few:
            return sql("awaiting_few", stage=self._stage, parked=parked, condition=condition, landed=landed)
        return sql("awaiting", stage=self._stage, condition=condition, landed=landed)

    def _releases(self, child: TableMap) -> Iterator[Release]:
        for links in child.links:
            if links.parent == self._table.name:
                names = link_names(links)
                yield self._release(
                    child,
                    links.table,
                    "release_links",
                    are_links=True,
                    parked_member=self._own.parked(),
                    unrejected=unrejected(self._map, links),
                    **LinkTable(self._map, child, links).released(),
                    touched=touched(self._map, links.table, [("changed c", (links.owner, links.member))]),
                    **{name: names[name] for name in ("links", "owner", "member")},
                )
        for reference in child.optional:
            if reference.parent == self._table.name:
                column = reference.target_column
                yield self._release(
                    child,
                    reference.column,
                    "release_reference",
                    are_links=False,
                    parked_parent=self._own.parked() + ("" if self._own.hashed else " AS waits_for"),
                    reference=quoted(column),
                    queue=queue(child),
                    touched=touched(self._map, child.name, [("changed c", (column,))]),
                )

    def _release(
        self, child: TableMap, name: str, statement: str, *, are_links: bool, **names: str
    ) -> Release:
        condition = f"r.table_name = '{literal(child.name)}' AND r.name = '{literal(name)}'"
        identity = Identity(self._map, child)
        names |= {
            "child": quoted(child.name),
            "child_id": identity.column,
            "parked_owner": identity.parked_owner() + ("" if identity.hashed else " AS owner"),
        }
        many, few = (self._awaiting("sync_parked_reference", condition, few=each) for each in (False, True))
        return Release(
            child=child.name,
            links=are_links,
            statement=sql(statement, awaiting=many, **names),
            few=sql(statement, awaiting=few, **names),
            ask_again=sql(
                "release_to_requeue",
                awaiting=few,
                child_name=literal(child.name),
                child_row=identity.row_id("t"),
                child_key=commas(identity.parts("t")),
                ours=identity.only_ours("t"),
                **names,
            ),
        )

    def _reject(self, child: TableMap, links: Links) -> str:
        owner, member = (reference_id(name) for name in self._table.key)
        owner_row, member_row = (
            self._waits_for(reference)["waits_for"]
            for name in self._table.key
            for reference in self._table.required
            if reference.column == name
        )
        return sql(
            "reject_links",
            stage=self._stage,
            child_name=literal(child.name),
            owner_id=owner,
            member_id=member,
            owner_row=owner_row,
            member_row=member_row,
            touched=touched(self._map, links.table, [("removed c", (links.owner, links.member))]),
            **LinkTable(self._map, child, links).rejected(self._stage, owner, member),
            **{name: text for name, text in link_names(links).items() if not name.startswith("parent")},
        )

    def _names(self, reference: Reference) -> dict[str, str]:
        parent, id_ = self._own.of(reference), f"s.{reference_id(reference.column)}"
        is_parent = f"p.{parent.column} = {id_}"
        if reference.by is None:
            is_parent = parent.is_named("p", self._waits_for(reference)["waits_for_key"], id_)
        if self._table.into is not None:
            is_parent += self._own.of_ours("p")
        return {
            "reference": quoted(reference.column),
            "reference_id": reference_id(reference.column),
            "parent": quoted(reference.parent),
            "parent_id": self._own.of(reference).column,
            "parent_name": literal(reference.parent),
            "is_parent": is_parent,
        }

    def _named(self, reference: Reference) -> str:
        """Return what of a staged row is not NULL if the reference names a row."""
        named = f"s.{quoted(reference.column)}"
        if reference.unreadable is None:
            return named
        return self._own.of(reference).named_by(self._table, reference, named)

    def _same_row(self) -> str:
        table = self._table
        if table.looked_up:
            # Its id may have changed with this version.
            return f"t.{self._own.column} = {self._own.listed_id('s.sync_row_id')}"
        if table.identified:
            return f"t.{self._own.column} = s.{self._own.staged}"
        values = merged_values(table)
        return " AND ".join(f"t.{quoted(name)} = {values[name]}" for name in table.target_key)

    def _waits_for(self, reference: Reference) -> dict[str, str]:
        """Return the row id, and the key, of the row that a staged row waits for."""
        named = f"s.{quoted(reference.column)}"
        if reference.by is not None:
            return {"waits_for": key_hash(named), "waits_for_key": named}
        parent = self._own.of(reference)
        key = parent.named_by(self._table, reference, named)
        hashed = f"s.{reference_id(reference.column)}"
        return {"waits_for": hashed if parent.hashed else row_hash(parent.split(key)), "waits_for_key": key}
