"""Tokens: what `syncline.visible` says of a transaction is true of what a reader sees."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import NamedTuple

import asyncpg
import pytest

from syncline import names
from syncline.engine import KNOWLEDGE_GRAPH, SyncEngine, run_cycle
from syncline.engine import visible as engine_visible
from syncline.messages.sync import CycleStatus
from syncline.provider import RetryRules
from syncline.testing.graphs import TestGraph, on_target, read, write
from syncline.testing.lab import eventually

NODE = "INSERT INTO write_nodes (id, concept) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET concept = excluded.concept"
EDGE = "INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type) VALUES ($1, $2, $3, 'related')"


class Said(NamedTuple):
    """What the function says."""

    visible: bool
    vectors: bool
    state: str
    reason: str | None


async def said(graph: TestGraph, token: str) -> Said:
    [row] = await read(graph, f"SELECT * FROM syncline.visible('kg', '{token}')")
    return Said(*row.values())


async def wanted(graph: TestGraph) -> None:
    await on_target(graph, "SELECT nextval('sync_wanted')")


async def written(graph: TestGraph, *statements: tuple[str, ...]) -> str:
    """Run these in one transaction and return its token."""
    async with connected(graph) as connection, connection.transaction():
        for statement, *values in statements:
            await connection.execute(statement, *values)
        return str(await connection.fetchval("SELECT syncline.token()"))


@asynccontextmanager
async def connected(graph: TestGraph) -> AsyncIterator[asyncpg.Connection]:
    connection = await graph.connect_write()
    try:
        yield connection
    finally:
        await connection.close()


async def concepts(graph: TestGraph) -> dict[str, str]:
    return {row["key"]: row["concept"] for row in await read(graph, "SELECT key, concept FROM nodes")}


async def test_token_is_visible_after_its_cycle(graph: TestGraph) -> None:
    token = await written(graph, (NODE, "n", "one"))
    assert await said(graph, token) == (
        False,
        False,
        "pending",
        "no run has read the write-db since its server was started",
    )
    await run_cycle(graph.context())
    assert await said(graph, token) == (True, True, "visible", None)
    later = await written(graph, (NODE, "n", "two"))
    assert (await said(graph, later)).reason == "no run has applied it yet"
    assert (await said(graph, token)).visible


async def test_token_is_the_same_in_a_subtransaction_and_names_the_rows_of_both(graph: TestGraph) -> None:
    async with connected(graph) as connection, connection.transaction():
        async with connection.transaction():
            inner = await connection.fetchval("SELECT syncline.token()")
            await connection.execute(NODE, "n", "one")
        assert await connection.fetchval("SELECT syncline.token()") == inner
        stamp = await connection.fetchval("SELECT sync_xid::text FROM write_nodes")
    assert inner.split(".")[3] == stamp


async def test_row_that_a_later_open_horizon_hides_is_not_said_to_be_visible(graph: TestGraph) -> None:
    await written(graph, (NODE, "n", "before"))
    await run_cycle(graph.context())
    token = await written(graph, (NODE, "n", "mine"))
    async with connected(graph) as other, other.transaction():
        await other.execute(NODE, "m", "open")
        first = await other.fetchval("SELECT syncline.token()")
        # It takes the place of the row that the token is about, and is itself behind the open transaction.
        newer = await written(graph, (NODE, "n", "newer"))
        await written(graph, ("DELETE FROM write_nodes WHERE id = $1", "none"))
        await run_cycle(graph.context())
        assert not (await said(graph, token)).visible or (await concepts(graph))["n"] != "before"
        await wanted(graph)
        await run_cycle(graph.context())
        assert (await said(graph, token)).visible
        assert (await concepts(graph))["n"] == "newer"
        assert not (await said(graph, newer)).visible
        # What was read beyond the horizon belongs to the past that the newest token names.
        [stored] = await read(graph, "SELECT position FROM sync_state")
        [left] = await other.fetch("SELECT number, tokens[1]::text AS token FROM sync_position")
        assert stored["position"].split("/")[1:] == [str(left["number"]), left["token"]]
        # The very first that is not.
        assert (await said(graph, first)).state == "pending"
    await run_cycle(graph.context())
    assert (await said(graph, newer)).visible


async def test_transaction_that_wrote_nothing_here_is_visible_once_somebody_waits(graph: TestGraph) -> None:
    await written(graph, (NODE, "n", "one"))
    await run_cycle(graph.context())
    token = await written(graph)
    assert (await run_cycle(graph.context())).idle
    assert not (await said(graph, token)).visible
    await wanted(graph)
    await run_cycle(graph.context())
    assert (await said(graph, token)).visible
    assert await read(graph, "SELECT 1 FROM sync_run OFFSET 2") == []


async def test_wait_that_cannot_be_answered_leaves_idle_cycles_idle(
    graph: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    await written(graph, (NODE, "n", "one"))
    await run_cycle(graph.context())
    monkeypatch.setattr(engine_visible, "_MOST", 0)
    async with connected(graph) as other, other.transaction():
        await other.execute(NODE, "m", "open")
        token = await written(graph, (NODE, "k", "ahead"))
        await wanted(graph)
        await run_cycle(graph.context())
        assert not (await said(graph, token)).visible
        runs = await read(graph, "SELECT 1 FROM sync_run")
        await run_cycle(graph.context())
        assert await read(graph, "SELECT 1 FROM sync_run") == runs


async def test_parked_row_is_named_until_its_parent_arrives(graph: TestGraph) -> None:
    token = await written(graph, (NODE, "a", "a"), (EDGE, "e", "a", "b"))
    fine = await written(graph, (NODE, "z", "z"))
    await run_cycle(graph.context())
    found = await said(graph, token)
    assert (found.visible, found.state) == (False, "parked")
    assert "edges" in str(found.reason)
    assert "nodes" in str(found.reason)
    assert (await said(graph, fine)).visible
    last = await written(graph, (NODE, "b", "b"))
    await run_cycle(graph.context())
    assert [(await said(graph, each)).visible for each in (token, fine, last)] == [True, True, True]


async def test_version_that_is_parked_covers_the_one_before_it(graph: TestGraph) -> None:
    await written(graph, (NODE, "a", "a"), (NODE, "b", "b"))
    await run_cycle(graph.context())
    token = await written(graph, (EDGE, "e", "a", "b"))
    await written(graph, ("UPDATE write_edges SET target_node_id = 'c' WHERE id = $1", "e"))
    await run_cycle(graph.context())
    assert (await said(graph, token)).state == "covered"
    await written(graph, (NODE, "c", "c"))
    await run_cycle(graph.context())
    assert (await said(graph, token)).visible


async def test_version_of_a_lower_transaction_that_is_rejected_covers_the_one_before_it(
    graph: TestGraph,
) -> None:
    """It began first and ended last: its id says nothing about which of the two versions is the later one."""
    await on_target(graph, "ALTER TABLE nodes ADD CONSTRAINT decent CHECK (concept <> 'bad')")
    async with connected(graph) as other, other.transaction():
        lower = await other.fetchval("SELECT syncline.token()")
        token = await written(graph, (NODE, "n", "mine"))
        await other.execute(NODE, "n", "bad")
    await wanted(graph)
    await run_cycle(graph.context())
    assert "n" not in await concepts(graph)
    assert (await said(graph, lower)).state == "rejected"
    assert (await said(graph, token)).state == "covered"
    # One that begins after it was read cannot have been overwritten by it, whatever waits.
    later = await written(graph, (NODE, "m", "later"))
    await wanted(graph)
    await run_cycle(graph.context())
    assert (await said(graph, later)).visible
    assert (await said(graph, token)).state == "covered"
    # Nothing waits any more.
    mended = await written(graph, (NODE, "n", "good"))
    await wanted(graph)
    await run_cycle(graph.context())
    assert (await said(graph, mended)).visible
    assert (await said(graph, token)).visible


async def test_rejected_row_is_named_with_its_sqlstate_and_no_value(graph: TestGraph) -> None:
    await on_target(graph, "ALTER TABLE nodes ADD CONSTRAINT short CHECK (length(concept) < 9)")
    token = await written(graph, (NODE, "n", "secret words"))
    other = await written(graph, (NODE, "m", "short"))
    await run_cycle(graph.context())
    found = await said(graph, token)
    assert (found.visible, found.state) == (False, "rejected")
    assert "23514" in str(found.reason)
    assert "secret" not in str(found.reason)
    assert (await said(graph, other)).visible


async def test_vectors_are_said_to_be_written_separately(graph: TestGraph) -> None:
    await run_cycle(graph.context())
    await graph.vectors.close()
    token = await written(graph, (NODE, "n", "one"))
    context = replace(graph.context(), retry=RetryRules(vector_seconds=0))
    result = await run_cycle(context)
    assert result.status is CycleStatus.VECTORS_DELAYED
    found = await said(graph, token)
    assert (found.visible, found.vectors) == (True, False)
    assert "delayed" in str(found.reason)


async def test_vectors_of_row_that_was_read_beyond_an_open_transaction_are_not_said_to_be_written(
    graph: TestGraph,
) -> None:
    await written(graph, (NODE, "k", "one"))
    await run_cycle(graph.context())
    await graph.vectors.close()
    context = replace(graph.context(), retry=RetryRules(vector_seconds=0))
    async with connected(graph) as other:
        opened = other.transaction()
        await opened.start()
        await other.execute(NODE, "m", "open")
        token = await written(graph, (NODE, "k", "two"))
        await wanted(graph)
        await run_cycle(context)
        # Its row was read for those before it, who wait; its point is queued already.
        assert (await concepts(graph))["k"] == "two"
        await opened.rollback()
    for _ in range(2):
        await run_cycle(context)
        found = await said(graph, token)
        assert (found.visible, found.vectors) == (True, False)


@pytest.mark.parametrize("token", ["", "x", "1.2.3.4", "1.2.3.4.5.6", "1.2.3.-4", "' OR 1"])
async def test_what_is_no_token_is_refused(graph: TestGraph, token: str) -> None:
    connection = await graph.connect_target()
    try:
        with pytest.raises(asyncpg.InvalidParameterValueError, match="no token"):
            await connection.fetchrow("SELECT * FROM syncline.visible('kg', $1)", token)
    finally:
        await connection.close()


async def refusal(graph: TestGraph, token: str) -> str:
    connection = await graph.connect_target()
    try:
        with pytest.raises(asyncpg.InvalidParameterValueError) as refused:
            await connection.fetchrow("SELECT * FROM syncline.visible('kg', $1)", token)
        return str(refused.value)
    finally:
        await connection.close()


async def test_token_of_another_cluster_database_or_past_is_refused(graph: TestGraph) -> None:
    token = await written(graph, (NODE, "n", "one"))
    await run_cycle(graph.context())
    cluster, database, started, *xids = token.split(".")
    xid = ".".join(xids)
    assert "another database" in await refusal(graph, f"1.{database}.{started}.{xid}")
    assert "another database" in await refusal(graph, f"{cluster}.1.{started}.{xid}")
    assert "past" in await refusal(graph, f"{cluster}.{database}.{int(started) - 1}.{xid}")
    later = await said(graph, f"{cluster}.{database}.{int(started) + 1}.{xid}")
    assert (later.visible, later.state) == (False, "pending")


async def test_token_of_before_a_restore_is_not_believed(graph: TestGraph) -> None:
    token = await written(graph, (NODE, "n", "one"))
    await run_cycle(graph.context())
    assert (await said(graph, token)).visible
    await write(graph, "UPDATE sync_position SET branch = gen_random_uuid()")
    # As the server of the copy would say, which was started later.
    cluster, database, started, *xids = token.split(".")
    xid = ".".join(xids)
    before = f"{cluster}.{database}.{int(started) - 1}.{xid}"
    await on_target(
        graph,
        f"UPDATE sync_state SET visible = jsonb_set(visible, '{{sources}}', '[\"{before[: -len(xid) - 1]}\"]')",
    )
    assert (await said(graph, before)).visible
    result = await SyncEngine(KNOWLEDGE_GRAPH).run_cycle(graph.context())
    assert result.rescanned
    assert "past" in await refusal(graph, before)
    assert (await said(graph, token)).visible


async def test_reader_without_rights_on_bookkeeping_gets_an_answer(graph: TestGraph) -> None:
    token = await written(graph, (NODE, "n", "one"))
    await run_cycle(graph.context())
    role = f"reader_{graph.target_dsn.split('/')[3].split('?')[0]}"
    await on_target(graph, f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA kg, syncline TO {role}")
    connection = await asyncpg.connect(graph.target_dsn.replace("postgres@", f"{role}@"))
    try:
        assert await connection.fetchval("SELECT visible FROM syncline.visible('kg', $1)", token)
        await on_target(graph, f"REVOKE USAGE ON SCHEMA kg FROM {role}")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetchval("SELECT visible FROM syncline.visible('kg', $1)", token)
    finally:
        await connection.close()
        await on_target(graph, f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_bookkeeping_of_another_role_is_not_read(graph: TestGraph) -> None:
    token = await written(graph, (NODE, "n", "one"))
    tables = ("state", "parked_row", "dead_letter", "outbox", "visible", "vector_delay", "count")
    views = ";".join(f"CREATE VIEW evil.sync_{name} AS SELECT * FROM kg.sync_{name}" for name in tables)
    await on_target(graph, f"CREATE SCHEMA evil; {views}")
    connection = await graph.connect_target()
    try:
        with pytest.raises(asyncpg.InvalidParameterValueError, match="no graph"):
            await connection.fetchrow("SELECT * FROM syncline.visible('evil', $1)", token)
    finally:
        await connection.close()


async def test_bookkeeping_of_several_roles_is_told_with_their_names(graph: TestGraph) -> None:
    token = await written(graph, (NODE, "n", "one"))
    role = f"owner_{graph.target_dsn.split('/')[3].split('?')[0]}"
    await on_target(graph, f"CREATE ROLE {role}; ALTER TABLE sync_outbox OWNER TO {role}")
    connection = await graph.connect_target()
    try:
        with pytest.raises(asyncpg.InvalidParameterValueError, match="no graph") as refused:
            await connection.fetchrow("SELECT * FROM syncline.visible('kg', $1)", token)
        assert f"belong to {role}, postgres" in str(refused.value.hint)  # type: ignore[attr-defined]
    finally:
        await connection.close()
        await on_target(graph, f"REASSIGN OWNED BY {role} TO postgres; DROP ROLE {role}")


async def test_vectors_that_are_written_are_notified_of_after_the_rows(graph: TestGraph) -> None:
    told: list[str] = []

    async def twice() -> bool:
        return len(told) == 2

    async with heard(graph, told):
        await written(graph, (NODE, "n", "one"))
        await run_cycle(graph.context())
        await eventually(twice)
    assert told == ["kg", "kg"]


@asynccontextmanager
async def heard(graph: TestGraph, told: list[str]) -> AsyncIterator[None]:
    """Collect what is notified of on the channel of waits."""
    connection = await graph.connect_target()
    await connection.add_listener(names.VISIBLE_CHANNEL, lambda *said: told.append(str(said[-1])))
    try:
        yield
    finally:
        await connection.close()


async def test_writer_without_any_right_of_syncline_gets_a_token(graph: TestGraph) -> None:
    role = f"writer_{graph.write_dsn.split('/')[3].split('?')[0]}"
    await write(
        graph,
        f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA kg TO {role};"
        f"GRANT INSERT, SELECT, UPDATE ON kg.write_nodes TO {role};"
        "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC",
    )
    connection = await asyncpg.connect(
        graph.write_dsn.replace("postgres@", f"{role}@"), statement_cache_size=0
    )
    try:
        async with connection.transaction():
            await connection.execute(NODE.replace("write_nodes", "kg.write_nodes"), "n", "one")
            token = await connection.fetchval("SELECT syncline.token()")
        await run_cycle(graph.context())
        assert (await said(graph, token)).visible
    finally:
        await connection.close()
        await write(
            graph,
            f"GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC; DROP OWNED BY {role}; DROP ROLE {role}",
        )
