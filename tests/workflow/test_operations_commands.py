"""The operators' commands against real stores: what they print, where, and with which exit status."""

import getpass
import json
from collections.abc import Awaitable, Callable

import asyncpg
import pytest
from pydantic import SecretStr

from syncline.engine.keys import row_uuid
from syncline.testing.lab import SyncLab
from tests.kit.command_line import CommandLine

Fill = Callable[[str], Awaitable[None]]
BAD_KEY = "it's; DROP TABLE sync_dead_letter"


@pytest.fixture
def syncline(kg: SyncLab, temporal_only: Callable[[SyncLab], CommandLine]) -> CommandLine:
    """`syncline` beside a worker over stores with one graph, `kg`."""
    return temporal_only(kg)


def filler(dsn: SecretStr) -> Fill:
    async def execute(sql: str) -> None:
        connection = await asyncpg.connect(dsn.get_secret_value(), server_settings={"search_path": "kg"})
        await connection.execute(sql)
        await connection.close()

    return execute


@pytest.fixture
def write(kg: SyncLab) -> Fill:
    """A function that executes SQL in the graph's write-db."""
    return filler(kg.services.settings.write_dsn)


@pytest.fixture
def books(kg: SyncLab) -> Fill:
    """A function that executes SQL in the graph's graph-db."""
    return filler(kg.services.settings.graph_dsn)


def letter(*key: str, table: str = "nodes", fingerprint: str = "abc123abc123", dead: bool = False) -> str:
    parts = ", ".join("'" + part.replace("'", "''") + "'" for part in key)
    return (
        "INSERT INTO sync_dead_letter (table_name, row_id, key, version, sqlstate, message, fingerprint,"
        f" next_retry_at, run_id) VALUES ('{table}', '{row_uuid(key)}', ARRAY[{parts}], 7, '23514',"
        f" E'violates \\x1b[K\\nweight', '{fingerprint}', {'NULL' if dead else 'now()'}, 'run-1');"
    )


async def test_refused_rows_are_counted_listed_and_shown(syncline: CommandLine, books: Fill) -> None:
    for command in ("summary", "list"):
        empty = await syncline("failures", command, "kg")
        assert (empty.status, empty.out) == (0, "no refused rows\n")
    await books(
        letter("n1") + letter("n2", dead=True) + letter(BAD_KEY) + letter("f", "r", table="fact_sources")
    )
    counted = await syncline("failures", "summary", "kg")
    assert counted.status == 0, counted.err
    assert [line.split()[:4] for line in counted.out.splitlines()[1:]] == [
        ["2", "retrying", "nodes", "abc123abc123"],
        ["1", "retrying", "fact_sources", "abc123abc123"],
        ["1", "dead", "nodes", "abc123abc123"],
    ]
    assert counted.err == "4 rejected rows, 1 of them dead\n"
    listed = await syncline("failures", "list", "kg", "--table", "nodes", "--state", "dead")
    assert listed.out.splitlines()[1].split()[:3] == ["nodes", "n2", "dead"]
    # What a row says is text, never an order to the terminal.
    assert "\x1b" not in listed.out
    assert "violates \N{REPLACEMENT CHARACTER}[K weight" in listed.out
    page = json.loads((await syncline("failures", "list", "kg", "--limit", "3", "--json")).out)
    assert len(page["letters"]) == 3
    rest = json.loads((await syncline("failures", "list", "kg", "--after", page["next"], "--json")).out)
    assert (len(rest["letters"]), rest["next"]) == (1, None)
    more = (await syncline("failures", "list", "kg", "--limit", "3")).err
    assert more == f"more: --after '{page['next']}'\n"
    shown = await syncline("failures", "show", "kg", "fact_sources", "f", "r")
    assert shown.status == 0
    assert "key             f r\n" in shown.out
    assert "run_id          run-1\n" in shown.out
    assert json.loads((await syncline("failures", "show", "kg", "nodes", BAD_KEY, "--json")).out)["key"] == [
        BAD_KEY
    ]


