"""The Temporal dev server of the stack over a database that an earlier release has made."""

import asyncio
from pathlib import Path

import pytest
from temporalio.service import RPCError

from syncline import names
from syncline.devstack.declaration import TemporalDeclaration
from syncline.devstack.temporal_server import TemporalServer, temporal_binary
from syncline.errors import TemporalUnavailable
from syncline.temporal.client import connect, missing_search_attributes
from syncline.testing.lab import eventually
from tests.kit.ports import free_port


async def test_a_database_of_an_earlier_release_gets_the_search_attributes_added_since(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    database, port = tmp_path / "temporal.db", free_port()
    earlier = await asyncio.create_subprocess_exec(
        temporal_binary(), "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(port),
        "--db-filename", str(database), "--log-level", "error", "--search-attribute", "SynclineGraph=Keyword",
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:

        async def lacks_some() -> bool:
            try:
                client = await connect(address=f"127.0.0.1:{port}")
                return names.ATTRIBUTE_GRAPH not in await missing_search_attributes(client)
            except TemporalUnavailable:
                return False

        await eventually(lacks_some)
    finally:
        earlier.terminate()
        await earlier.wait()

    declared = TemporalDeclaration(port=free_port(), ui_port=free_port())
    server = TemporalServer(declared, database=database, log=tmp_path / "temporal.log")
    await server.start()
    try:
        client = await server.ready()
        assert await missing_search_attributes(client) == set()
    finally:
        await server.stop()
    # Whoever asked gets an error; the SDK's core would write each retry, over what a command prints.
    with pytest.raises((RPCError, TimeoutError)):
        await asyncio.wait_for(client.count_workflows(), 3)
    assert "temporalio_client" not in "".join(capfd.readouterr())
