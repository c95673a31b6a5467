"""Removal: deletes graph-db rows that the write-db no longer has; dependents are parked or deleted."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import asyncpg

from syncline.engine.render.fragments import commas, differs_from_none, link_names
from syncline.engine.render.identity import Identity
from syncline.engine.render.kept import keeps, stubbing
from syncline.engine.render.links import LinkTable
from syncline.engine.render.marks import aside, marked_aside, marking, stubs_aside
from syncline.engine.render.points import queue
from syncline.engine.render.stats import counting_columns, touched
from syncline.engine.schema_transaction import looking_up
from syncline.engine.table_map import Reference, SchemaMap, TableMap
from syncline.engine.template import sql
from syncline.maps.into import without_row
from syncline.messages.sync import TableProgress
from syncline.sql import literal, quoted

__all__ = ["Removal"]

_FEW = 2_000
"""Fewer removed rows than this find their dependents by index."""


@dataclass(frozen=True, kw_only=True)
class _Effect:
    """One statement, with the table and the column under which its count is reported."""

    table: str
    column: str
    statement: str


@dataclass(frozen=True, kw_only=True)
class _Keeping:
    """How rows of a table are kept in place of being removed."""

    effects: Sequence[_Effect]
    aside: Sequence[str]
    """The statements that set the rows aside that stay."""


class Removal:
    """The statements that remove the rows in `sync_leaving` from the graph-db.

    Parents may be removed before or after their children, in one transaction or several: a child that cannot
    exist without its parent is removed with it and requested again by key, so it is parked if the write-db
    still has it. Nothing is left to ON DELETE CASCADE, which would not be reported.
    """

    def __init__(self, schema_map: SchemaMap) -> None:
        self.create = sql("gone_create")
        self._map = schema_map
        listed = [f"'{literal(table.name)}'" for table in schema_map if table.listed]
        self._unlist = sql("list_remove", tables=commas(listed)) if listed else None
        # Their ids tell keys, not whose they are; for other rules the list is asked for the id.
        asked = [f"'{literal(table.name)}'" for table in schema_map if table.listed and table.hashed]
        self._counted = sql("gone_counted")
        if asked:
            counted = self._counted.strip()
            self._counted = sql("gone_counted_listed", tables=commas(asked), counted=counted)
        self._children = {table.name: list(self._children_of(table)) for table in schema_map}
        self._effects = {table.name: list(self._effects_of(table)) for table in schema_map}
        keeping = [table for table in schema_map if keeps(schema_map, table)]
        self._keeping = {table.name: self._keeps(table) for table in keeping}
        self._back = [
            sql("kept_back", table=literal(table.name), aside=literal(aside(table))) for table in keeping
        ]
        asides = [f"'{literal(aside(table))}'" for table in keeping]
        self._kept_removed = sql("kept_removed", asides=commas(asides))

    async def run(self, target: asyncpg.Connection, *, indexed: bool = True) -> list[TableProgress]:
        """Remove the rows in `sync_leaving` within the caller's transaction; return the changes per table.

        Unless `indexed`, no index need find what hangs on them. `sync_leaving` is emptied at the commit: a
        transaction runs this once, or empties it before it does so again.
        """
        rows = await target.fetch(self._counted)
        if not rows:
            return []
        async with looking_up(target, few=indexed and sum(row["count"] for row in rows) < _FEW):
            return await self._remove(
                target,
                {row["table_name"] for row in rows},
                others=any(row["others"] for row in rows),
                waits=any(row["waits"] for row in rows),
            )

    async def _remove(
        self, target: asyncpg.Connection, gone: set[str], *, others: bool, waits: bool
    ) -> list[TableProgress]:
        effects: list[TableProgress] = []
        keeping = [kept for name, kept in self._keeping.items() if name in gone]
        for kept in keeping:
            effects += await self._executed(target, kept.effects)
            for statement in kept.aside:
                await target.execute(statement)
        # Parents first, so that grandchildren are found as well.
        for table in self._map:
            if table.name in gone:
                for child, statement in self._children[table.name]:
                    if await target.execute(statement) != "INSERT 0 0":
                        gone.add(child)
                        waits = True
        for table in reversed(self._map.tables):
            if table.name in gone:
                effects += await self._executed(target, self._effects[table.name])
        if others:
            await target.execute(sql("others_back"))
        if waits or keeping:
            await target.execute(sql("remove_waiting"))
        if self._unlist is not None:
            await target.execute(self._unlist)
        if not gone.isdisjoint(self._keeping):
            await target.execute(self._kept_removed)
        if keeping:
            # Nothing of a row that is kept stays parked or rejected either; it stays listed.
            for statement in self._back:
                await target.execute(statement)
            await target.execute(sql("remove_waiting"))
        return effects

    async def _executed(
        self, target: asyncpg.Connection, statements: Iterable[_Effect]
    ) -> list[TableProgress]:
        found = []
        for effect in statements:
            count = await target.fetchval(effect.statement)
            if count:
                found.append(TableProgress.model_validate({"table": effect.table, effect.column: count}))
        return found

    async def any(self, target: asyncpg.Connection) -> bool:
        """Return whether there are rows in `sync_leaving`."""
        return await target.fetchval(sql("gone_any")) is not None

    def _children_of(self, table: TableMap) -> Iterator[tuple[str, str]]:
        for child in self._map:
            for reference in child.required:
                if reference.parent != table.name:
                    continue
                names = {
                    "child": quoted(child.target),
                    "child_name": literal(child.name),
                    "parent_name": literal(table.name),
                    "gone_rows": self._identity(table).gone_rows(),
                    "gone": self._identity(table).child_of_gone(child, reference, "t"),
                }
                own = self._identity(child)
                if own.hashed and child.key_column is not None:
                    yield (
                        child.name,
                        sql("gone_children", child_id=own.column, key=commas(own.parts("t")), **names),
                    )
                elif child.listed:
                    yield child.name, sql("gone_listed_children", **names, is_row=own.is_row("t"))
                else:
                    yield (
                        child.name,
                        sql(
                            "gone_keyed_children",
                            **names,
                            **self._key_of(child, of=reference),
                            ours=self._with_key(child),
                        ),
                    )

    def _identity(self, table: TableMap) -> Identity:
        return Identity(self._map, table)

    def _key_of(self, child: TableMap, *, of: Reference) -> dict[str, str]:
        """Return how a row's key is made from its columns and the rows that its key refers to.

        `of`: the reference to the removed row, whose key is known also where the list lacks it.
        """
        own = self._identity(child)
        parents = own.joined("t", "p", 0)
        if parents is None:
            parts = own.parts("t")
            if not child.listed and of.column in child.key and self._map[of.parent].listed:
                parts[child.key.index(of.column)] = "g.key[1]"
            return {"joins": "", "key": commas(parts)}
        return {
            "joins": " ".join(f"JOIN {join}" for join, _ in parents),
            "key": commas([k for _, k in parents]),
        }

    def _with_key(self, child: TableMap) -> str:
        """Return the condition that the parents of a row tell its key: else it is others'."""
        own = self._identity(child)
        return "\nWHERE array_position(k.key, NULL) IS NULL" if any(map(own.under_listed, child.key)) else ""

    def _keeps(self, table: TableMap) -> _Keeping:
        effects, set_aside = [], []
        if table.marked:
            gone_rows = self._identity(table).gone_rows()
            marked = marking(self._map, table, gone_rows, self._same_row(table))
            # Its links are those of an array that is not there any longer.
            effects = [_Effect(table=table.name, column="deletes", statement=marked), *self._own_links(table)]
            set_aside.append(marked_aside(table))
        if stubbing(self._map, table):
            set_aside.append(stubs_aside(self._map, table))
        return _Keeping(effects=effects, aside=set_aside)

    def _own_links(self, table: TableMap) -> Iterator[_Effect]:
        for links in table.links:
            yield _Effect(
                table=table.name,
                column="links",
                statement=sql(
                    "remove_links_of",
                    table=literal(table.name),
                    links=quoted(links.table),
                    owner=quoted(links.owner),
                    member=quoted(links.member),
                    gone_rows=self._identity(table).gone_rows(),
                    owner_gone=self._identity(table).gone_row_is(f"l.{quoted(links.owner)}"),
                    recorded=LinkTable(self._map, table, links).left_by_owner(),
                    touched=touched(self._map, links.table, [("removed c", (links.owner, links.member))]),
                ),
            )

    def _effects_of(self, table: TableMap) -> Iterator[_Effect]:
        name = literal(table.name)
        yield from self._own_links(table)
        for child in self._map:
            for links in child.links:
                if links.parent == table.name:
                    names = link_names(links)
                    names.pop("parent")
                    own, parent = self._identity(child), self._identity(table)
                    owner, member = f"r.{names['owner']}", f"r.{names['member']}"
                    kept = f", {own.parts_of(owner)}"
                    full = LinkTable(self._map, child, links)
                    place = f", l.{quoted(links.position)} AS sync_place" if links.position else ""
                    also, also_kept = full.parked_place("r.sync_place")
                    statement = sql(
                        "remove_links_to",
                        child_name=literal(child.name),
                        gone_rows=parent.gone_rows(),
                        member_gone=parent.gone_row_is(f"l.{names['member']}"),
                        owner_gone=own.gone_is(owner),
                        owner_row=own.row_of(owner),
                        member_row=member if parent.hashed else "r.sync_member_row",
                        member_id=("" if parent.hashed else ", g.row_id AS sync_member_row") + place,
                        owner_key=("" if own.hashed else kept) + also_kept,
                        also=("" if own.hashed else ", owner_key") + also,
                        listed=f" AND {own.listed('true', owner)}" if child.listed else "",
                        touched=touched(self._map, links.table, [("removed c", (links.owner, links.member))]),
                        **full.left_by_member(),
                        **names,
                    )
                    yield _Effect(table=child.name, column="links", statement=statement)
            for reference in child.optional:
                if reference.parent == table.name:
                    own, column = self._identity(child), f"t.{quoted(reference.target_column)}"
                    owner_row = own.column if own.hashed else "owner_row"
                    unkept = sql("unkept", table=literal(child.name), row_id=owner_row).rstrip()
                    owner = f", {own.row_id('t')} AS owner_row, ARRAY[{commas(own.parts('t'))}] AS owner_key"
                    statement = sql(
                        "remove_reference_to",
                        child=quoted(child.name),
                        child_name=literal(child.name),
                        child_id=own.column,
                        gone_rows=self._identity(table).gone_rows(),
                        gone=self._identity(table).gone_row_is(column),
                        child_gone=own.gone_is(f"t.{own.column}", gone="o"),
                        owner="" if own.hashed else owner,
                        owner_row=owner_row,
                        unkept=unkept if child.marked else "",
                        also="" if own.hashed else ", owner_key",
                        ours=own.only_ours("t"),
                        reference=quoted(reference.target_column),
                        reference_name=literal(reference.column),
                        parent_name=name,
                        parent_key="g.key[1]" if len(table.key) == 1 else "to_jsonb(g.key)::text",
                        queue=queue(child),
                    )
                    yield _Effect(table=child.name, column="rows", statement=statement)
        yield _Effect(table=table.name, column="deletes", statement=self._remove_rows(table))

    def _same_row(self, table: TableMap) -> str:
        """Return the condition that a target row `t` is the row to remove, `g`."""
        own = self._identity(table)
        if table.identified:
            return own.is_gone("t")
        return " AND ".join(
            f"t.{quoted(column)} = {own.key_part(name, f'g.key[{place}]')}"
            for place, (name, column) in enumerate(zip(table.key, table.target_key, strict=True), start=1)
        )

    def _remove_rows(self, table: TableMap) -> str:
        counted = counting_columns(self._map, table.target)
        restored = [
            sql(
                "restore_links",
                child=quoted(child.name),
                child_id=self._identity(child).column,
                child_name=literal(child.name),
                child_row=self._identity(child).row_id("o"),
                child_key=commas(self._identity(child).parts("o")),
                # One that is not listed yet is read again anyway.
                ours=self._identity(child).only_ours("o"),
                owner=quoted(table.target_key[0]),
            )
            for child in self._map
            for links in child.links
            if links.rejected_by == table.name
        ]
        values = without_row(table) if table.into else {}
        return sql(
            "remove_rows" if table.into is None else "remove_columns",
            target=quoted(table.target),
            columns=commas([quoted(name) for name in values]),
            values=commas(list(values.values())),
            differs=differs_from_none(table) if table.into else "",
            ours=self._identity(table).of_ours("t") if table.into else "",
            table=literal(table.name),
            gone_rows=self._identity(table).gone_rows(),
            same_row=self._same_row(table),
            returned=commas(
                [f"t.{quoted(column)}" for column in dict.fromkeys([*table.target_key, *counted])]
            ),
            queue=queue(self._map[table.target]),
            touched=touched(self._map, table.target, [("changed c", counted)]),
            restored="".join(dict.fromkeys(restored)),
        )
