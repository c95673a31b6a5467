"""The `temporal` command, as an operator runs it, against a test's server."""

import asyncio

from temporalio.client import Client

from syncline.devstack.temporal_server import temporal_binary

__all__ = ["temporal"]


async def temporal(client: Client, *arguments: str) -> str:
    """Run a command, and return what it printed."""
    process = await asyncio.create_subprocess_exec(
        temporal_binary(), *arguments,
        "--address", client.service_client.config.target_host, "--namespace", client.namespace,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    if process.returncode:
        raise AssertionError(f"temporal {' '.join(arguments)}: {said.decode()}")
    return said.decode()