@pytest.mark.long("test_a_row_is_explained_by_its_first_line")
async def test_a_page_ends_before_it_is_more_than_a_history_takes(syncline: CommandLine, books: Fill) -> None:
    await books("".join(letter(f"{number}".ljust(400_000, "x")) for number in range(7)))
    seen, after = [], []
    while True:
        page = json.loads((await syncline("failures", "list", "kg", "--json", *after)).out)
        seen += [found["key"][0][0] for found in page["letters"]]
        assert len(page["letters"]) in (2, 1)
        if page["next"] is None:
            break
        after = ["--after", page["next"]]
    assert sorted(seen) == [str(number) for number in range(7)]
    left = json.loads((await syncline("failures", "summary", "kg", "--json")).out)
    assert (left["rows"], len(left["groups"]), left["left_off"]) == (7, 1, 0)


async def test_a_row_that_was_not_refused_is_status_1_and_a_sentence(syncline: CommandLine) -> None:
    missing = await syncline("failures", "show", "kg", "nodes", "n1")
    assert (missing.status, missing.out) == (1, "")
    assert missing.err == "error: nodes n1 is not a refused row. `syncline explain` says where it is.\n"
    for action in ("retry", "discard"):
        nothing = await syncline("failures", action, "kg", "--all", "--reason", "to see")
        assert (nothing.status, nothing.out) == (1, "")
        assert nothing.err == "error: No refused row matched, so nothing was done.\n"
    counted = await syncline("failures", "retry", "kg", "--all", "--reason", "to see", "--json")
    assert (counted.status, json.loads(counted.out)) == (1, {"rows": 0})
    assert (await syncline("failures", "audit", "kg")).out == "nothing was done by hand\n"


async def test_retries_and_discards_are_told_and_audited(syncline: CommandLine, books: Fill) -> None:
    await books(letter("n1") + letter("n2", dead=True) + letter(BAD_KEY) + letter("-x", fingerprint="f" * 12))
    retried = await syncline(
        "failures", "retry", "kg", "--fingerprint", "abc123abc123", "--reason", "check is gone"
    )
    assert (retried.status, retried.out) == (0, "3 rows to be retried in the next cycle\n")
    one = await syncline("failures", "discard", "kg", "nodes", BAD_KEY, "--reason", "a test", "--who", "ada")
    assert (one.status, one.out) == (0, "1 row discarded\n")
    dashed = await syncline("failures", "discard", "kg", "--reason", "odd", "--json", "--", "nodes", "-x")
    assert (dashed.status, json.loads(dashed.out)) == (0, {"rows": 1})
    assert (
        await syncline("failures", "discard", "kg", "nodes", "--reason", "all of it")
    ).out == "2 rows discarded\n"
    entries = json.loads((await syncline("failures", "audit", "kg", "--json")).out)["entries"]
    # Who has started the runs, as Temporal has it: its client's process, where nobody is authenticated.
    assert all("@" in entry["starter"] for entry in entries)
    assert [(one["action"], one["who"], one["why"], one["rows"]) for one in entries] == [
        ("discard", getpass.getuser(), "all of it", 2),
        ("discard", getpass.getuser(), "odd", 1),
        ("discard", "ada", "a test", 1),
        ("retry", getpass.getuser(), "check is gone", 3),
    ]
    table = await syncline("failures", "audit", "kg", "--limit", "2")
    assert table.out.splitlines()[0].split() == ["at", "who", "starter", "action", "rows", "what", "reason"]
    assert table.err == "more: --before 3\n"
    assert len((await syncline("failures", "audit", "kg", "--before", "3")).out.splitlines()) == 3


async def test_an_action_without_its_rows_or_its_reason_is_status_2(
    syncline: CommandLine, books: Fill
) -> None:
    await books(letter("n1"))
    for arguments, sentence in (
        (["--reason", "x"], "Select dead letters by"),
        (["nodes", "--all", "--reason", "x"], "Select dead letters by"),
        (["nodes", "n1", "--fingerprint", "abc", "--reason", "x"], "Select dead letters by"),
        (["--all", "--reason", " "], "give `who` and `why`"),
        (["--all", "--reason", "x", "--who", ""], "give `who` and `why`"),
        (["--all"], "--reason"),
    ):
        for action in ("retry", "discard"):
            refused = await syncline("failures", action, "kg", *arguments)
            assert refused.status == 2
            assert sentence in refused.err
    assert "n1" in (await syncline("failures", "list", "kg")).out
    assert (await syncline("failures", "list", "kg", "--after", "nowhere")).status == 2
    assert (await syncline("failures", "list", "kg", "--state", "happy")).status == 2
    assert (await syncline("failures", "list", "moon")).status == 2


