"""`syncline verify` against real stores: what it prints, and with which exit status."""

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
from syncline.verification import Verification

Invoke = Callable[..., Result]
HOSTILE = "x\x1b[31m' y"


@pytest.fixture
def stores(new_database: Callable[..., str]) -> StackStores:
    return StackStores(write_dsn=new_database(), graph_dsn=new_database(), qdrant_path=Path("qdrant"))


@pytest.fixture
def verify(stores: StackStores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """A function that runs `syncline verify kg …` over stores with one, empty graph."""
    for name in [name for name in os.environ if name.startswith(("SYNCLINE_", "TEMPORAL_"))]:
        monkeypatch.delenv(name)
    for name, value in stores.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    for command in (["migrate"], ["graph", "add", "kg", "--no-schedule"]):
        assert CliRunner().invoke(app, command).exit_code == 0

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["verify", "kg", *arguments])

    return invoke


def in_graph_db(stores: StackStores, sql: str, *arguments: object) -> list[asyncpg.Record]:
    async def fetch() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(stores.graph_dsn, server_settings={"search_path": "kg"})
        try:
            return list(await connection.fetch(sql, *arguments))
        finally:
            await connection.close()

    return asyncio.run(fetch())


def forge(stores: StackStores, *keys: str) -> None:
    in_graph_db(
        stores,
        "INSERT INTO llm_usage (id, key, model_id, prompt_tokens, completion_tokens, created_at, sync_version)"
        " SELECT syncline.key_uuid(key), key, 'm', 1, 1, now(), 1 FROM unnest($1::text[]) key",
        list(keys),
    )


def test_an_equal_graph_says_so(verify: Invoke) -> None:
    done = verify()
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1].startswith("0 compared in ")
    assert done.stdout.splitlines()[-1].endswith(": equal")


def test_damage_is_named_repaired_and_then_on_its_way(verify: Invoke, stores: StackStores) -> None:
    forge(stores, HOSTILE)
    done = verify()
    assert done.exit_code == 1
    assert "llm_usage (rows), extra: " in done.stdout
    assert "\x1b" not in done.stdout
    assert "1 damaged; --repair has them made right" in done.stdout
    done = verify("--repair", "--why", "a forgery")
    assert done.exit_code == 1
    assert "1 damaged, 1 asked for; the next cycle makes them right" in done.stdout
    [line] = in_graph_db(stores, "SELECT who, why, action, table_name, rows FROM sync_audit")
    assert tuple(line) == (getpass.getuser(), "a forgery", "repair rows", "llm_usage", 1)
    [asked] = in_graph_db(stores, "SELECT table_name, key, reason FROM sync_requeue")
    assert tuple(asked) == ("llm_usage", [HOSTILE], "verify")
    assert verify().exit_code == 0


def test_only_so_many_keys_are_named_and_all_are_counted(verify: Invoke, stores: StackStores) -> None:
    forge(stores, *(f"k{number}" for number in range(5)))
    assert " and 3 more" in verify("--keys", "2").stdout
    found = Verification.model_validate_json(verify("--keys", "2", "--json").stdout)
    [usage] = [relation for relation in found.relations if relation.name == "llm_usage"]
    assert (usage.extra.count, len(usage.extra.keys)) == (5, 2)


def test_tables_can_be_chosen_and_vectors_left_out(verify: Invoke) -> None:
    told = json.loads(verify("--table", "facts", "--no-vectors", "--json").stdout)
    assert [(relation["name"], relation["kind"]) for relation in told["relations"]] == [("facts", "rows")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--table", "nobody"), "No table ['nobody'] is synced"),
        (("--repair", "--why", " "), "who you are and why"),
    ],
)
def test_wrong_usage_is_a_sentence(verify: Invoke, arguments: tuple[str, ...], said: str) -> None:
    done = verify(*arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert "Traceback" not in done.output
