"""The operators' commands against real stores: what they print, where, and with which exit status."""

import asyncio
import getpass
import json
import os
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest
from typer.testing import CliRunner, Result

from syncline.cli import app
from syncline.devstack.environment import StackStores
from syncline.engine.keys import row_uuid

Invoke = Callable[..., Result]
Fill = Callable[[str], None]
BAD_KEY = "it's; DROP TABLE sync_dead_letter"


@pytest.fixture
def stores(new_database: Callable[..., str]) -> StackStores:
    """Two empty databases."""
    return StackStores(write_dsn=new_database(), graph_dsn=new_database(), qdrant_path=Path("qdrant"))


@pytest.fixture
def syncline(stores: StackStores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """A function that runs `syncline` over stores with one graph, `kg`."""
    for name in [name for name in os.environ if name.startswith(("SYNCLINE_", "TEMPORAL_"))]:
        monkeypatch.delenv(name)
    for name, value in stores.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, arguments)

    assert invoke("migrate").exit_code == 0
    added = invoke("graph", "add", "kg", "--no-schedule")
    assert added.exit_code == 0, added.stderr
    return invoke


def _filler(dsn: str) -> Fill:
    async def execute(sql: str) -> None:
        connection = await asyncpg.connect(dsn, server_settings={"search_path": "kg"})
        await connection.execute(sql)
        await connection.close()

    return lambda sql: asyncio.run(execute(sql))


@pytest.fixture
def write(stores: StackStores) -> Fill:
    """A function that executes SQL in the graph's write-db."""
    return _filler(stores.write_dsn)


@pytest.fixture
def books(stores: StackStores) -> Fill:
    """A function that executes SQL in the graph's graph-db."""
    return _filler(stores.graph_dsn)


def letter(*key: str, table: str = "nodes", fingerprint: str = "abc123abc123", dead: bool = False) -> str:
    parts = ", ".join("'" + part.replace("'", "''") + "'" for part in key)
    return (
        "INSERT INTO sync_dead_letter (table_name, row_id, key, version, sqlstate, message, fingerprint,"
        f" next_retry_at, run_id) VALUES ('{table}', '{row_uuid(key)}', ARRAY[{parts}], 7, '23514',"
        f" E'violates \\x1b[31m\\nweight', '{fingerprint}', {'NULL' if dead else 'now()'}, 'run-1');"
    )


def test_refused_rows_are_counted_listed_and_shown(syncline: Invoke, books: Fill) -> None:
    for command in ("summary", "list"):
        empty = syncline("failures", command, "kg")
        assert (empty.exit_code, empty.stdout) == (0, "no refused rows\n")
    books(letter("n1") + letter("n2", dead=True) + letter(BAD_KEY) + letter("f", "r", table="fact_sources"))
    counted = syncline("failures", "summary", "kg")
    assert counted.exit_code == 0, counted.stderr
    assert [line.split()[:4] for line in counted.stdout.splitlines()[1:]] == [
        ["2", "retrying", "nodes", "abc123abc123"],
        ["1", "retrying", "fact_sources", "abc123abc123"],
        ["1", "dead", "nodes", "abc123abc123"],
    ]
    assert counted.stderr == "4 refused rows, 1 of them dead\n"
    listed = syncline("failures", "list", "kg", "--table", "nodes", "--state", "dead")
    assert listed.stdout.splitlines()[1].split()[:3] == ["nodes", "n2", "dead"]
    # What a row says is text, never an order to the terminal.
    assert "\x1b" not in listed.stdout
    assert "violates \N{REPLACEMENT CHARACTER}[31m weight" in listed.stdout
    page = json.loads(syncline("failures", "list", "kg", "--limit", "3", "--json").stdout)
    assert len(page["letters"]) == 3
    rest = json.loads(syncline("failures", "list", "kg", "--after", page["next"], "--json").stdout)
    assert (len(rest["letters"]), rest["next"]) == (1, None)
    more = syncline("failures", "list", "kg", "--limit", "3").stderr
    assert more == f"more: --after '{page['next']}'\n"
    shown = syncline("failures", "show", "kg", "fact_sources", "f", "r")
    assert shown.exit_code == 0
    assert "key             f r\n" in shown.stdout
    assert "run_id          run-1\n" in shown.stdout
    assert json.loads(syncline("failures", "show", "kg", "nodes", BAD_KEY, "--json").stdout)["key"] == [
        BAD_KEY
    ]