@pytest.mark.long("test_a_row_is_explained_by_its_first_line")
async def test_what_waits_is_shown_by_the_row_that_it_waits_for(
    syncline: CommandLine, write: Fill, books: Fill
) -> None:
    assert (await syncline("parked", "kg")).out == "nothing waits\n"
    assert (await syncline("parked", "kg", "--table", "edges")).out == "nothing waits\n"
    await write("INSERT INTO write_nodes (id, concept) VALUES ('n 1', 'c')")
    await books(
        "INSERT INTO sync_parked_row (table_name, row_id, key, image, waits_for_table, waits_for,"
        " waits_for_key) SELECT 'edges', syncline.key_uuid('e' || i), ARRAY['e' || i], '{}', 'nodes',"
        " syncline.key_uuid(k), k FROM (VALUES (1, 'n 1'), (2, 'n 1'), (3, 'n2')) AS v (i, k)"
    )
    shown = await syncline("parked", "kg")
    assert shown.status == 0, shown.err
    header, first, second = shown.out.splitlines()
    assert header.split()[:3] == ["waiting", "for", "key"]
    assert first.startswith("2        nodes  'n 1'  20")
    assert first.endswith("2 edges     in the write-db, not synced yet")
    assert second.endswith("1 edges     not in the write-db")
    assert shown.err == "3 parked rows, 0 parked links and references, 0 ready to apply\n"
    assert json.loads((await syncline("parked", "kg", "--json")).out)["rows"] == 3
    page = await syncline("parked", "kg", "--table", "edges", "--limit", "2")
    assert len(page.out.splitlines()) == 3
    after = page.err.removeprefix("more: --after '").removesuffix("'\n")
    rest = json.loads((await syncline("parked", "kg", "--table", "edges", "--after", after, "--json")).out)
    assert (len(rest["entries"]), rest["next"]) == (1, None)
    assert (await syncline("parked", "kg", "--after", after)).status == 2
    unknown = await syncline("parked", "kg", "--table", "moons")
    assert unknown.status == 2
    assert unknown.err.startswith("error: No table 'moons' is synced. Known: raw_sources, facts")


async def test_a_row_is_explained_by_its_first_line(syncline: CommandLine, write: Fill, books: Fill) -> None:
    await write("INSERT INTO write_nodes (id, concept) VALUES ('n1', 'c'), ('-x', 'c')")
    await books(letter("n1", dead=True))
    await books("INSERT INTO sync_cursor (table_name, xid) VALUES ('nodes', 1::bigint << 40)")
    shown = await syncline("explain", "kg", "write_nodes", "n1")
    assert shown.status == 0, shown.err
    first, *details = shown.out.splitlines()
    assert first == "nodes n1: dead: [23514] violates \N{REPLACEMENT CHARACTER}[K weight"
    told = {line[:18].strip(): line[19:] for line in details}
    assert told["state"] == "dead"
    assert told["write-db"].startswith("version ")
    assert told["graph-db"] == "-"
    assert told["tries"] == "1, next -, fingerprint abc123abc123"
    assert told["vector, nodes"].startswith("none wanted")
    found = json.loads((await syncline("explain", "kg", "nodes", "n1", "--json")).out)
    assert (found["state"], found["dead_letter"]["sqlstate"]) == ("dead", "23514")
    assert (await syncline("explain", "kg", "nodes", "--", "-x")).status == 0
    unknown = await syncline("explain", "kg", "nodes", "n9")
    assert unknown.status == 1
    assert unknown.out.startswith("nodes n9: unknown key: no store has or had it\n")
    for arguments in (("moons", "n1"), ("nodes", "n1", "n2"), ("fact_sources", "f1")):
        assert (await syncline("explain", "kg", *arguments)).status == 2


async def test_help_says_the_exit_statuses(syncline: CommandLine) -> None:
    for command in (["failures", "retry"], ["failures", "list"], ["parked"], ["explain"]):
        assert "1 failed or nothing matched" in " ".join((await syncline(*command, "--help")).out.split())
