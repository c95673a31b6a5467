"""All of WordNet through Temporal: by the README's commands, changed, with the worker killed, and counted."""

import asyncio
import itertools
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from syncline.stores.qdrant_edge import EmbeddedQdrantStore

if TYPE_CHECKING:
    from conftest import RunningStack

CHECKOUT = Path(__file__).parents[2]
README = (CHECKOUT / "README.md").read_text()
COMMANDS = re.findall(r"<!-- test: graph -->\n```sh\n(.*?)```", README, re.DOTALL)[0]
SYNSETS = 117_791

pytestmark = [pytest.mark.proof, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def wordnet(running_stack: "RunningStack", wait_until: Callable[..., None]) -> "RunningStack":
    """The stack after the README's commands, with the Schedule paused, so that only the tests start runs."""
    printed = running_stack.sh(COMMANDS, timeout=300)
    assert "sync-graph/wordnet" in printed
    running_stack.sh("temporal schedule toggle --schedule-id sync-graph/wordnet --pause --reason test")
    numbers = itertools.count()

    def settled() -> bool:
        result = running_stack.sync(f"wordnet-rest-{next(numbers)}", "wordnet")["result"]
        return result["status"] == "drained"

    wait_until(settled, 200)
    return running_stack


def query(stack: "RunningStack", store: str, sql: str) -> list[asyncpg.Record]:
    """Ask one of the stack's databases."""
    return stack.sql(store, "wordnet", sql)


def count(stack: "RunningStack", sql: str) -> int:
    """Return a number from the graph-db."""
    number: int = query(stack, "graph_dsn", sql)[0][0]
    return number


def pointers() -> set[tuple[str, ...]]:
    """Return the distinct pointers of the data files, by a parser that shares nothing with the loader."""
    found = set()
    for file in (".noun", ".verb", ".adj", ".adv"):
        for line in (CHECKOUT / ".wordnet" / "dict" / f"data{file}").read_text("utf-8").splitlines():
            if not re.match(r"\d{8} ", line):
                continue
            words = line.partition(" | ")[0].split()
            first = 4 + 2 * int(words[3], 16)
            for number in range(int(words[first])):
                start = first + 1 + 4 * number
                found.add((file, words[0], *words[start : start + 4]))
    return found


def test_every_table_holds_what_the_source_holds(wordnet: "RunningStack") -> None:
    edges = len(pointers())
    expected = {
        "raw_sources": 4,
        "facts": SYNSETS,
        "fact_sources": SYNSETS,
        "nodes": SYNSETS,
        "node_facts": SYNSETS,
        "edges": edges,
        "edge_facts": edges,
        "node_stats": SYNSETS,
        "sync_vector": 2 * SYNSETS,  # of nodes and of facts
        "sync_outbox": 0,
        "sync_parked_row": 0,
        "sync_parked_reference": 0,
        "sync_dead_letter": 0,
    }
    counted = {table: count(wordnet, f"SELECT count(*) FROM {table}") for table in expected}
    assert counted == expected


def test_a_second_cycle_writes_nothing(wordnet: "RunningStack") -> None:
    result = wordnet.sync("wordnet-idle", "wordnet")["result"]
    assert result["status"] == "drained"
    assert {table["captured"] for table in result["tables"]} == {0}


def test_a_thousand_changed_rows_travel_in_one_cycle(wordnet: "RunningStack") -> None:
    changed = "UPDATE write_nodes SET definition = definition || ' (changed)' WHERE id IN"
    query(wordnet, "write_dsn", f"{changed} (SELECT id FROM write_nodes ORDER BY md5(id) LIMIT 1000)")
    result = wordnet.sync("wordnet-changed", "wordnet")["result"]
    nodes = next(table for table in result["tables"] if table["table"] == "nodes")
    assert (result["status"], nodes["rows"], result["vectors"]["embedded"]) == ("drained", 1000, 1000)
    assert count(wordnet, "SELECT count(*) FROM nodes WHERE definition LIKE '%(changed)'") == 1000


def test_a_worker_killed_in_mid_cycle_costs_nothing(
    wordnet: "RunningStack", wait_until: Callable[..., None]
) -> None:
    query(wordnet, "write_dsn", "UPDATE write_nodes SET concept = concept || ' [killed]'")
    wordnet.sh(
        "temporal workflow start --task-queue syncline --type SyncGraph --workflow-id wordnet-killed"
        """ --input '{"graph": "wordnet", "batch_rows": 2000}'"""
    )
    arrived = "SELECT count(*) FROM nodes WHERE concept LIKE '%[killed]'"
    wait_until(lambda: count(wordnet, arrived) > 10_000, 60)
    children = wordnet.record()["children"]
    assert isinstance(children, dict)
    os.kill(children["worker"]["pid"], signal.SIGKILL)
    at_death = count(wordnet, arrived)
    assert at_death < SYNSETS
    assert at_death % 2000 == 0  # whole batches

    ended = wordnet.temporal("workflow", "result", "--workflow-id", "wordnet-killed")
    assert isinstance(ended, dict)
    result = ended["result"]["result"]
    assert (result["status"], result["failures"]) == ("drained", 0)
    nodes = next(table for table in result["tables"] if table["table"] == "nodes")
    assert nodes["rows"] == SYNSETS  # of both attempts
    history = wordnet.sh("temporal workflow show --workflow-id wordnet-killed --output json")
    assert re.search(r'"attempt": 2', history)
    source = query(wordnet, "write_dsn", "SELECT id, concept FROM write_nodes")
    target = query(wordnet, "graph_dsn", "SELECT key AS id, concept FROM nodes")
    assert {tuple(row) for row in source} == {tuple(row) for row in target}


def test_the_vector_store_holds_every_node_and_fact(wordnet: "RunningStack") -> None:
    wordnet.stop()

    async def points() -> list[int]:
        store = EmbeddedQdrantStore("qdrant", wordnet.state / "qdrant")
        try:
            return [await store.count("wordnet_nodes"), await store.count("wordnet_facts")]
        finally:
            await store.close()

    assert asyncio.run(points()) == [SYNSETS, SYNSETS]
