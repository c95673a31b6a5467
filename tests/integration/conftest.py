"""Databases in which everything is migrated already: that takes a graph 0.3 s of CPU, a copy of them a tenth."""

from collections.abc import Callable, Iterator

import pytest
import pytest_asyncio
from pydantic import SecretStr

from syncline.devstack.postgres import EmbeddedPostgres
from syncline.migrations import migrate_control
from syncline.stores.postgres import PostgresStore


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def migrated_templates(
    postgres_server: EmbeddedPostgres, graph_templates: tuple[str, str]
) -> tuple[str, str]:
    """Names of the template databases of a write-db and a graph-db with schema `kg`, and the control plane."""
    write, graph = graph_templates
    name = "template_migrated"
    postgres_server.psql(f'CREATE DATABASE "{name}" TEMPLATE "{graph}"')
    store = PostgresStore(
        name, SecretStr(postgres_server.dsn(name)), pool_size=1, application_name="template"
    )
    await migrate_control(store)
    await store.close()
    return write, name


@pytest.fixture
def migrated(new_database: Callable[..., str], migrated_templates: tuple[str, str]) -> tuple[str, str]:
    """Connection strings of a write-db and a graph-db of this test; preparing graph `kg` there finds all done."""
    write, graph = migrated_templates
    return new_database(write), new_database(graph)


@pytest.fixture(scope="module")
def stranger(postgres_admin: Callable[[str], object]) -> Iterator[str]:
    """The name of a role that may connect and nothing else."""
    name = "stranger"
    postgres_admin(f"CREATE ROLE {name} LOGIN")
    yield name
    postgres_admin(f"DROP ROLE {name}")