def test_a_row_that_was_not_refused_is_status_1_and_a_sentence(syncline: Invoke) -> None:
    missing = syncline("failures", "show", "kg", "nodes", "n1")
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert missing.stderr == "error: nodes n1 is not a refused row. `syncline explain` says where it is.\n"
    for action in ("retry", "discard"):
        nothing = syncline("failures", action, "kg", "--all", "--why", "to see")
        assert (nothing.exit_code, nothing.stdout) == (1, "")
        assert nothing.stderr == "error: No refused row matched, so nothing was done.\n"
    counted = syncline("failures", "retry", "kg", "--all", "--why", "to see", "--json")
    assert (counted.exit_code, json.loads(counted.stdout)) == (1, {"rows": 0})
    assert syncline("failures", "audit", "kg").stdout == "nothing was done by hand\n"


def test_retries_and_discards_are_told_and_audited(syncline: Invoke, books: Fill) -> None:
    books(letter("n1") + letter("n2", dead=True) + letter(BAD_KEY) + letter("-x", fingerprint="f" * 12))
    retried = syncline("failures", "retry", "kg", "--fingerprint", "abc123abc123", "--why", "check is gone")
    assert (retried.exit_code, retried.stdout) == (0, "3 rows to be tried in the next cycle\n")
    one = syncline("failures", "discard", "kg", "nodes", BAD_KEY, "--why", "a test", "--who", "ada")
    assert (one.exit_code, one.stdout) == (0, "1 row given up\n")
    dashed = syncline("failures", "discard", "kg", "--why", "odd", "--json", "--", "nodes", "-x")
    assert (dashed.exit_code, json.loads(dashed.stdout)) == (0, {"rows": 1})
    assert syncline("failures", "discard", "kg", "nodes", "--why", "all of it").stdout == "2 rows given up\n"
    entries = json.loads(syncline("failures", "audit", "kg", "--json").stdout)["entries"]
    assert [(one["action"], one["who"], one["why"], one["rows"]) for one in entries] == [
        ("discard", getpass.getuser(), "all of it", 2),
        ("discard", getpass.getuser(), "odd", 1),
        ("discard", "ada", "a test", 1),
        ("retry", getpass.getuser(), "check is gone", 3),
    ]
    table = syncline("failures", "audit", "kg", "--limit", "2")
    assert table.stdout.splitlines()[0].split() == ["at", "who", "action", "rows", "what", "why"]
    assert table.stderr == "more: --before 3\n"
    assert len(syncline("failures", "audit", "kg", "--before", "3").stdout.splitlines()) == 3


def test_an_action_without_its_rows_or_its_reason_is_status_2(syncline: Invoke, books: Fill) -> None:
    books(letter("n1"))
    for arguments, sentence in (
        (["--why", "x"], "Say which dead letters"),
        (["nodes", "--all", "--why", "x"], "Say which dead letters"),
        (["nodes", "n1", "--fingerprint", "abc", "--why", "x"], "Say which dead letters"),
        (["--all", "--why", " "], "say who you are and why"),
        (["--all", "--why", "x", "--who", ""], "say who you are and why"),
        (["--all"], "--why"),
    ):
        for action in ("retry", "discard"):
            refused = syncline("failures", action, "kg", *arguments)
            assert refused.exit_code == 2
            assert sentence in refused.stderr
    assert "n1" in syncline("failures", "list", "kg").stdout
    assert syncline("failures", "list", "kg", "--after", "nowhere").exit_code == 2
    assert syncline("failures", "list", "kg", "--state", "happy").exit_code == 2
    assert syncline("failures", "list", "moon").exit_code == 2


