"""The image: no root, no build tools, a root file system that is only read; and a worker in it that serves."""

import asyncio
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import urlopen

import asyncpg
import pytest

from syncline.devstack.postgres import EmbeddedPostgres
from syncline.settings import Settings
from syncline.testing.lab import eventually
from tests.kit.ports import free_port
from tests.kit.proxy import silent_proxy
from tests.kit.readable_qdrant import ReadableQdrant

if TYPE_CHECKING:
    from conftest import Image

pytestmark = pytest.mark.timeout(1800)


def test_image_is_no_root_and_has_no_build_tools(image: "Image") -> None:
    assert image.config["User"] == "10001:10001"
    assert image.config["Entrypoint"] == ["syncline"]
    assert image.config["Cmd"] == ["worker"]
    assert image.sh("id -u; id -G") == "10001\n10001\n"
    assert image.sh("command -v pip pip3 gcc cc make git curl wget || true") == ""
    assert image.sh(
        'python3 -c \'from importlib.util import find_spec as f; print(f("pip"), f("pytest"))\''
    ) == ("None None\n")
    assert "Read-only file system" in image.sh("touch /opt/syncline/x 2>&1 || touch /x 2>&1 || true")
    assert (
        image.sh("python3 -c 'import zoneinfo; print(zoneinfo.ZoneInfo(\"Europe/Berlin\"))'")
        == "Europe/Berlin\n"
    )
    # Compiled at the build: nothing can be written at the start.
    assert image.sh(
        "ls /opt/syncline/lib/python3*/site-packages/syncline/application/__pycache__ | grep -c worker"
    ) == ("1\n")


async def test_worker_of_the_image_syncs_a_graph(
    image: "Image",
    postgres_server: EmbeddedPostgres,
    new_database: Callable[..., str],
    temporal_environment: dict[str, str],
    unique: Callable[[str], str],
) -> None:
    write_dsn, graph_dsn = new_database(), new_database()
    socket = _socket(postgres_server)
    metrics, probes = free_port(), free_port()
    with ReadableQdrant() as qdrant:
        async with silent_proxy(socket) as by_tcp:
            environment = temporal_environment | {
                "SYNCLINE_WRITE_DSN": by_tcp.through(write_dsn),
                "SYNCLINE_GRAPH_DSN": by_tcp.through(graph_dsn),
                "SYNCLINE_QDRANT_URL": qdrant.url,
                "SYNCLINE_TASK_QUEUE": unique("image"),
                "SYNCLINE_METRICS_ADDRESS": f"127.0.0.1:{metrics}",
                "SYNCLINE_PROBES": f"127.0.0.1:{probes}",
            }

            async def run(*arguments: str) -> str:
                process = image.start(*arguments, environment=environment)
                said, _ = await asyncio.to_thread(process.communicate, timeout=120)
                assert process.returncode == 0, f"{arguments}\n{said}"
                return said

            assert "control plane: " in await run("migrate")
            await run("schedule", "list")
            worker = image.start("worker", environment=environment)
            said: list[str] = []
            reading = asyncio.create_task(asyncio.to_thread(_read, worker, said))
            try:

                async def ready() -> bool:
                    assert worker.poll() is None, "".join(said)
                    return any('"worker ready"' in line for line in said)

                await eventually(ready, seconds=120)
                assert re.search(r"/opt/syncline/lib/\S+/site-packages/syncline/application", "".join(said))
                assert _rights(worker) == {
                    "Uid": "10001 " * 4,
                    "CapEff": "0" * 16 + " ",
                    "CapBnd": "0" * 16 + " ",
                }
                await run("graph", "add", "solar")
                await _write(write_dsn)
                assert "drained" in await run("sync", "solar", "--timeout", "90")
                assert await _read_nodes(graph_dsn) == ["Sun"]
                assert "solar" in await run("status")
                assert "syncline_provider_info{" in await asyncio.to_thread(
                    _get, f"http://127.0.0.1:{metrics}/metrics"
                )
                if "probes" in Settings.model_fields:
                    await eventually(lambda: _is_green(f"http://127.0.0.1:{probes}/healthz"))
                    await eventually(lambda: _is_green(f"http://127.0.0.1:{probes}/readyz"))
                worker.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(worker.wait, 60) == 0, "".join(said)
            finally:
                if worker.poll() is None:
                    os.kill(worker.pid, signal.SIGKILL)
                await reading
            assert "Traceback" not in "".join(said)


def _socket(server: EmbeddedPostgres) -> Path:
    [socket] = Path(server.socket_dir).glob(".s.PGSQL.*[0-9]")
    return socket


def _rights(process: "subprocess.Popen[str]") -> dict[str, str]:
    """The user ids and the capabilities of a process, as the kernel has them."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    fields = {
        name: "".join(f"{word} " for word in rest.split())
        for name, _, rest in (line.partition(":") for line in lines)
    }
    return {name: fields[name] for name in ("Uid", "CapEff", "CapBnd")}


async def _is_green(url: str) -> bool:
    try:
        await asyncio.to_thread(_get, url)
    except URLError:
        return False
    return True


def _get(url: str) -> str:
    with urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def _read(worker: "subprocess.Popen[str]", said: list[str]) -> None:
    assert worker.stdout is not None
    with worker.stdout:
        said.extend(worker.stdout)


async def _write(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            "INSERT INTO solar.write_nodes (id, concept, definition) VALUES ('sun', 'Sun', 'A star.')"
        )
    finally:
        await connection.close()


async def _read_nodes(dsn: str) -> list[str]:
    connection = await asyncpg.connect(dsn)
    try:
        return [row["concept"] for row in await connection.fetch("SELECT concept FROM solar.nodes")]
    finally:
        await connection.close()
