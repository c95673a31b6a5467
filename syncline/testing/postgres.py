"""pytest fixtures: one embedded Postgres per session, fresh databases per test, cloned from templates."""

import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from syncline.devstack.postgres import EmbeddedPostgres, PostgresServer

_names = count(1)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[EmbeddedPostgres]:
    """A running embedded Postgres, stopped at the end of the session."""
    with tempfile.TemporaryDirectory(prefix="syncline-pg-") as folder:
        server = PostgresServer(Path(folder) / "data")
        try:
            running = server.start()
            # Databases come and go by the hundred here, and none has to outlive the machine.
            for setting in ("fsync", "full_page_writes"):
                running.psql(f"ALTER SYSTEM SET {setting} = off")
            running.psql("SELECT pg_reload_conf()")
            yield running
        finally:
            server.stop()


@pytest.fixture
def new_database(postgres_server: EmbeddedPostgres) -> Iterator[Callable[..., str]]:
    """A function `(template="template1") -> dsn` that creates a database for this test; dropped after it."""
    created: list[str] = []

    def create(template: str = "template1") -> str:
        name = f"test_{next(_names)}"
        postgres_server.psql(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        created.append(name)
        return postgres_server.dsn(name)

    yield create
    for name in created:
        postgres_server.psql(f'DROP DATABASE "{name}" WITH (FORCE)')