def test_what_waits_is_shown_by_the_row_that_it_waits_for(syncline: Invoke, write: Fill, books: Fill) -> None:
    assert syncline("parked", "kg").stdout == "nothing waits\n"
    assert syncline("parked", "kg", "--table", "edges").stdout == "nothing waits\n"
    write("INSERT INTO write_nodes (id, concept) VALUES ('n 1', 'c')")
    books(
        "INSERT INTO sync_parked_row (table_name, row_id, key, image, waits_for_table, waits_for,"
        " waits_for_key) SELECT 'edges', syncline.key_uuid('e' || i), ARRAY['e' || i], '{}', 'nodes',"
        " syncline.key_uuid(k), k FROM (VALUES (1, 'n 1'), (2, 'n 1'), (3, 'n2')) AS v (i, k)"
    )
    shown = syncline("parked", "kg")
    assert shown.exit_code == 0, shown.stderr
    header, first, second = shown.stdout.splitlines()
    assert header.split()[:3] == ["waiting", "for", "key"]
    assert first.startswith("2        nodes  'n 1'  20")
    assert first.endswith("2 edges     in the write-db, not synced yet")
    assert second.endswith("1 edges     not in the write-db")
    assert shown.stderr == "3 rows wait, 0 links and references wait alone, 0 land in the next cycle\n"
    assert json.loads(syncline("parked", "kg", "--json").stdout)["rows"] == 3
    page = syncline("parked", "kg", "--table", "edges", "--limit", "2")
    assert len(page.stdout.splitlines()) == 3
    after = page.stderr.removeprefix("more: --after '").removesuffix("'\n")
    rest = json.loads(syncline("parked", "kg", "--table", "edges", "--after", after, "--json").stdout)
    assert (len(rest["entries"]), rest["next"]) == (1, None)
    assert syncline("parked", "kg", "--after", after).exit_code == 2
    unknown = syncline("parked", "kg", "--table", "moons")
    assert unknown.exit_code == 2
    assert unknown.stderr.startswith("error: No table 'moons' is synced. Known: raw_sources, facts")


def test_a_row_is_explained_by_its_first_line(syncline: Invoke, write: Fill, books: Fill) -> None:
    write("INSERT INTO write_nodes (id, concept) VALUES ('n1', 'c'), ('-x', 'c')")
    books(letter("n1", dead=True))
    books("INSERT INTO sync_cursor (table_name, xid) VALUES ('nodes', 1::bigint << 40)")
    shown = syncline("explain", "kg", "write_nodes", "n1")
    assert shown.exit_code == 0, shown.stderr
    first, *details = shown.stdout.splitlines()
    assert first == "nodes n1: dead: [23514] violates \N{REPLACEMENT CHARACTER}[31m weight"
    told = {line[:18].strip(): line[19:] for line in details}
    assert told["state"] == "dead"
    assert told["write-db"].startswith("version ")
    assert told["graph-db"] == "-"
    assert told["tries"] == "1, next -, fingerprint abc123abc123"
    assert told["vector, nodes"].startswith("none wanted")
    found = json.loads(syncline("explain", "kg", "nodes", "n1", "--json").stdout)
    assert (found["state"], found["dead_letter"]["sqlstate"]) == ("dead", "23514")
    assert syncline("explain", "kg", "nodes", "--", "-x").exit_code == 0
    unknown = syncline("explain", "kg", "nodes", "n9")
    assert unknown.exit_code == 1
    assert unknown.stdout.startswith("nodes n9: unknown key: no store has or had it\n")
    for arguments in (("moons", "n1"), ("nodes", "n1", "n2"), ("fact_sources", "f1")):
        assert syncline("explain", "kg", *arguments).exit_code == 2


def test_help_says_the_exit_statuses(syncline: Invoke) -> None:
    for command in (["failures", "retry"], ["failures", "list"], ["parked"], ["explain"]):
        assert "1 failed or nothing matched" in " ".join(syncline(*command, "--help").stdout.split())
