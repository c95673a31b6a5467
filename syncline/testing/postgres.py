"""pytest fixtures: one embedded Postgres per session, fresh databases per test, cloned from templates."""

import asyncio
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator
from itertools import count
from pathlib import Path
from typing import TypeVar

import asyncpg
import pytest

from syncline.devstack.postgres import EmbeddedPostgres, PostgresServer

T = TypeVar("T")

_names = count(1)


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> Iterator[EmbeddedPostgres]:
    """A running embedded Postgres, stopped at the end of the session.

    Where the suite has an option `--postgres-bin`, it is the one whose programs are in that folder.
    """
    bin_dir: Path | None = request.config.getoption("postgres_bin", None)
    with tempfile.TemporaryDirectory(prefix="syncline-pg-") as folder:
        server = PostgresServer(Path(folder) / "data", bin_dir=bin_dir)
        try:
            running = server.start()
            # Databases come and go by the hundred here, and none has to outlive the machine.
            for setting in ("fsync = off", "full_page_writes = off", "max_wal_size = '256MB'"):
                running.psql(f"ALTER SYSTEM SET {setting}")
            running.psql("SELECT pg_reload_conf()")
            yield running
        finally:
            server.stop()


@pytest.fixture(scope="session")
def postgres_admin(postgres_server: EmbeddedPostgres) -> Iterator[Callable[[str], object]]:
    """A function that executes one statement on that server, outside a transaction, wherever it is called.

    It has a connection in a thread of its own: a process of psql takes longer to start than most statements.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="postgres-admin", daemon=True)
    thread.start()

    def done(work: Coroutine[object, object, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result(60)

    connection = done(asyncpg.connect(postgres_server.dsn()))
    yield lambda sql: done(connection.execute(sql))
    done(connection.close())
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(scope="session")
def cloning(postgres_server: EmbeddedPostgres) -> str:
    """How a database is made from a template: by copies of files, a third of the work of logging each page.

    PostgreSQL 14 knows no other way, and no word for it.
    """
    return "STRATEGY file_copy" if int(postgres_server.psql("SHOW server_version_num")) >= 150_000 else ""


@pytest.fixture
def new_database(
    postgres_server: EmbeddedPostgres, postgres_admin: Callable[[str], object], cloning: str
) -> Iterator[Callable[..., str]]:
    """A function `(template="template1") -> dsn` that creates a database for this test; dropped after it."""
    created: list[str] = []

    def create(template: str = "template1") -> str:
        name = f"test_{next(_names)}"
        postgres_admin(f'CREATE DATABASE "{name}" TEMPLATE "{template}" {cloning}')
        created.append(name)
        return postgres_server.dsn(name)

    yield create
    for name in created:
        postgres_admin(f'DROP DATABASE "{name}" WITH (FORCE)')
