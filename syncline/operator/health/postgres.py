"""Checks of one Postgres store: reachability, connections, clock, and transactions that hold back capture."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import text
from sqlalchemy.engine import RowMapping

from syncline.operator.health.check import Check, CheckStatus, skew_check
from syncline.sql import string_literal
from syncline.stores.horizon import OLDEST_WRITER
from syncline.stores.postgres import PostgresStore

__all__ = ["check_postgres", "tls_checks"]

_OLD_SECONDS: Final = 60.0
_OF_A_PRIMARY: Final = ("primary", "read-write")

_ASK: Final = text(
    """
    SELECT current_setting('server_version') AS version, current_database() AS database,
           coalesce(host(inet_server_addr()), 'local socket') AS host, inet_server_port() AS port,
           current_setting('max_connections')::int
               - current_setting('superuser_reserved_connections')::int AS usable,
           (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS used,
           pg_has_role('pg_read_all_stats', 'USAGE') AS sees_others,
           pg_is_in_recovery() AS standby,
           clock_timestamp() AS clock
    """
)


async def check_postgres(
    name: str, store: PostgresStore, *, wanted: int, setting: str, writers: bool
) -> Sequence[Check]:
    """Return the checks of a store, or raise StoreError if it does not answer.

    `wanted` is the number of connections that all workers may open, `setting` the variable of the store's
    address; `writers` includes open transactions, which hold back capture on a write-db.
    """
    async with store.begin() as connection:
        # The connection is open by now, so this measures one round trip.
        before = datetime.now(UTC)
        row = (await connection.execute(_ASK)).mappings().one()
        after = datetime.now(UTC)
        writer = (await connection.execute(text(OLDEST_WRITER))).mappings().first() if writers else None
    place = row["host"] if row["port"] is None else f"{row['host']}:{row['port']}"
    checks = [
        Check(name=name, found=f"PostgreSQL {row['version']}, database {row['database']} at {place}"),
        _connections(name, row, wanted),
        skew_check(
            f"{name}: clock", row["clock"] - after, row["clock"] - before, whose=f"{place} ({setting})"
        ),
    ]
    if writers:
        checks.append(_writer(name, writer, sees_others=row["sees_others"], standby=row["standby"]))
        checks += _servers(name, store, setting)
    return checks


def tls_checks(name: str, store: PostgresStore, setting: str) -> Sequence[Check]:
    """Return a warning if the server's certificate is not verified, unless it is local."""
    if not store.login.dsn.unverified:
        return []
    return [
        Check(
            name=f"{name}: TLS",
            status=CheckStatus.WARN,
            found=f"sslmode={store.login.dsn.tls.mode} verifies no certificate: an attacker in between could "
            "read the traffic, or impersonate the server",
            fix=f"Add sslmode=verify-full and sslrootcert to {setting}: docs/connections.md.",
        )
    ]


def _connections(name: str, row: RowMapping, wanted: int) -> Check:
    found = f"workers may take {wanted} of {row['usable']}; {row['used']} are in use"
    if wanted <= row["usable"]:
        return Check(name=f"{name}: connections", found=found)
    return Check(
        name=f"{name}: connections",
        status=CheckStatus.WARN,
        found=found,
        fix="Raise max_connections of the server, lower SYNCLINE_POOL_SIZE, or run fewer workers.",
    )


def _servers(name: str, store: PostgresStore, setting: str) -> Sequence[Check]:
    """Return a warning if the address of a write-db shows that connections may lead to several servers."""
    dsn = store.login.dsn
    if len(dsn.hosts) == 1 or dsn.target_session_attrs in _OF_A_PRIMARY:
        return []
    return [
        Check(
            name=f"{name}: servers",
            status=CheckStatus.WARN,
            found=f"its connection string names {len(dsn.hosts)} hosts and does not ask for the primary: a "
            "standby that lacks what another server has shown is not read, and the run is retried",
            fix=f"Add target_session_attrs=primary to {setting}, or name one host: docs/connections.md.",
        )
    ]


def _writer(name: str, writer: RowMapping | None, *, sees_others: bool, standby: bool) -> Check:
    name = f"{name}: open transactions"
    if standby:
        return Check(
            name=name,
            status=CheckStatus.WARN,
            found="it is a standby, which does not show the transactions that hold back capture",
            fix="See pg_stat_activity of the primary, or set the workers' write-db to the primary.",
        )
    if not sees_others:
        return Check(
            name=name,
            status=CheckStatus.WARN,
            found="the worker's role may not see how long transactions of other roles have been open",
            fix="GRANT pg_read_all_stats TO the worker's role, on the write-db.",
        )
    if writer is None or writer["age"] is None:
        return Check(name=name, found="no writing transaction is open")
    if writer["gid"] is None:
        what = f"application {writer['application_name'] or '-'}, pid {writer['pid']}"
        fix = f"End it; on that server: SELECT pg_terminate_backend({writer['pid']});"
    else:
        what = writer["application_name"]
        fix = f"End it, in that database: ROLLBACK PREPARED {string_literal(writer['gid'])};"
    found = f"the oldest writing one is {writer['age']:.0f} s old ({what}, database {writer['database']})"
    if writer["age"] < _OLD_SECONDS:
        return Check(name=name, found=found)
    return Check(
        name=name,
        status=CheckStatus.WARN,
        found=f"{found}; changes written since it began wait for it",
        fix=fix,
    )
