"""Full disks, for real: a small file system in a namespace of the test's own, and what is told of it."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from syncline.capture.install.install import adopt
from syncline.devstack.postgres import EmbeddedPostgres
from syncline.engine import Column, SchemaMap, SyncEngine, TableMap
from syncline.errors import StoreUnavailable
from syncline.messages.sync import CycleStatus
from syncline.migrations import migrate_bookkeeping
from syncline.testing.graphs import write
from tests.kit.bare_graph import bare_graph, made_by

SCRIPT = """
import asyncio, sys, uuid
from pathlib import Path
import numpy as np
from syncline.errors import VectorStoreUnavailable
from syncline.stores.qdrant_edge import EmbeddedQdrantStore
from syncline.stores.vectors import PointPayload

async def fill(store, batches):
    for _ in range(batches):
        points = [PointPayload(id=uuid.uuid4(), payload={"text": "x" * 200}) for _ in range(500)]
        await store.upsert("nodes", points, np.ones((500, 384), dtype=np.float32))

async def main(folder):
    store = EmbeddedQdrantStore("vectors", folder)
    await store.ensure_collection("nodes", dimensions=384)
    try:
        await fill(store, 200)
    except VectorStoreUnavailable as error:
        print(error)
    written = await store.count("nodes")
    await store.close()
    other = folder / "other"
    try:
        with other.open("wb") as full:
            while True:
                full.write(bytes(2**16))
                full.flush()
    except OSError:
        pass
    # A process that starts on the full disk: an error again, or what is there.
    store = EmbeddedQdrantStore("vectors", folder)
    try:
        await fill(store, 1)
    except VectorStoreUnavailable as error:
        print(error)
    other.unlink(missing_ok=True)
    print("points", await store.count("nodes") == written > 0)
    await store.close()

asyncio.run(main(Path(sys.argv[1])))
"""


def test_embedded_store_on_a_full_disk_is_an_error(tmp_path: Path) -> None:
    """The engine writes to mapped files, for which a full disk is a SIGBUS: no process would live to tell."""
    unshare = shutil.which("unshare")
    mount = 'mount -t tmpfs -o size=90m tmpfs "$0" && exec "$1" -c "$2" "$0"'
    namespace = [unshare or "unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if unshare is None or subprocess.run([*namespace, "true"], capture_output=True).returncode:
        pytest.skip("no namespaces here, so no file system of the test's own")
    done = subprocess.run(
        [*namespace, mount, tmp_path, sys.executable, SCRIPT], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = done.stdout.splitlines()
    assert len(said) == 3, said
    assert "its disk is full" in said[0]
    assert "os error 28" in said[1] or "disk is full" in said[1]
    assert said[2] == "points True"


async def test_graph_db_on_a_full_disk_is_named_and_retried(
    new_database: Callable[..., str], tmp_path: Path, postgres_server: EmbeddedPostgres
) -> None:
    """A retryable error that says what is full; nothing is lost, and the next attempt after that continues."""
    with small_disk(postgres_server.data_dir.owner()) as disk:
        async with bare_graph(new_database, tmp_path) as graph:
            await migrate_bookkeeping(graph.target, "kg")
            columns = (
                "id uuid PRIMARY KEY, key text NOT NULL, title text, sync_version bigint, sync_run bigint"
            )
            await made_by(
                graph,
                write="CREATE TABLE articles (code text PRIMARY KEY, title text)",
                target=f"CREATE TABLE goods ({columns})",
            )
            title = TableMap(name="goods", source="articles", key=("code",), columns=(Column(name="title"),))
            tables = SchemaMap(name="shop", tables=(title,))
            await adopt(graph.write, "kg", tables)
            connection = await graph.connect_target()
            name = f"full_{tmp_path.name[-8:]}".replace("-", "_")
            await connection.execute(f"CREATE TABLESPACE {name} LOCATION '{disk}'")
            try:
                await connection.execute(f"ALTER TABLE kg.goods SET TABLESPACE {name}")
                await write(
                    graph,
                    "INSERT INTO articles SELECT i, repeat(md5(i::text), 60) FROM generate_series(1, 9000) i",
                )
                with pytest.raises(StoreUnavailable, match="No space left on device") as full:
                    await SyncEngine(tables).run_cycle(graph.context())
                assert (full.value.store, full.value.sqlstate, full.value.retryable) == (
                    "graph",
                    "53100",
                    True,
                )
                enlarge(disk)
                result = await SyncEngine(tables).run_cycle(graph.context())
                assert (result.status, result.failures) == (CycleStatus.DRAINED, 0)
                assert await connection.fetchval("SELECT count(*) FROM kg.goods") == 9000
            finally:
                await connection.execute("ALTER TABLE kg.goods SET TABLESPACE pg_default")
                await connection.execute(f"DROP TABLESPACE {name}")
                await connection.close()


@contextmanager
def small_disk(owner: str) -> Iterator[Path]:
    """A file system of 8 MiB that Postgres may write to; it needs the right to mount."""
    with TemporaryDirectory(prefix="syncline-disk-") as name:
        disk = Path(name)
        disk.chmod(0o755)
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True
        ).returncode:
            pytest.skip("no file system may be mounted here")
        try:
            shutil.chown(disk, owner)
            yield disk
        finally:
            subprocess.run(["umount", "--lazy", disk], check=True)


def enlarge(disk: Path) -> None:
    """Make room on the file system."""
    subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
