"""Calls on one collection run one by one in its thread, whichever event loops they come from."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from syncline.errors import VectorStoreUnavailable
from syncline.stores.open_collections import OpenCollection, OpenCollections
from syncline.stores.qdrant_edge import EmbeddedQdrantStore

if TYPE_CHECKING:
    from syncline.stores.edge_shard import EdgeShard


class _Shard:
    closed = False

    def close(self) -> None:
        self.closed = True


def _open(one: OpenCollection) -> None:
    one.shard = cast("EdgeShard", _Shard())


def _append(names: list[str], name: str, _: OpenCollection) -> None:
    names.append(name)


def test_submit_from_several_event_loops_runs_one_by_one() -> None:
    opened, inside, most, threads, total = OpenCollections(), 0, 0, set(), 0

    def visit(one: OpenCollection) -> None:
        nonlocal inside, most, total
        _open(one)
        inside += 1
        most = max(most, inside)
        threads.add(threading.get_ident())
        time.sleep(0.0001)
        inside -= 1
        total += 1

    async def visits() -> None:
        await asyncio.gather(*(asyncio.wrap_future(opened.submit("nodes", visit)) for _ in range(50)))

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(asyncio.run, visits()) for _ in range(4)]:
            done.result(timeout=30)
    assert (most, len(threads), total) == (1, 1, 200)


def test_submit_runs_in_order_and_never_what_was_cancelled() -> None:
    opened, go = OpenCollections(), threading.Event()
    order: list[str] = []
    first = opened.submit("nodes", lambda _: go.wait(timeout=30))
    others = [opened.submit("nodes", partial(_append, order, name)) for name in "abc"]
    assert others[1].cancel()
    go.set()
    others[2].result(timeout=30)
    assert first.result()
    assert order == ["a", "c"]


def test_submit_on_another_collection_waits_for_none() -> None:
    opened, go = OpenCollections(), threading.Event()
    busy = opened.submit("nodes", lambda _: go.wait(timeout=30))
    assert opened.submit("facts", lambda _: 1).result(timeout=30) == 1
    go.set()
    assert busy.result(timeout=30)


def test_close_ends_the_thread_and_a_later_call_has_a_new_one() -> None:
    opened = OpenCollections()
    opened.submit("nodes", _open).result(timeout=30)
    first = opened.submit("nodes", lambda _: threading.current_thread()).result(timeout=30)
    assert list(opened.shards) == ["nodes"]
    opened.submit("nodes", OpenCollection.close).result(timeout=30)
    first.join(timeout=30)
    assert not first.is_alive()
    assert not opened.shards
    second = opened.submit("nodes", lambda _: threading.current_thread()).result(timeout=30)
    assert second is not first


def test_unused_are_the_longest_unused_without_calls() -> None:
    opened, go = OpenCollections(), threading.Event()
    for name in "abcd":
        opened.submit(name, _open).result(timeout=30)
    assert opened.unused(4) == []
    busy = opened.submit("a", lambda _: go.wait(timeout=30))
    assert opened.unused(2) == ["b", "c"]
    go.set()
    busy.result(timeout=30)


async def test_cancelled_call_ends_before_its_caller_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go, ended = asyncio.Event(), threading.Event(), []
    loop, store = asyncio.get_running_loop(), EmbeddedQdrantStore("system", tmp_path)

    def load(_: str) -> None:
        loop.call_soon_threadsafe(begun.set)
        go.wait(timeout=30)
        ended.append("load")

    monkeypatch.setattr(store, "_load", load)
    under_way = asyncio.create_task(store.count("nodes"))
    await begun.wait()
    waiting = asyncio.create_task(store.count("nodes"))
    await asyncio.sleep(0)
    waiting.cancel()
    under_way.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not under_way.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await under_way
    assert ended == ["load"]
    await store.close()


async def test_close_refuses_the_calls_that_still_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = asyncio.Event(), threading.Event()
    loop, store = asyncio.get_running_loop(), EmbeddedQdrantStore("system", tmp_path)

    def load(_: str) -> None:
        loop.call_soon_threadsafe(begun.set)
        go.wait(timeout=30)

    monkeypatch.setattr(store, "_load", load)
    first, second = (asyncio.create_task(store.count("nodes")) for _ in range(2))
    await begun.wait()
    await store.close()
    go.set()
    assert await first == 0
    with pytest.raises(VectorStoreUnavailable, match="closed"):
        await second
