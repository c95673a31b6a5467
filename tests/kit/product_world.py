"""The stores of examples/graph_product in the hands of writers, readers and cycles that may die."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import asyncpg

from syncline.capture.install.install import adopt
from syncline.engine import SyncEngine
from syncline.engine.render.statements import DELETES
from syncline.maps.document import read_map
from syncline.messages.sync import CycleStatus, SyncResult
from syncline.messages.verification import RelationKind
from syncline.migrations import migrate_bookkeeping
from syncline.provider import RetryRules, SyncContext
from syncline.testing.graphs import TestGraph
from syncline.verify import verify
from tests.kit.bare_graph import bare_graph, made_by
from tests.kit.deaths import Deaths
from tests.kit.map_model import found_in, miscounted, wanted
from tests.kit.product_writers import ODDITIES, PEACE, START, late_rows, of_a_reader, of_a_writer

__all__ = ["PRODUCT", "ProductWorld", "prepare_product"]

_FOLDER = Path(__file__).parents[2] / "examples" / "graph_product"
PRODUCT = read_map((_FOLDER / "map.yaml").read_text(encoding="utf-8"), source="map.yaml")
_ENGINE = SyncEngine(PRODUCT)
_REFUSED = """
ALTER TABLE facts ADD CHECK (content <> 'bad'); ALTER TABLE nodes ADD CHECK (concept <> 'bad');
ALTER TABLE llm_usage ADD CHECK (model <> 'bad');
"""
_ENDS = {"node_facts": ("node_id", "fact_id"), "edges": ("source_node_id", "target_node_id")}


async def prepare_product(new_database: Callable[..., str], folder: Path) -> tuple[str, str]:
    """Make the tables, capture and bookkeeping of the example; return connection strings of both databases."""
    async with bare_graph(new_database, folder) as graph:
        write, target = ((_FOLDER / name).read_text(encoding="utf-8") for name in ("write.sql", "graph.sql"))
        await made_by(
            graph,
            write=f"SET search_path = kg; {write} {ODDITIES}",
            target=f"SET search_path = kg; {target} {_REFUSED}",
        )
        await migrate_bookkeeping(graph.target, "kg")
        await adopt(graph.write, "kg", PRODUCT)
        control = await graph.connect_target()
        await Deaths.prepare(control)
        await control.close()
        return graph.write_dsn, graph.target_dsn


@dataclass
class ProductWorld:
    """One history: what was done, and what is known of readers' rows."""

    graph: TestGraph
    writer: asyncpg.Connection
    late: asyncpg.Connection
    admin: asyncpg.Connection
    reader: asyncpg.Connection
    random: Random
    loads: bool = False
    """Whether tables are read again time and again."""
    log: list[str] = field(default_factory=list)
    _late: int = 0
    _open: bool = False
    _sure: dict[tuple[str, tuple[str, ...]], set[str]] = field(default_factory=dict)
    """What readers wrote and has to be there -> the rows that it hangs on."""
    _maybe: set[tuple[str, tuple[str, ...]]] = field(default_factory=set)
    """What they wrote that may have left with its row, or been taken over."""
    _unread: set[str] = field(default_factory=set)
    """Rows that may have left, which no cycle has read: what readers hang on these now may leave with them."""

    @classmethod
    async def opened(
        cls, graph: TestGraph, random: Random, stack: AsyncExitStack, *, loads: bool = False
    ) -> "ProductWorld":
        """Open the sessions of a history, which end with the stack."""
        sessions = []
        for connect in (graph.connect_write, graph.connect_write, graph.connect_write, graph.connect_target):
            session = await connect()
            stack.push_async_callback(session.close)
            sessions.append(session)
        return cls(graph, *sessions, random=random, loads=loads)

    async def history(self, steps: int) -> None:
        """Let this many things happen, compare, and end in peace."""
        random = self.random
        collects = random.random() < 0.4
        if collects:
            await self.write(START)
        for _ in range(steps):
            match random.choices(
                ("write", "read", "late", "cycle", "die", "compare"), (9, 3, 1, 4, 3, 6 if collects else 2)
            )[0]:
                case "write":
                    changes = "; ".join(
                        of_a_writer(random, collects=collects) for _ in range(random.randint(1, 5))
                    )
                    await self.write(changes, commit=random.random() < 0.9)
                case "read":
                    await self.read(*of_a_reader(random))
                case "late":
                    await self.write_late()
                case "cycle":
                    await self.cycle(random.choice([1, 2, 3, 1000]))
                case "die":
                    await self.die(random.choice([1, 2, 3, 1000]))
                case "compare":
                    await self.compare()
        await self.write_late(over=True)
        await self.write(PEACE)
        await self.compare(peace=True)

    # What happens -----------------------------------------------------------------------------------------

    async def write(self, script: str, *, commit: bool = True) -> None:
        self.log.append(script if commit else f"-- rolled back: {script}")
        await self.writer.execute(f"BEGIN; {script}; {'COMMIT' if commit else 'ROLLBACK'}")
        left = {
            str(row["id"])
            for row in await self.admin.fetch("DELETE FROM history_left WHERE true RETURNING id")
        }
        self._unread |= left
        for place, hangs in list(self._sure.items()):
            if hangs & left:
                del self._sure[place]
                self._maybe.add(place)

    async def write_late(self, *, over: bool = False) -> None:
        """Begin a transaction that commits some steps later, or end it."""
        if self._open:
            self.log.append("-- late: COMMIT")
            await self.late.execute("COMMIT")
        elif not over:
            self._late += 1
            script = late_rows(self._late, self.random)
            self.log.append(f"-- late: BEGIN; {script}")
            await self.late.execute(f"BEGIN; {script}")
        self._open = not self._open and not over

    async def read(self, relation: str, script: str) -> None:
        """Have a reader write something of theirs."""
        self.log.append(f"-- reader: {script}")
        for row in await self.reader.fetch(script):
            key = tuple(str(value) for value in row)
            hangs = set(key)
            if relation == "edges":
                ends = await self.reader.fetchrow(
                    "SELECT source_node_id, target_node_id, relationship_type FROM edges WHERE id = $1",
                    row[0],
                )
                hangs = {str(ends[0]), str(ends[1])}
                if ends[2] != "theirs":  # a writer may come with the same edge
                    self._maybe.add((relation, key))
                    continue
            if relation == "convergence_reports":
                self._maybe.add((relation, key))
                continue
            if hangs & self._unread:
                self._maybe.add((relation, key))
            else:
                self._sure[relation, key] = hangs

    async def read_again(self) -> None:
        """Forget how far some tables were read, if these histories do."""
        if self.loads and self.random.random() < 0.5:
            rows = await self.reader.fetch("SELECT table_name FROM sync_cursor ORDER BY 1")
            tables = [row["table_name"] for row in rows if "/" not in row["table_name"]]
            tables = self.random.sample(tables, self.random.randint(0, len(tables)))
            tables = [name for name in tables if name != DELETES]
            self.log.append(f"-- read again: {', '.join(tables)}")
            await self.reader.execute("DELETE FROM sync_cursor WHERE table_name = ANY ($1)", tables)

    async def cycle(self, batch_rows: int = 1000) -> None:
        await self.read_again()
        self.log.append(f"-- cycle {batch_rows}")
        result = await self._cycle(self.graph.context(batch_rows=batch_rows))
        failed = [(table.table, table.error) for table in result.tables if table.error]
        assert failed == [], failed
        assert result.status is CycleStatus.DRAINED, result
        if not self._open and not await self._letters():
            self._unread.clear()

    async def _cycle(self, context: SyncContext) -> SyncResult:
        rules = RetryRules(vector_seconds=0, dead_letter_seconds=0, dead_letter_attempts=1000)
        return await _ENGINE.run_cycle(replace(context, retry=rules))

    async def die(self, batch_rows: int) -> None:
        await self.read_again()
        deaths = Deaths(self.graph, self.reader, self._cycle)
        after, seconds = self.random.randint(1, 6), self.random.randint(1, 60) / 1000
        way = self.random.choice(["between", "in", "anywhere"])
        self.log.append(f"-- a cycle dies {way}: {batch_rows}, {after}, {seconds}")
        if way == "between":
            await deaths.between_commits(batch_rows, after)
        elif way == "in":
            await deaths.in_a_commit(batch_rows, after)
        else:
            await deaths.anywhere(batch_rows, seconds)

    # What is there ----------------------------------------------------------------------------------------

    async def compare(self, *, peace: bool = False) -> None:
        """Sync what is there; where nothing is rejected, the target has to be what the model says."""
        await self.cycle()
        if self._open:
            return  # it holds back what was written since
        letters = await self._letters()
        if letters:
            await self.cycle()  # which tries them again
            letters = await self._letters()
        assert not (peace and letters), letters
        if peace or letters or self.random.random() < 0.3:
            damage = await self.damage(lag=bool(self._sure or self._maybe))
            assert damage == [], damage
        if peace:
            await self.damage(lag=True, repair=True)  # counts are made right at once
            damage = await self.damage(lag=False)
            assert damage == [], damage
        if not letters:
            differences = await self.differences(peace=peace)
            assert differences == [], differences

    async def _letters(self) -> list[tuple[object, ...]]:
        rows = await self.reader.fetch("SELECT table_name, key::text, message FROM sync_dead_letter")
        return [tuple(row) for row in rows]

    async def damage(self, *, lag: bool, repair: bool = False) -> list[object]:
        """Return what `verify` finds; with `lag`, but for counts, which lack what readers linked since."""
        context = self.graph.context()
        found = await verify(
            PRODUCT,
            write=context.write,
            target=context.target,
            vectors=context.vectors,
            embedding=context.embedding.name,
            keys=5,
            repair=repair,
            who="a history",
            why="peace",
        )
        return [
            (each.name, each.problem, each.missing, each.extra, each.stale)
            for each in found.relations
            if (each.damaged or each.problem) and not (lag and each.kind is RelationKind.STATS)
        ]

    async def differences(self, *, peace: bool) -> list[str]:
        """Return what the model would have otherwise."""
        model = await wanted(PRODUCT, self.admin, self.reader)
        said = list(model.unfound)
        for name, relation in model.relations.items():
            found, rows = await found_in(self.reader, relation), model.rows[name]
            theirs = {key for place, key in (*self._sure, *self._maybe) if place == name}
            said += [f"{name}: missing {key}" for key in rows.keys() - found.keys()]
            said += [f"{name}: extra {key}" for key in found.keys() - rows.keys() - theirs]
            for key in rows.keys() & found.keys():
                said += [
                    f"{name} {key}: {column} is {found[key][column]}, should be {rows[key][column]}"
                    for column in relation.columns
                    if column in rows[key] and found[key][column] != rows[key][column]
                ]
        kept = await self.reader.fetch("SELECT table_name, target_key, stub FROM sync_kept")
        listed = {(row["table_name"], tuple(row["target_key"]), row["stub"]) for row in kept}
        stubs = {(name, key, True) for name, rows in model.stubs.items() for key in rows}
        said += [f"kept is {listed}, should be {stubs}"] if listed != stubs else []
        said += await self._readers_losses()
        said += await self._points(model.rows["facts"])
        counts = await miscounted(PRODUCT, self.reader)
        if peace or (not self._sure and not self._maybe):
            ours = {
                name: {key[0] for key in model.rows[name]} for name in counts
            }  # no list has readers' rows
            said += [
                f"{name}: wrong counts of {ids & ours[name]}"
                for name, ids in counts.items()
                if ids & ours[name]
            ]
        return said

    async def _readers_losses(self) -> list[str]:
        said = []
        for relation, key in self._sure:
            table, _, column = relation.partition(".")
            where = " AND ".join(
                f"{name}::text = '{value}'"
                for name, value in zip(_ENDS["node_facts"] if len(key) == 2 else ("id",), key, strict=True)
            )
            value = {
                "node_facts": "relevance = 0.77",
                "edges": "weight = 7",
                "llm_usage": "tokens = 7",
                "nodes": "access_count = 7 AND concept = 'theirs'",
            }
            told = f"{column} = 7" if column else value[table]
            if not await self.reader.fetchval(
                f"SELECT EXISTS (SELECT FROM {table} WHERE {where} AND {told})"
            ):
                said.append(f"{relation}: a reader's {key} was lost")
        return said

    async def _points(self, facts: dict[tuple[str | None, ...], dict[str, str | None]]) -> list[str]:
        points: dict[str, object] = {}
        async for batch in self.graph.vectors.scroll("kg_facts"):
            points |= {str(point.id): point.payload["kind"] for point in batch}
        rows = {str(key[0]): row["fact_type"] for key, row in facts.items()}
        return [] if points == rows else [f"points: {points} should be {rows}"]
