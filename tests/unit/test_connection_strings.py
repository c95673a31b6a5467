"""Connection strings: what libpq takes and consoles print, as what a login needs."""

import asyncio
import ssl
from pathlib import Path

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from syncline.control.readiness import log_in
from syncline.control.services import Services
from syncline.errors import SettingsInvalid
from syncline.operator.health.postgres import tls_checks
from syncline.settings import Settings
from syncline.stores.dsn import ConnectionStringInvalid, Dsn, parse_dsn
from syncline.stores.postgres import PostgresStore
from syncline.testing.lab import eventually


def parsed(text: str, **environment: str) -> Dsn:
    return parse_dsn(text, environment=environment)


def password(dsn: Dsn) -> str | None:
    return None if dsn.password is None else dsn.password.get_secret_value()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg", "postgresql+psycopg2"])
def test_a_uri_says_who_logs_in_where(scheme: str) -> None:
    dsn = parsed(f"{scheme}://me%40here:p%23%2F%3F%25@db.example:6543/my%20db")
    assert (dsn.hosts[0].name, dsn.hosts[0].port) == ("db.example", 6543)
    assert (dsn.user, password(dsn), dsn.database) == ("me@here", "p#/?%", "my db")


def test_a_colon_in_a_password_is_what_libpq_makes_of_it() -> None:
    assert password(parsed("postgresql://u:a:b@host/db")) == "a:b"


@pytest.mark.parametrize(
    "text",
    [
        "host=db.example port=6543 dbname=d user=u password='p w\\'s'",
        "host = db.example  port=6543 dbname=d user=u password=p\\ w\\'s",
        "postgresql://db.example/d?port=6543&user=u&password=p%20w's",
    ],
)
def test_the_keyword_form_is_as_good(text: str) -> None:
    dsn = parsed(text)
    assert (dsn.hosts[0].name, dsn.hosts[0].port) == ("db.example", 6543)
    assert (dsn.user, password(dsn), dsn.database) == ("u", "p w's", "d")


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u@%2Fvar%2Frun:5433/d",
        "postgresql://u@/d?host=/var/run&port=5433",
        "host=/var/run port=5433 user=u dbname=d",
    ],
)
def test_a_unix_socket_is_a_folder(text: str) -> None:
    dsn = parsed(text, PGSSLMODE="verify-full")
    assert (dsn.hosts[0].name, dsn.hosts[0].port, dsn.database) == ("/var/run", 5433, "d")
    assert (dsn.tls.mode, dsn.unverified) == ("disable", False)


def test_several_hosts_share_a_port_or_have_their_own() -> None:
    dsn = parsed(
        "postgresql://u@one:1,[::1]:2,three/d?target_session_attrs=read-write&load_balance_hosts=random"
    )
    assert [(host.name, host.port) for host in dsn.hosts] == [("one", 1), ("::1", 2), ("three", 5432)]
    assert (dsn.target_session_attrs, dsn.shuffled) == ("read-write", True)
    assert [host.port for host in parsed("host=a,b port=7 user=u").hosts] == [7, 7]


@pytest.mark.parametrize(
    ("printed_by", "text", "verified"),
    [
        ("Neon", "postgresql://u:p@ep-x.neon.tech/neondb?sslmode=require&channel_binding=require", True),
        (
            "Neon, by options",
            "postgresql://u:p@ep-x.neon.tech/d?sslmode=require&options=endpoint%3Dep-x",
            False,
        ),
        (
            "Supabase",
            "postgresql://postgres.ref:p@aws-0-eu.pooler.supabase.com:6543/postgres?pgbouncer=true",
            False,
        ),
        ("Heroku", "postgres://u:p@ec2-1.compute-1.amazonaws.com:5432/d", False),
        (
            "Azure",
            "host=x.postgres.database.azure.com port=5432 dbname=d user=u@x password=p sslmode=require",
            False,
        ),
        ("a public one", "postgresql://u:p@db.example/d?sslmode=verify-full&sslrootcert=system", True),
        ("system alone", "postgresql://u:p@db.example/d?sslrootcert=system", True),
        ("JDBC's way", "postgresql://u:p@db.example/d?ssl=true", False),
    ],
)
def test_what_consoles_print_works_as_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, printed_by: str, text: str, verified: bool
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    dsn = parsed(text)
    assert dsn.tls.verified is verified, printed_by
    assert dsn.unverified is not verified


