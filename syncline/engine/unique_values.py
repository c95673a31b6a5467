"""Unique values: lets staged rows pass unique values to each other within one merge.

Postgres checks a unique index row by row, so a valid set (two rows that swap a value, a shift by one) is
rejected although the final state is valid. Here rows that give a value up get a temporary value that no row
needs; then the whole set is merged. Where no column can take such a value, rows are merged in the order in
which values become free, and cycles are deleted and reinserted in one statement.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from uuid import UUID, uuid4

import asyncpg

from syncline.engine.aside import Aside, NotKept
from syncline.engine.render.fragments import commas, merged_values
from syncline.engine.render.identity import Identity, row_hash
from syncline.engine.render.points import queue
from syncline.engine.render.stats import counting_columns, new_lines, touched
from syncline.engine.table_map import SchemaMap, TableMap
from syncline.engine.template import sql
from syncline.engine.unique_rules import UniqueRule, rule_of
from syncline.sql import quoted

__all__ = ["COLLISIONS", "ClaimStatements", "Claims", "Tid"]

COLLISIONS = {
    "23505": "duplicate key value violates unique constraint",
    "23P01": "conflicting key value violates exclusion constraint",
}
"""SQLSTATE -> how Postgres's message begins."""
_ANALYZE_FROM = 2_000

Tid = tuple[int, int]


class ClaimStatements:
    """The claim statements of one table that need no query to the graph-db."""

    def __init__(
        self, schema_map: SchemaMap, table: TableMap, stage: str, written: Mapping[str, str], here: str
    ) -> None:
        self.table, self.stage, self.here = table, stage, here
        self.values, self.written = merged_values(table), dict(written)
        self.target = quoted(table.target)
        self.key = table.target_key
        self._map = schema_map
        counted = counting_columns(schema_map, table.target)
        self.counted = counted
        noted = touched(schema_map, table.target, [("held c", counted)])
        self.touched = (
            sql("claims_touched", target=self.target, same=self.same("t", "c"), touched=noted)
            if noted
            else None
        )
        by_value = any(
            reference.by is not None and reference.parent == table.name
            for child in schema_map
            for reference in child.references
        )
        self.replaceable = not by_value and table.into is None
        """Whether no child refers to a row by a value of it, which a merge would have to follow."""

    def same(self, row: str, claim: str) -> str:
        """Return the condition that a target row is the row of a claim."""
        return " AND ".join(
            f"{row}.{quoted(name)} = {claim}.sync_id{index}" for index, name in enumerate(self.key)
        )

    def row_id(self) -> str:
        """Return the expression for the id of a target row `t` in the bookkeeping tables."""
        own = Identity(self._map, self.table)
        if self.table.identified:
            return own.row_id("t")
        ids = [f"t.{quoted(name)}" for name in self.key]
        if not all(
            reference and own.of(reference).hashed
            for reference in map(self.table.parent_part, self.table.key)
        ):
            return row_hash(own.parts("t"))
        if len(ids) == 1:
            return ids[0]
        return f"syncline.key_uuid(concat({commas([f'{name}::text' for name in ids])}))"

    def replace(self, columns: Sequence[str]) -> str:
        """Return the statement that deletes rows and inserts them with their new values."""
        values = [self.written.get(name, f"g.{quoted(name)}") for name in columns]
        returned = dict.fromkeys([*self.key, *self.counted])
        same_gone = " AND ".join(f"g.{quoted(name)} = {self.values[name]}" for name in self.key)
        noted = touched(
            self._map, self.table.target, [("changed c", self.counted), ("gone c", self.counted)]
        ) + new_lines(self._map, self.table)
        return sql(
            "claims_replace",
            target=self.target,
            stage=self.stage,
            same=self.same("t", "c"),
            same_gone=same_gone,
            columns=commas([quoted(name) for name in columns]),
            values=commas(values),
            returned=commas([f"t.{quoted(name)}" for name in returned]),
            queue=queue(self._map[self.table.target]),
            touched=noted,
        )


