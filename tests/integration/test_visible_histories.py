"""Histories of writers who wait: no read after a granted wait shows less than what was waited for.

The model knows neither horizons nor snapshots: it numbers the versions of each row in the order of their commits.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Literal, NamedTuple

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from syncline.engine import run_cycle
from syncline.engine.source_check import SourceCheck
from syncline.testing.graphs import TestGraph
from tests.kit.linger import lingering
from tests.kit.loads import end_after_turns, every_load

WRITERS = 3
NODES, EDGES = 3, 2
Kind = Literal["node", "edge", "bad", "delete", "unsaved"]


class Write(NamedTuple):
    """A write of one row; `unsaved`: in a subtransaction that is rolled back."""

    by: int
    kind: Kind
    key: int
    other: int


class End(NamedTuple):
    """The end of what a writer has open."""

    by: int
    commit: bool


class Cycle(NamedTuple):
    """A cycle; `asked`: somebody waits. Its `meanwhile` happens after it has seen what is pending.

    With `later`, it lingers, and that happens then. With `turns`, all nodes and edges are read again, and it ends
    after so many turns of that.
    """

    asked: bool
    batch_rows: int
    meanwhile: tuple["Write | End", ...]
    later: tuple["Write | End", ...] = ()
    turns: int = 0


writes = st.builds(
    Write,
    st.integers(0, WRITERS - 1),
    st.sampled_from(["node", "node", "node", "edge", "edge", "bad", "delete", "unsaved"]),
    st.integers(0, NODES - 1),
    st.integers(0, NODES - 1),
)
ends = st.builds(End, st.integers(0, WRITERS - 1), st.sampled_from([True, True, True, False]))
acts = st.one_of(writes, writes, ends)
later = st.one_of(st.just(()), st.just(()), st.lists(acts, min_size=1, max_size=4).map(tuple))
meanwhile = st.lists(acts, max_size=4).map(tuple)
cycles = st.one_of(
    st.builds(Cycle, st.booleans(), st.sampled_from([1, 1000]), meanwhile, later, st.just(0)),
    st.builds(Cycle, st.booleans(), st.just(1), meanwhile, st.just(()), st.integers(1, 3)),
)
histories = st.lists(st.one_of(acts, acts, acts, cycles), min_size=6, max_size=24)
_numbers = count(1)


@dataclass
class Version:
    """One committed version of a row: its number in its row, and what a reader would see."""

    number: int
    value: str | None
    ends: tuple[str, str] | None = None


@dataclass
class Open:
    """What a writer has written and not ended."""

    token: str
    rows: dict[str, tuple[str | None, tuple[str, str] | None]] = field(default_factory=dict)


class History:
    """One history in a graph that others have used: its keys are its own."""

    def __init__(
        self, graph: TestGraph, writers: list[asyncpg.Connection], target: asyncpg.Connection
    ) -> None:
        self._graph, self._writers, self._target = graph, writers, target
        self._name = f"h{next(_numbers)}"
        self._open: dict[int, Open] = {}
        self._versions: dict[str, list[Version]] = {}
        self._tokens: dict[str, dict[str, int]] = {}
        """Token -> the numbers of the versions that its transaction wrote."""
        self._granted: set[str] = set()
        self.gone: set[str] = set()
        """Nodes that were ever deleted."""

    async def act(self, step: Write | End) -> None:
        if isinstance(step, End):
            await self._end(step)
            return
        row = f"{self._name}:{'e' if step.kind == 'edge' else 'n'}{step.key % (EDGES if step.kind == 'edge' else NODES)}"
        # It would wait for the other writer, and here everything happens one after the other.
        if any(row in other.rows for by, other in self._open.items() if by != step.by):
            return
        await self._write(step, row)

    async def _write(self, step: Write, row: str) -> None:
        connection = self._writers[step.by]
        if step.by not in self._open:
            await connection.execute("BEGIN")
            self._open[step.by] = Open(await connection.fetchval("SELECT syncline.token()"))
        mine, value = self._open[step.by], f"v{next(_numbers)}"
        if step.kind == "edge":
            ends = (f"{self._name}:n{step.key}", f"{self._name}:n{step.other}")
            await connection.execute(
                "INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type, directed)"
                " VALUES ($1, $2, $3, $4, true) ON CONFLICT (id) DO UPDATE SET source_node_id = excluded.source_node_id,"
                " target_node_id = excluded.target_node_id, relationship_type = excluded.relationship_type",
                row, *ends, value,
            )  # fmt: skip
            mine.rows[row] = (value, ends)
        elif step.kind == "delete":
            await connection.execute("DELETE FROM write_nodes WHERE id = $1", row)
            mine.rows[row] = (None, None)
            self.gone.add(row)
        else:
            if step.kind == "unsaved":
                await connection.execute("SAVEPOINT s")
            value = f"refused {value}" if step.kind == "bad" else value
            await connection.execute(
                "INSERT INTO write_nodes (id, concept) VALUES ($1, $2)"
                " ON CONFLICT (id) DO UPDATE SET concept = excluded.concept", row, value,
            )  # fmt: skip
            if step.kind == "unsaved":
                await connection.execute("ROLLBACK TO SAVEPOINT s")
            else:
                mine.rows[row] = (value, None)

    async def _end(self, step: End) -> None:
        mine = self._open.pop(step.by, None)
        if mine is None:
            return
        await self._writers[step.by].execute("COMMIT" if step.commit else "ROLLBACK")
        if not step.commit:
            return
        wrote = self._tokens.setdefault(mine.token, {})
        for row, (value, ends) in mine.rows.items():
            versions = self._versions.setdefault(row, [])
            versions.append(Version(len(versions), value, ends))
            wrote[row] = versions[-1].number

    async def finish(self) -> None:
        for by in list(self._open):
            await self._end(End(by, True))

    async def stale(self) -> list[str]:
        """Return what readers see that is older than what was granted, now or before."""
        for token in self._tokens.keys() - self._granted:
            if await self._target.fetchval("SELECT visible FROM syncline.visible('kg', $1)", token):
                self._granted.add(token)
        rows = await self._target.fetch(
            "SELECT key, concept AS value FROM nodes WHERE key LIKE $1"
            " UNION ALL SELECT key, relationship_type FROM edges WHERE key LIKE $1", f"{self._name}:%"
        )  # fmt: skip
        seen = {row["key"]: row["value"] for row in rows}
        return [
            f"{row} shows {seen.get(row)!r}, and version {number} of {self._versions[row]} was granted"
            for token in self._granted
            for row, number in self._tokens[token].items()
            if not self._is_new_enough(row, number, seen)
        ]

    def _is_new_enough(self, row: str, number: int, seen: dict[str, str]) -> bool:
        later = self._versions[row][number:]
        if row in seen:
            return any(version.value == seen[row] for version in later)
        # A row that is not there was deleted, or left with a node, or a later version of it waits for one.
        return any(
            version.value is None
            or (version.ends is not None and (version.number > number or set(version.ends) & self.gone))
            for version in later
        )

    @property
    def ungranted(self) -> set[str]:
        return self._tokens.keys() - self._granted


@asynccontextmanager
async def people(graph: TestGraph) -> AsyncIterator[tuple[list[asyncpg.Connection], asyncpg.Connection]]:
    writers = [await graph.connect_write() for _ in range(WRITERS)]
    target = await graph.connect_target()
    try:
        yield writers, target
    finally:
        for connection in (*writers, target):
            await connection.close()


async def told(graph: TestGraph, monkeypatch: pytest.MonkeyPatch, steps: list[Write | End | Cycle]) -> None:
    take = SourceCheck.take
    async with people(graph) as (writers, target):
        await target.execute(
            "ALTER TABLE nodes DROP CONSTRAINT IF EXISTS fine;"
            "ALTER TABLE nodes ADD CONSTRAINT fine CHECK (concept NOT LIKE 'refused%')"
        )
        history = History(graph, writers, target)

        async def cycle(step: Cycle) -> None:
            meanwhile: Iterator[Write | End] = iter(step.meanwhile)

            async def interrupted(self: SourceCheck, *given: object) -> object:
                fence = await take(self, *given)  # type: ignore[arg-type]
                for act in meanwhile:
                    await history.act(act)
                return fence

            if step.asked:
                await target.execute("SELECT nextval('sync_wanted')")
            with monkeypatch.context() as patch:
                patch.setattr(SourceCheck, "take", interrupted)
                if step.turns:
                    every_load(patch)
                    end_after_turns(patch, step.turns)
                    await target.execute("DELETE FROM sync_cursor WHERE table_name IN ('nodes', 'edges')")
                if not step.later:
                    await run_cycle(graph.context(batch_rows=step.batch_rows))
                else:
                    # As a second attempt it lingers whether it finds something or not.
                    async with lingering(graph, batch_rows=step.batch_rows, attempt=2) as (_, running):
                        # A later pass would do it beside what follows, over the same connections.
                        meanwhile = iter(())
                        for act in step.later:
                            await history.act(act)
                            assert await history.stale() == []
                    running.result()
            assert await history.stale() == []

        for step in steps:
            await (cycle(step) if isinstance(step, Cycle) else history.act(step))
        await history.finish()
        await cycle(Cycle(True, 1000, ()))
        # Whoever waits gets an answer: what is not visible at the end is parked, rejected, or covered by what is.
        for token in history.ungranted:
            state = await target.fetchval("SELECT state FROM syncline.visible('kg', $1)", token)
            assert state in ("parked", "rejected", "covered"), state


_told = settings(
    deadline=None,
    derandomize=False,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)


@settings(_told, max_examples=8)
@given(steps=histories)
async def test_no_read_after_a_granted_wait_is_stale(
    graph: TestGraph, monkeypatch: pytest.MonkeyPatch, steps: list[Write | End | Cycle]
) -> None:
    await told(graph, monkeypatch, steps)


@pytest.mark.proof
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("part", range(1, 11), ids="part {} of 10".format)
@settings(_told, max_examples=100)
@given(steps=histories)
async def test_a_thousand_histories_of_waits_have_no_stale_read(
    graph: TestGraph, monkeypatch: pytest.MonkeyPatch, part: int, steps: list[Write | End | Cycle]
) -> None:
    await told(graph, monkeypatch, steps)


async def test_row_overwritten_while_a_cycle_reads_is_not_granted(
    graph: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The smallest such history: what the horizon covers is written again before it is read."""
    again = (Write(1, "node", 0, 0), End(1, True))
    await told(
        graph,
        monkeypatch,
        [
            Write(0, "node", 0, 0), End(0, True), Cycle(False, 1000, ()),
            Write(0, "node", 0, 0), End(0, True), Cycle(False, 1000, again), Cycle(True, 1000, ()),
            Write(0, "node", 0, 0), End(0, True), Cycle(True, 1000, again),
        ],
    )  # fmt: skip
