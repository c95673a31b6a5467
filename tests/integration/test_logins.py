"""Logging in to a real server: passwords that change, certificates, several hosts, and who is refused how."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from syncline.devstack.postgres import EmbeddedPostgres
from syncline.errors import StoreRejected, StoreUnavailable, StoreUnusable
from syncline.migrations import migrate_control
from syncline.operator.health.postgres import check_postgres
from syncline.stores.login import version_problem
from syncline.stores.postgres import PostgresStore
from tests.kit.ports import free_port
from tests.kit.secrecy import everything_said

HERE = Path(__file__).parent
AUTHORITY = HERE / "certificates/authority.pem"
"""Of the certificate in server.pem, which is for 127.0.0.1 alone. Their keys protect nothing."""


@pytest.fixture
def guarded(
    postgres_server: EmbeddedPostgres, postgres_admin: Callable[[str], object], unique: Callable[[str], str]
) -> Iterator[str]:
    """A role that needs its password, `hunter2` at first."""
    name = unique("guarded").replace("-", "_")
    postgres_admin(f"CREATE ROLE {name} LOGIN PASSWORD 'hunter2'")
    rules = postgres_server.data_dir / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f"local all {name} scram-sha-256\n{before}")
    postgres_admin("SELECT pg_reload_conf()")
    yield name
    rules.write_text(before)
    postgres_admin("SELECT pg_reload_conf()")
    postgres_admin(f"DROP ROLE {name}")


Open = Callable[..., PostgresStore]


@pytest.fixture
def store(postgres_server: EmbeddedPostgres) -> Open:
    """A function that gives a store of a connection string, or of a role of the server."""

    def opened(
        user: str = "postgres", more: str = "", *, dsn: str | None = None, **fields: object
    ) -> PostgresStore:
        text = dsn or f"postgresql://{user}@/postgres?host={postgres_server.socket_dir}{more}"
        fields = {"pool_size": 1, "application_name": "t", "setting": "SYNCLINE_WRITE_DSN", **fields}
        return PostgresStore("write", SecretStr(text), **fields)  # type: ignore[arg-type]

    return opened


async def asked(store: PostgresStore, sql: str = "SELECT current_user") -> object:
    """What the server answers on a connection of its own."""
    async with store.alone("test") as connection:
        return await connection.fetchval(sql)


async def refused(store: PostgresStore) -> StoreUnusable:
    with pytest.raises(StoreUnusable) as error:
        await asked(store)
    assert "hunter2" not in everything_said(error.value)
    assert "hunter3" not in everything_said(error.value)
    return error.value


async def test_a_wrong_password_names_the_setting_and_not_the_password(guarded: str, store: Open) -> None:
    error = await refused(store(guarded, "&password=hunter3"))
    assert (error.sqlstate, error.retryable) == ("28P01", True)
    assert "SYNCLINE_WRITE_DSN" in str(error)
    assert await asked(store(guarded, "&password=hunter2")) == guarded


async def test_every_failure_says_which_database_it_is_of(guarded: str, store: Open) -> None:
    """Where stores have one schema and role each, their keys alone say little."""
    wrong, right = (store(guarded, f"&password=hunter{number}") for number in (3, 2))
    place = right.place
    assert place.endswith("/postgres")
    assert str(await refused(wrong)).startswith(f"Postgres store 'write' ({place}) [SQLSTATE 28P01]: ")
    with pytest.raises(StoreRejected) as lacking:
        await asked(right, "SELECT * FROM pg_catalog.pg_authid")
    assert str(lacking.value).startswith(f"Postgres store 'write' ({place}) [SQLSTATE 42501]: ")
    away = store(dsn="host=127.0.0.1,localhost port=1 user=u dbname=shop password=hunter2")
    with pytest.raises(StoreUnavailable) as silent:
        await asked(away)
    assert str(silent.value).startswith("Postgres store 'write' (127.0.0.1:1,localhost:1/shop): ")
    assert "hunter" not in everything_said(silent.value) + everything_said(lacking.value)
    assert (silent.value.store, f"{silent.value.store}") == ("write", "write")


async def test_a_password_file_counts_and_so_does_what_it_says_later(
    guarded: str,
    store: Open,
    postgres_admin: Callable[[str], object],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.delenv("PGPASSWORD", raising=False)
    file = tmp_path / "pgpass"
    monkeypatch.setenv("PGPASSFILE", str(file))
    opened = store(guarded)
    assert "is not there" in str(await refused(opened))
    file.write_text(f"# ours\nelsewhere:*:*:{guarded}:hunter3\n*:*:postgres:{guarded}:hunter2\n")
    file.chmod(0o644)
    assert "chmod 600" in str(await refused(opened))
    file.chmod(0o600)
    assert await asked(opened) == guarded
    postgres_admin(f"ALTER ROLE {guarded} PASSWORD 'hunter3:\\'")
    assert (await refused(opened)).sqlstate == "28P01"
    file.write_text(f"localhost:5432:*:{guarded}:hunter3\\:\\\\\n")
    assert await asked(opened) == guarded
    assert await asked(store(guarded, f"&passfile={file}")) == guarded


async def test_a_command_gives_the_password_and_is_asked_again_when_that_is_refused(
    guarded: str, store: Open, postgres_admin: Callable[[str], object], tmp_path: Path
) -> None:
    answer, runs = tmp_path / "answer", tmp_path / "runs"
    program = tmp_path / "token"
    program.write_text(f'#!/bin/sh\necho "$PGUSER" >> {runs}\ncat {answer}\n')
    program.chmod(0o700)
    opened = store(guarded, password_command=[str(program)])
    answer.write_text("hunter2\n")
    assert [await asked(opened), await asked(opened)] == [guarded, guarded]
    assert runs.read_text() == f"{guarded}\n"
    postgres_admin(f"ALTER ROLE {guarded} PASSWORD 'hunter3'")
    answer.write_text("hunter3\n")
    await asyncio.sleep(1)
    assert await asked(opened) == guarded
    assert runs.read_text() == 2 * f"{guarded}\n"


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["/nobody/has/this", "hunter2"], StoreUnusable),
        (["sh", "-c", "echo hunter2 >&2; exit 3"], StoreUnavailable),
        (["true"], StoreUnavailable),
        (["printf", "hunter2\nhunter2"], StoreUnavailable),
    ],
)
async def test_a_command_that_gives_no_password_is_told_without_its_words(
    guarded: str, store: Open, words: list[str], kind: type[Exception]
) -> None:
    with pytest.raises(kind) as error:
        await asked(store(guarded, password_command=words))
    assert "hunter2" not in everything_said(error.value)


async def test_a_certificate_is_trusted_or_the_way_out_is_told(
    postgres_server: EmbeddedPostgres, store: Open
) -> None:
    async with tls_in_front_of(postgres_server) as port:

        def over(host: str, more: str) -> PostgresStore:
            return store(dsn=f"postgresql://postgres:hunter2@{host}:{port}/postgres?{more}")

        trusted = f"sslrootcert={AUTHORITY}&sslmode="
        for mode in ("require", "verify-ca", "verify-full"):
            assert await asked(over("127.0.0.1", trusted + mode)) == "postgres"
        assert await asked(over("localhost", trusted + "verify-ca")) == "postgres"
        assert await asked(over("127.0.0.1", "sslmode=require")) == "postgres"
        assert await asked(over("127.0.0.1", "")) == "postgres"
        mismatch = await refused(over("localhost", trusted + "verify-full"))
        assert "not valid for 'localhost'" in str(mismatch)
        unknown = await refused(over("127.0.0.1", "sslrootcert=system"))
        assert "sslrootcert" in str(unknown)
        # What Neon prints asks for binding, and gets no less.
        bound = await refused(over("127.0.0.1", "sslmode=require&channel_binding=require"))
        assert "certificate" in str(bound)


async def test_a_server_without_tls_is_not_an_outage(postgres_server: EmbeddedPostgres, store: Open) -> None:
    async with plain_in_front_of(postgres_server) as port:
        address = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        assert "has no TLS" in str(await refused(store(dsn=f"{address}?sslmode=require")))
        assert await asked(store(dsn=f"{address}?sslmode=prefer")) == "postgres"


async def test_hosts_are_tried_until_one_is_what_is_asked_for(
    postgres_server: EmbeddedPostgres, store: Open
) -> None:
    async with plain_in_front_of(postgres_server) as port:
        hosts = f"postgresql://postgres@127.0.0.1:{free_port()},127.0.0.1:{port}/postgres"
        for attributes in ("any", "primary", "read-write", "prefer-standby"):
            assert await asked(store(dsn=f"{hosts}?target_session_attrs={attributes}")) == "postgres"
        with pytest.raises(StoreUnavailable):
            await asked(store(dsn=f"{hosts}?target_session_attrs=standby"))


async def test_options_are_honoured_and_wrong_ones_are_this_processes_fault(store: Open) -> None:
    assert await asked(store(more="&options=-c%20work_mem%3D3MB"), "SHOW work_mem") == "3MB"
    assert (await refused(store(more="&options=-c%20nothing_like_it%3D1"))).sqlstate == "42704"


async def test_a_name_that_is_not_found_may_be_found_later(store: Open) -> None:
    nowhere = store(dsn="postgresql://u:hunter2@nobody.invalid/d")
    with pytest.raises(StoreUnavailable) as error:
        await asked(nowhere)
    assert "hunter2" not in everything_said(error.value)


@pytest.mark.parametrize(("version", "old"), [((14, 0, 0), False), ((18, 6, 0), False), ((13, 22, 0), True)])
def test_fourteen_is_the_oldest_version(version: tuple[int, ...], old: bool) -> None:
    problem = version_problem(version)
    assert (problem is not None) is old
    assert problem is None or ("13.22" in problem and "14" in problem)


async def pumped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: Path) -> None:
    there, back = await asyncio.open_unix_connection(str(path))

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while data := await source.read(65_536):
                sink.write(data)
                await sink.drain()
        sink.close()

    await asyncio.gather(pump(reader, back), pump(there, writer))


@asynccontextmanager
async def plain_in_front_of(server: EmbeddedPostgres) -> AsyncIterator[int]:
    """Have a TCP port lead to the server's Unix socket, at which it has no TLS."""
    path = server.socket_dir / ".s.PGSQL.5432"
    front = await asyncio.start_server(lambda r, w: pumped(r, w, path), "127.0.0.1", 0)
    try:
        yield front.sockets[0].getsockname()[1]
    finally:
        front.close()


@asynccontextmanager
async def tls_in_front_of(server: EmbeddedPostgres) -> AsyncIterator[int]:
    """The same with TLS, as a pooler or a load balancer has it."""
    path = server.socket_dir / ".s.PGSQL.5432"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(HERE / "certificates/server.pem")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readexactly(8)
            writer.write(b"S")
            await writer.drain()
            await writer.start_tls(context)
        except (OSError, ssl.SSLError, asyncio.IncompleteReadError):
            writer.close()  # whoever does not trust us
            return
        await pumped(reader, writer, path)

    front = await asyncio.start_server(serve, "localhost", 0, family=2)
    try:
        yield front.sockets[0].getsockname()[1]
    finally:
        front.close()


async def test_whatever_connects_refuses_a_server_that_is_too_old(
    store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a server of today is to a Syncline of the day after tomorrow."""
    monkeypatch.setattr("syncline.stores.login.OLDEST", 99)
    opened = store()
    assert "needs 99 or newer" in str(await refused(opened))
    with pytest.raises(StoreUnusable):
        await migrate_control(opened)
    with pytest.raises(StoreUnusable):
        await check_postgres("write-db", opened, wanted=1, setting="SYNCLINE_WRITE_DSN", writers=True)