class Claims:
    """The claims of the staged rows, kept in `sync_claim` until the transaction ends."""

    def __init__(
        self,
        statements: ClaimStatements,
        rules: Sequence[UniqueRule],
        columns: Sequence[str],
        held: Mapping[int, Collection[tuple[Tid, Tid]]],
    ) -> None:
        self._statements = statements
        self._rules = {rule.number: rule for rule in rules}
        self._columns = columns
        self._held = {number: set(pairs) for number, pairs in held.items()}

    @classmethod
    async def read(cls, target: asyncpg.Connection, statements: ClaimStatements) -> "Claims | None":
        """Compute what the staged rows claim; None if nothing is unique. Raises the driver's error."""
        name = statements.target
        columns = await target.fetch(sql("unique_columns"), name)
        known = {column["name"]: column for column in columns}
        rules = [
            rule_of(number, row, known, statements.key)
            for number, row in enumerate(await target.fetch(sql("unique_rules"), name))
        ]
        if not rules:
            return None
        await target.execute("DROP TABLE IF EXISTS pg_temp.sync_claim")
        await target.execute(_create(statements, rules, columns))
        if await target.fetchval("SELECT count(*) >= $1 FROM pg_temp.sync_claim", _ANALYZE_FROM):
            await target.execute("ANALYZE pg_temp.sync_claim")
        held = {}
        for rule in rules:
            rows = await target.fetch(
                sql(
                    "claims_held",
                    target=name,
                    applies=rule.applies,
                    wanted=rule.equal("w"),
                    kept=rule.kept("h"),
                    predicate=rule.predicate,
                    same_held=statements.same("t", "h"),
                )
            )
            held[rule.number] = [(row["wants"], row["held"]) for row in rows]
        writable = [column["name"] for column in columns if column["generation"] is None]
        return cls(statements, rules, writable, held)

    @property
    def handed_on(self) -> bool:
        """Whether a staged row needs a value that another one gives up."""
        return any(self._held.values())

    async def free(self, target: asyncpg.Connection, part: str) -> tuple[set[Tid], int]:
        """Free the passed-on values; return (rows that have a temporary value now, number of merged rows).

        `part` is the merge statement: rows that cannot take a temporary value are merged here already, as far
        as possible.
        """
        await self._note_touched(target)
        freed: set[Tid] = set()
        left: set[tuple[Tid, Tid]] = set()
        for number, pairs in self._held.items():
            tids = {held for _, held in pairs}
            if not tids:
                continue
            if await self._stand_in(target, self._rules[number], tids):
                freed |= tids
            else:
                left |= pairs
        return freed, await self._in_order(target, part, left) if left else 0

    async def _note_touched(self, target: asyncpg.Connection) -> None:
        if self._statements.touched is not None:
            held = {tid for pairs in self._held.values() for _, tid in pairs}
            await target.execute(self._statements.touched, list(held))

    async def _stand_in(self, target: asyncpg.Connection, rule: UniqueRule, tids: Collection[Tid]) -> bool:
        for column, value in rule.stand_ins:
            statement = sql(
                "claims_free",
                target=self._statements.target,
                column=quoted(column),
                value=value.replace("@salt", uuid4().hex),
                same=self._statements.same("t", "c"),
            )
            if await _accepted(target, statement, list(tids)):
                return True
        return False

    async def _in_order(
        self, target: asyncpg.Connection, part: str, pairs: Collection[tuple[Tid, Tid]]
    ) -> int:
        """Merge rows one by one, each after those whose values it needs; then the cycles that are left."""
        order, rings = _ordered(pairs)
        count = 0
        for tid in order:
            changed = await target.fetchval(
                "SELECT changed FROM syncline.try_part($1, $2, $3)", part, tid, tid
            )
            count += changed or 0
        if rings and self._statements.replaceable:
            # All cycles at once if possible, else one by one.
            everyone = set().union(*rings)
            if await self._replaced(target, everyone):
                return count + len(everyone)
            if len(rings) > 1:
                for ring in rings:
                    if await self._replaced(target, ring):
                        count += len(ring)
        return count

    async def _replaced(self, target: asyncpg.Connection, tids: Collection[Tid]) -> bool:
        """Return whether these rows could be deleted and reinserted, with everything that depends on them."""
        statements = self._statements
        leaving = (
            f"SELECT t.* FROM {statements.target} t"  # noqa: S608 # quoted names
            f" JOIN pg_temp.sync_claim c ON {statements.same('t', 'c')}"
            " WHERE c.sync_leaves"
        )
        try:
            async with target.transaction():
                await target.execute(sql("claims_leave"), list(tids))
                aside = await Aside.plan(target, statements.target, leaving)
                await aside.keep(target)
                await target.execute(statements.replace(self._columns))
                await aside.put_back(target)
        except (asyncpg.PostgresError, NotKept):
            if target.is_closed():
                raise
            return False
        return True

    def blocked_by(self, stuck: Iterable[Tid]) -> dict[Tid, UniqueRule]:
        """Return row -> rule for the rows that need, directly or not, what the stuck rows keep."""
        wanting: dict[Tid, list[tuple[Tid, int]]] = defaultdict(list)
        for number, pairs in self._held.items():
            for wants, held in pairs:
                wanting[held].append((wants, number))
        found: dict[Tid, UniqueRule] = {}
        seen = set(stuck)
        edge = list(seen)
        while edge:
            for wants, number in wanting[edge.pop()]:
                if wants not in seen:
                    seen.add(wants)
                    found[wants] = self._rules[number]
                    edge.append(wants)
        return found

    def leave_out(self, tids: set[Tid]) -> None:
        """Drop rows that will not be merged: they keep their values."""
        for pairs in self._held.values():
            pairs.difference_update([pair for pair in pairs if not tids.isdisjoint(pair)])

    async def holders(self, target: asyncpg.Connection, tids: Collection[Tid]) -> dict[Tid, UUID]:
        """Return staged row -> id of the target row that has the values it needs."""
        found: dict[Tid, UUID] = {}
        for rule in self._rules.values():
            rows = await target.fetch(
                sql(
                    "claims_holders",
                    target=self._statements.target,
                    row_id=self._statements.row_id(),
                    applies=rule.applies,
                    wanted=rule.equal("w"),
                    predicate=rule.predicate,
                    same_wants=self._statements.same("t", "w"),
                ),
                list(tids),
            )
            found |= {row["tid"]: row["held_by"] for row in rows}
        return found


