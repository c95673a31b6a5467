"""Full disks, for real: a small file system in a namespace of the test's own, and what is told of it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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