def test_channel_binding_is_never_less_than_a_verified_certificate() -> None:
    tls = parsed("postgresql://u:p@db.example/d?channel_binding=require").tls
    assert (tls.mode, tls.roots) == ("verify-full", "system")
    context = tls.for_driver()
    assert isinstance(context, ssl.SSLContext)
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)


def test_the_environment_protects_where_the_string_does_not_say() -> None:
    assert parsed("postgresql://u@db.example/d", PGSSLMODE="verify-full", PGSSLROOTCERT="system").tls.verified
    assert parsed("postgresql://u@db.example/d?sslmode=disable", PGSSLMODE="require").tls.mode == "disable"
    with pytest.raises(ConnectionStringInvalid, match="require_auth"):
        parsed("postgresql://u@db.example/d", PGREQUIREAUTH="scram-sha-256")


def test_sockets_and_patience_are_as_they_are_told() -> None:
    dsn = parsed(
        "postgresql://u@h/d?connect_timeout=3&keepalives_idle=7&keepalives_interval=2&keepalives_count=4"
        "&tcp_user_timeout=9000"
    )
    told = dsn.keepalive
    assert (dsn.connect_seconds, told.on, told.idle, told.interval) == (3, True, 7, 2)
    assert (told.count, told.user_timeout_ms) == (4, 9000)
    assert parsed("postgresql://u@h/d?connect_timeout=0").connect_seconds is None
    assert not parsed("postgresql://u@h/d?keepalives=0").keepalive.on


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("10.0.0.1", False), ("db.example", False)],
)
def test_only_what_leaves_the_machine_is_warned_of(host: str, local: bool) -> None:
    written = f"[{host}]" if ":" in host else host
    assert parsed(f"postgresql://u@{written}/d").unverified is not local


def test_nothing_secret_shows_in_what_was_parsed() -> None:
    assert "hunter2" not in repr(parsed("postgresql://u:hunter2@h/d?sslmode=require&sslpassword=hunter2"))


def test_a_store_of_a_bad_string_is_refused_without_the_string() -> None:
    with pytest.raises(SettingsInvalid) as refused:
        PostgresStore("far", SecretStr("postgresql://u:hu#nter2@h/d"), pool_size=1, application_name="t")
    assert "nter2" not in str(refused.value)
    assert refused.value.__context__ is None


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        ("postgresql://u@db.example/d", True),
        ("postgresql://u@db.example/d?sslmode=require", True),
        ("postgresql://u@db.example/d?sslrootcert=system", False),
        ("postgresql://u@127.0.0.1/d", False),
        ("postgresql://u@/d?host=/run/postgresql", False),
    ],
)
def test_doctor_warns_of_tls_that_is_not_verified(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, warned: bool
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PGSSLMODE", raising=False)
    store = PostgresStore("write", SecretStr(text), pool_size=1, application_name="t")
    checks = tls_checks("write-db", store, "SYNCLINE_WRITE_DSN")
    assert [check.status for check in checks] == (["warn"] if warned else [])


async def test_a_worker_says_at_its_start_that_tls_is_not_verified(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    nowhere = SecretStr("postgresql://u:hunter2@nobody.invalid/d")
    settings = Settings(write_dsn=nowhere, graph_dsn=nowhere, qdrant_path=tmp_path)
    async with Services.open(settings) as services:
        with capture_logs() as lines:
            # Nobody answers there, so it goes on.
            logging_in = asyncio.create_task(log_in(services))

            async def told() -> bool:
                return sum("certificate not verified" in str(line["event"]) for line in lines) == 2

            await eventually(told)
            logging_in.cancel()
            with pytest.raises(asyncio.CancelledError):
                await logging_in
    assert "hunter2" not in str(lines)