async def _accepted(target: asyncpg.Connection, statement: str, *arguments: object) -> bool:
    try:
        async with target.transaction():
            await target.execute(statement, *arguments)
    except asyncpg.PostgresError:
        if target.is_closed():
            raise
        return False
    return True


def _create(
    statements: ClaimStatements, rules: Sequence[UniqueRule], columns: Sequence[asyncpg.Record]
) -> str:
    proposed = [
        (
            f"({statements.values[column['name']]})::{column['type']}"
            if column["name"] in statements.values
            else f"t.{quoted(column['name'])}"
        )
        + f" AS {quoted(column['name'])}"
        for column in columns
        if column["generation"] is None
    ]
    generated = [
        f", ({column['generation']}) AS {quoted(column['name'])}"
        for column in columns
        if column["generation"] is not None
    ]
    key = [f"{quoted(name)} AS sync_id{index}" for index, name in enumerate(statements.key)]
    return sql(
        "claims_create",
        claims=commas(["sync_tid", *key, *(claim for rule in rules for claim in rule.claims())]),
        proposed=commas(proposed),
        generated="".join(generated),
        stage=statements.stage,
        target=statements.target,
        here=statements.here,
    )


def _ordered(pairs: Collection[tuple[Tid, Tid]]) -> tuple[list[Tid], list[set[Tid]]]:
    """Return rows in an order in which each finds its values free, and the groups without such an order."""
    wants: dict[Tid, set[Tid]] = defaultdict(set)
    wanted_by: dict[Tid, set[Tid]] = defaultdict(set)
    for wanting, held in pairs:
        wants[wanting].add(held)
        wanted_by[held].add(wanting)
    ready = [tid for tid in wanted_by if not wants.get(tid)]
    order: list[Tid] = []
    while ready:
        tid = ready.pop()
        order.append(tid)
        for wanting in wanted_by.get(tid, ()):
            wants[wanting].discard(tid)
            if not wants[wanting]:
                ready.append(wanting)
    left = {tid for tid, held in wants.items() if held}
    rings: list[set[Tid]] = []
    while left:
        group: set[Tid] = set()
        edge = [next(iter(left))]
        while edge:
            tid = edge.pop()
            if tid in left and tid not in group:
                group.add(tid)
                edge += [*wants.get(tid, ()), *wanted_by.get(tid, ())]
        left -= group
        rings.append(group)
    return order, rings
