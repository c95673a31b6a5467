"""Going back to a checkpoint, in the transaction that takes the fence."""

from datetime import UTC, datetime

from syncline.engine import run_cycle
from syncline.engine.checkpoints import Checkpoint, Checkpoints
from syncline.engine.render.statements import DELETES, Cursor
from syncline.engine.state import Fence
from syncline.testing.graphs import TestGraph, read, write
from tests.integration.test_deletes import SEED


async def test_a_table_that_is_read_again_has_no_cursor_after_a_rewind(graph: TestGraph) -> None:
    """A cycle that dies before its first batch must not leave one behind, and no key below what is pruned."""
    await write(graph, SEED)
    await run_cycle(graph.context())
    context = graph.context()
    stored = await read(graph, "SELECT table_name, xid::text::bigint AS xid FROM sync_cursor")
    cursors = {row["table_name"]: Cursor(xid=row["xid"] - 1) for row in stored}
    checkpoint = Checkpoint(fence=0, seq=0, at=datetime.now(UTC), cursors=cursors)
    pruned = cursors[DELETES].xid + 7
    async with context.target.store.driver() as target, target.transaction():
        await target.execute(f"SET LOCAL search_path = {context.target.schema}, pg_catalog")
        await Fence.take(
            target,
            graph=context.graph.slug,
            schema=context.target.schema,
            run=context.run,
            write_cluster="c/1",
            reread=["nodes"],
            no_deletes_below=pruned,
            checkpoints=Checkpoints(forget=True, rewind=checkpoint),
        )
    left = {
        row["table_name"]: row["xid"]
        for row in await read(graph, "SELECT table_name, xid::text::bigint AS xid FROM sync_cursor")
    }
    assert "nodes" not in left
    assert left["facts"] == cursors["facts"].xid
    assert left[DELETES] == pruned
