"""Two hundred bad inputs: each is answered by a sentence, none by a traceback, none with a secret.

Every case has a secret in it where one can be, and what is logged, printed or kept in a history because of it
is looked through for that.
"""

import asyncio
import base64
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError

from syncline import names
from syncline.control.composition import parse_composition
from syncline.control.graphs import draft_graph, graph_changes
from syncline.engine.table_map import Column, Links, Reference, SchemaMap, TableMap
from syncline.errors import ConfigurationError, SettingsInvalid, SynclineError
from syncline.settings import load_settings
from syncline.testing.lab import SyncLab
from tests.kit.command_line import CommandLine
from tests.kit.secrecy import everything_said

SECRET = "hunter2"
LEAK = "nter2"
LONG = "x" * 5_000
URI = "postgresql://me:hunter2@host/db"


def spoken(text: str) -> str:
    """What every answer is: said, not thrown, and not long."""
    assert text.strip()
    assert "Traceback" not in text, text
    assert LEAK not in text, text
    assert len(text) < 4_000, text
    return text


# Settings ----------------------------------------------------------------------------------------------------

SETTINGS: list[tuple[str, str]] = [
    *(
        ("WRITE_DSN", text)
        for text in (
            "",
            " ",
            "hunter2",
            "postgresql://",
            "postgresql:///db",
            "postgresql://u:hu#nter2@host/db",
            "postgresql://u:hu/nter2@host/db",
            "postgresql://u:hu?nter2@host/db",
            "postgresql://u:hu?nter2=x@host/db",
            "postgresql://u:hu@nter2@host/db",
            "postgresql://u:hu%nter2@host/db",
            "postgresql://u:hu nter2@host/db",
            "postgresql://u:hu\nnter2@host/db",
            "postgresql://u:1/nter2?a=b@host/db",
            "postgresql://u:hunter2@host:99999/db",
            "postgresql://u:hunter2@host:0/db",
            "postgresql://u:hunter2@host:nter2/db",
            "postgresql://u:hunter2@ho st/db",
            "postgresql://u:hunter2@a..b/db",
            "postgresql://u:hunter2@[::1/db",
            "postgresql://u:hunter2@h1,h2:1,h3:x/db",
            "postgresql://u:hunter2@host/db?nter2",
            "postgresql://u:hunter2@host/db?nter2=1&x@y",
            "postgresql://u:hunter2@host/db?sslmode=hunter2",
            "postgresql://u:hunter2@host/db?sslmode=verify-full",
            "postgresql://u:hunter2@host/db?sslmode=verify-ca&sslrootcert=/hunter2",
            "postgresql://u:hunter2@host/db?sslrootcert=system&sslmode=require",
            "postgresql://u:hunter2@host/db?sslcert=/hunter2&sslmode=require",
            "postgresql://u:hunter2@host/db?sslcert=/hunter2",
            "postgresql://u:hunter2@host/db?ssl=hunter2",
            "postgresql://u:hunter2@host/db?channel_binding=hunter2",
            "postgresql://u:hunter2@host/db?channel_binding=require&sslmode=disable",
            "postgresql://u:hunter2@host/db?sslnegotiation=direct",
            "postgresql://u:hunter2@host/db?ssl_min_protocol_version=hunter2&sslmode=require",
            "postgresql://u:hunter2@host/db?connect_timeout=hunter2",
            "postgresql://u:hunter2@host/db?connect_timeout=-1",
            "postgresql://u:hunter2@host/db?keepalives_idle=1e9",
            "postgresql://u:hunter2@host/db?target_session_attrs=hunter2",
            "postgresql://u:hunter2@host/db?load_balance_hosts=hunter2",
            "postgresql://u:hunter2@host/db?gssencmode=require",
            "postgresql://u:hunter2@host/db?sslsni=0",
            "postgresql://u:hunter2@host/db?client_encoding=latin1",
            "postgresql://u:hunter2@host/db?schema=hunter2",
            "postgresql://u:hunter2@host/db?connection_limit=5",
            "postgresql://u:hunter2@host/db?service=hunter2",
            "postgresql://u:hunter2@host/db?require_auth=scram-sha-256",
            "postgresql://u:hunter2@host/db?hostaddr=127.0.0.1",
            "postgresql://u:hunter2@host/db?krbsrvname=hunter2",
            "postgresql://u:hunter2@host/db?host=other",
            "postgresql://u:hunter2@host/db?user=other",
            "postgresql://u:hunter2@host/db?sslmode=require&sslmode=disable",
            "postgresql://u:hunter2@host/%ff",
            "postgresql://u:hunter2@host/%00",
            "mysql://u:hunter2@host/db",
            "prisma+postgres://hunter2",
            "jdbc:postgresql://host/db?user=u&password=hunter2",
            "psql 'postgresql://u:hunter2@host/db'",
            "'postgresql://u:hunter2@host/db'",
            "postgresql://postgres:[YOUR-PASSWORD]@db.example/hunter2",
            "Server=host;Database=db;User Id=u;Password=hunter2;",
            "host=host password=hu nter2",
            "host=host password=hu nter2=1",
            "host=host password='hunter2",
            "host=host password=hu'nter2",
            "dbname=db user=u password=hunter2",
            "host=host port=hunter2",
        )
    ),
    ("CONTROL_DSN", ""),
    ("CONTROL_DSN", "postgresql://u:hu#nter2@host/db"),
    ("STORES", "hunter2"),
    ("STORES", '["hunter2"]'),
    ("STORES", '{"far": 7}'),
    ("STORES", '{"far": ""}'),
    ("STORES", '{"far": "postgresql://u:hu/nter2@host/db"}'),
    ("STORES", '{"postgresql://u:hunter2@host/db": ""}'),
    ("PASSWORD_COMMANDS", "hunter2"),
    ("PASSWORD_COMMANDS", '{"nobody": ["hunter2"]}'),
    ("PASSWORD_COMMANDS", '{"postgresql://u:hunter2@host": ["true"]}'),
    ("PASSWORD_COMMANDS", '{"write": []}'),
    ("PASSWORD_COMMANDS", '{"write": "hunter2"}'),
    ("PASSWORD_COMMANDS", '{"graph": ["echo", "hunter2"]}'),
    ("POOL_SIZE", "hunter2"),
    ("POOL_SIZE", "1"),
    ("POOL_SIZE", "1e30"),
    ("QDRANT_URL", ""),
    ("QDRANT_URL", "hunter2"),
    ("QDRANT_URL", "https://u:hunter2@host"),
    ("QDRANT_URL", "https://host:hunter2"),
    ("QDRANT_URL", "https://ho st"),
    ("QDRANT_API_KEY", "hun\nter2 hunter2"),
    ("QDRANT_API_KEY", " hunter2"),
    ("QDRANTS", '{"far": {"url": "hunter2"}}'),
    ("QDRANTS", '{"far": {"url": "https://q", "api_kee": "hunter2"}}'),
    ("QDRANTS", '{"far": {"url": "https://q", "hunter2 is it": ""}}'),
    ("QDRANTS", '{"far": {"url": "https://q", "api_key": "hünter2"}}'),
    ("QDRANT_TIMEOUT_SECONDS", "nan"),
    ("QDRANT_TIMEOUT_SECONDS", "inf"),
    ("EMBEDDING", "hunter2"),
    ("EMBEDDING_URL", "ftp://hunter2"),
    ("EMBEDDING_URL", "https://u:hunter2@host/v1"),
    ("EMBEDDING_API_KEY", ""),
    ("EMBEDDING_API_KEY", "hunter2\r\n"),
    ("EMBEDDING_MODEL", ""),
    ("EMBEDDING_DIMENSIONS", "0"),
    ("EMBEDDING_BATCH", "9999999"),
    ("EMBEDDING_TIMEOUT_SECONDS", "1e300"),
    ("MAX_CONCURRENT_CYCLES", "10000000000000000000000"),
    ("MAX_CACHED_WORKFLOWS", "-1"),
    ("RECONCILE_SECONDS", "0"),
    ("NOTIFY", "hunter2"),
    ("GRACEFUL_SHUTDOWN_SECONDS", "inf"),
    ("BLOCKED_SECONDS", "nan"),
    ("BATCH_ROWS", "0"),
    ("CYCLE_SECONDS", "99999"),
    ("LOG_LEVEL", "hunter2"),
    ("LOG_FORMAT", "hunter2"),
    ("METRICS_ADDRESS", "hunter2"),
    ("TRACES_URL", "hunter2"),
    ("TRACES_URL", "https://u:hunter2@host"),
    ("TASK_QUEUE", ""),
    ("TASK_QUEUE", LONG),
    ("TASK_QUEUE", "a queue"),
    ("DEPLOYMENT_NAME", "hunter2.eu"),
]


@pytest.mark.long(after=40)
@pytest.mark.parametrize(("variable", "value"), SETTINGS)
def test_a_bad_setting_is_named_and_not_quoted(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    for name in [name for name in os.environ if name.startswith(("SYNCLINE_", "PG"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SYNCLINE_WRITE_DSN", "postgresql://w@host/db")
    monkeypatch.setenv("SYNCLINE_GRAPH_DSN", URI)
    monkeypatch.setenv(f"SYNCLINE_{variable}", value)
    with pytest.raises(SettingsInvalid) as refused:
        load_settings()
    said = spoken(str(refused.value))
    assert f"SYNCLINE_{variable}" in said
    spoken(everything_said(refused.value).replace("Traceback (most recent call last)", ""))


# Maps, compositions, records ---------------------------------------------------------------------------------


def table(**fields: Any) -> TableMap:
    return TableMap(**{"name": "things", "source": "write_things", **fields})


def whole(**fields: Any) -> Callable[[], object]:
    return lambda: SchemaMap(
        name="bad", tables=(TableMap(name="parents", source="write_parents"), table(**fields))
    )


UP = Reference(column="up", parent="parents", required=True)
LINKS = Links(table="l", source="s", owner="o", member="m", parent="parents")

MAPS: list[Callable[[], object]] = [
    lambda: SchemaMap(name="bad", tables=(table(), table())),
    whole(key=("a", "a")),
    whole(key=("up",), references=(UP,), links=(LINKS,)),
    whole(columns=(Column(name="id"),)),
    whole(columns=(Column(name="a"), Column(name="a"))),
    whole(columns=(Column(name="sync_xid"),)),
    whole(references=(Reference(column="up", parent="nobody", required=True),)),
    whole(references=(Reference(column="up", parent="things", required=True),)),
    whole(references=(Reference(column="up", parent="parents", required=False, by="hash"),)),
    whole(references=(UP,), columns=(Column(name="up"),)),
    whole(links=(Links(table="l", source="s", owner="o", member="m", parent="nobody"),)),
    whole(links=(LINKS, LINKS)),
]

COMPOSITIONS: list[dict[str, Any]] = [
    {"sync": SECRET},
    {"sync": None, "synk": {"provider": SECRET}},
    {"sync": {}},
    {"sync": {"provider": ""}},
    {"sync": {"provider": 7}},
    {"sync": {"provider": "acme", "on_missing": SECRET}},
    {"sync": {"provider": "acme", "options": [SECRET]}},
    {"sync": {"provider": "acme", "optoins": {"password": SECRET}}},
    {"shadow": [SECRET]},
    {"relations": {"provider": None}},
    {URI: {}},
    {LONG: {}},
]

RECORDS: list[dict[str, Any]] = [
    {},
    {"slug": ""},
    {"slug": LONG},
    {"slug": "Upper"},
    {"slug": URI},
    {"slug": "public"},
    {"slug": "pg-catalog"},
    {"slug": "a", "schema_name": "information_schema"},
    {"slug": "a", "schema_name": 'x"; DROP SCHEMA kg'},
    {"slug": "a", "qdrant_prefix": "../hunter2"},
    {"slug": "a", "write_store": URI},
    {"slug": "a", "name": ""},
    {"slug": "a", "status": SECRET},
    {"slug": "a", "schedule": {"every_seconds": 0}},
    {"slug": "a", "schedule": {"every_seconds": 1e99}},
    {"slug": "a", "schedule": {"cron": URI}},
    {"slug": "a", "schedule": {"cadence": ["hunter2"]}},
    {"slug": "a", "schedule": {"adaptive": True, "notify": False}},
    {"slug": "a", "composition": {"sync": {"provider": "", "options": {"key": SECRET}}}},
    {"slug": "a", "password": SECRET},
]


@pytest.mark.parametrize("number", range(len(MAPS)))
def test_a_bad_map_is_refused_in_a_sentence(number: int) -> None:
    with pytest.raises((SynclineError, ValueError)) as refused:
        MAPS[number]()
    spoken(str(refused.value))


@pytest.mark.parametrize("raw", COMPOSITIONS, ids=lambda raw: str(raw)[:40])
def test_a_bad_composition_is_refused_in_a_sentence(raw: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_composition("world", raw)
    spoken(str(refused.value))


@pytest.mark.parametrize("fields", RECORDS, ids=lambda raw: str(raw)[:40])
def test_a_bad_record_is_refused_in_a_sentence(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_composition("a", draft_graph(fields).composition)
    spoken(str(refused.value))
    if "slug" in fields and len(fields) > 1:
        with pytest.raises(ConfigurationError) as refused:
            changed = graph_changes("a", {key: value for key, value in fields.items() if key != "slug"})
            parse_composition("a", changed.composition or {})
        spoken(str(refused.value))


# The command line --------------------------------------------------------------------------------------------

COMMANDS: list[tuple[str, ...]] = [
    ("hunter2",),
    ("sync",),
    ("sync", URI),
    ("sync", LONG),
    ("sync", "kg", "--timeout", SECRET),
    ("sync", "kg", "--timeout", "nan"),
    ("sync", "kg", "--batch-rows", "0"),
    ("sync", "kg", "--time-budget", "-1"),
    ("status", URI),
    ("runs", URI),
    ("runs", "kg", "--limit", "-1"),
    ("graph",),
    ("graph", "show", URI),
    ("graph", "add", URI),
    ("graph", "add", "Upper"),
    ("graph", "add", "a", "--provider", ""),
    ("graph", "change", "kg", "--every", "0"),
    ("graph", "adopt", URI),
    ("schedule", "pause", URI),
    ("schedule", "backfill", "kg", "--start", SECRET),
    ("failures", "list", URI),
    ("failures", "retry", "kg"),
    ("failures", "discard", "kg", "--all"),
    ("failures", "list", "kg", "--limit", "99999999"),
    ("parked", URI),
    ("explain", "kg"),
    ("explain", "kg", "write_nodes", "\x00"),
    ("verify", URI),
    ("verify", "kg", "--keys", "-1"),
    ("provider", "new", "../hunter2"),
    ("provider", "promote", URI),
    ("sample", "load", SECRET),
    ("doctor", "--timeout", "0"),
    ("dev", "--config", "/hunter2"),
    ("migrate", "--graph", URI),
    ("migrate", "hunter2"),
]


@pytest.mark.long(after=12)
@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words)[:40])
async def test_a_bad_command_ends_in_a_sentence(
    temporal_environment: dict[str, str], tmp_path: Path, words: tuple[str, ...]
) -> None:
    environment = {
        **temporal_environment,
        "SYNCLINE_TASK_QUEUE": "nobody-polls-this",
        "SYNCLINE_WRITE_DSN": "postgresql://me:hunter2@127.0.0.1:1/db",
        "SYNCLINE_GRAPH_DSN": "postgresql://me:hunter2@127.0.0.1:1/db",
    }
    said = await CommandLine(environment, tmp_path)(*words)
    assert said.status in (1, 2), said
    # Wrong usage is told with what was typed, by whom it was typed, and stays at that terminal.
    masked = said.err.replace(SECRET, "") if said.status == 2 else said.err
    # A list of commands is drawn as wide as the terminal.
    spoken(re.sub("[ ─]{2,}", " ", (masked + said.out).replace(LONG, "x")))


# Workflow inputs ---------------------------------------------------------------------------------------------

ACTION = {"graph": "kg", "who": "me", "why": "for a test"}

WORKFLOWS: list[tuple[str, Any]] = [
    (names.SYNC_GRAPH, SECRET),
    (names.SYNC_GRAPH, 7),
    (names.SYNC_GRAPH, [SECRET]),
    (names.SYNC_GRAPH, {"graph": ""}),
    (names.SYNC_GRAPH, {"graph": LONG}),
    (names.SYNC_GRAPH, {"graph": URI}),
    (names.SYNC_GRAPH, {"graph": "no\x00body"}),
    (names.SYNC_GRAPH, {"graph": "nobody"}),
    (names.SYNC_GRAPH, {"graph": 7}),
    (names.SYNC_GRAPH, {"graph": ["kg"]}),
    (names.SYNC_GRAPH, {"graph": "kg", "password": SECRET}),
    (names.SYNC_GRAPH, {"graph": "kg", URI: 1}),
    (names.SYNC_GRAPH, {f"key-{number}": 1 for number in range(3_000)}),
    (names.SYNC_GRAPH, {"graph": "kg", "batch_rows": 0}),
    (names.SYNC_GRAPH, {"graph": "kg", "batch_rows": SECRET}),
    (names.SYNC_GRAPH, {"graph": "kg", "batch_rows": 10**40}),
    (names.SYNC_GRAPH, {"graph": "kg", "time_budget_seconds": -1}),
    (names.SYNC_GRAPH, {"graph": "kg", "time_budget_seconds": 1e300}),
    (names.SYNC_GRAPH, {"graph": "kg", "progress_seconds": 0}),
    (names.SYNC_GRAPH, {"graph": "kg", "shadow": True}),
    (names.SYNC_GRAPH, {"shadow": True}),
    (names.SYNC_GRAPH, {"graph": "kg", "shadow": SECRET}),
    (names.VERIFY_GRAPH, None),
    (names.VERIFY_GRAPH, {}),
    (names.VERIFY_GRAPH, {"graph": LONG}),
    (names.VERIFY_GRAPH, {"graph": URI}),
    (names.VERIFY_GRAPH, {"graph": "kg", "tables": [URI]}),
    (names.VERIFY_GRAPH, {"graph": "kg", "tables": ["nodes", LONG]}),
    (names.VERIFY_GRAPH, {"graph": "kg", "keys": -1}),
    (names.VERIFY_GRAPH, {"graph": "kg", "repair": True, "shadow": True}),
    (names.VERIFY_GRAPH, {"graph": "kg", "repair": True, "who": LONG, "why": LONG}),
    (names.TAKE_OVER_GRAPH, {}),
    (names.TAKE_OVER_GRAPH, {"graph": "kg", "keys": -1}),
    (names.TAKE_OVER_GRAPH, {"graph": "kg", "dry_run": False, "who": LONG, "why": LONG}),
    (names.RETRY_FAILURES, {"graph": "kg"}),
    (names.RETRY_FAILURES, ACTION),
    (names.RETRY_FAILURES, {**ACTION, "everything": True, "table": "nodes"}),
    (names.RETRY_FAILURES, {**ACTION, "table": URI}),
    (names.RETRY_FAILURES, {**ACTION, "table": "nodes", "key": ["\x00"]}),
    (names.RETRY_FAILURES, {**ACTION, "fingerprint": LONG, "table": "nodes"}),
    (names.RETRY_FAILURES, {**ACTION, "everything": True, "why": "y" * 100_000}),
    (names.DISCARD_FAILURES, {**ACTION, "everything": True, "who": ""}),
    (names.DISCARD_FAILURES, {**ACTION, "key": ["x"]}),
    (names.SUMMARIZE_FAILURES, {"graph": "kg", "limit": -1}),
    (names.SUMMARIZE_FAILURES, {"graph": "kg", "limit": 10**30}),
    (names.SUMMARIZE_FAILURES, {"graph": "kg", "state": SECRET}),
    (names.LIST_FAILURES, {"graph": "kg", "limit": 0}),
    (names.LIST_FAILURES, {"graph": "kg", "limit": 10**30}),
    (names.LIST_FAILURES, {"graph": "kg", "after": URI}),
    (names.LIST_FAILURES, {"graph": "kg", "after": "\x00"}),
    (names.LIST_AUDIT, {"graph": "kg", "before": 10**30}),
    (names.LIST_AUDIT, {"graph": "kg", "limit": -5}),
    (names.SUMMARIZE_PARKED, {"graph": "kg", "limit": -1}),
    (names.LIST_PARKED, {"graph": "kg", "after": URI}),
    (names.LIST_PARKED, {"graph": "kg", "limit": 10**20}),
    (names.EXPLAIN_ROW, {"graph": "kg", "table": URI, "key": ["x"]}),
    (names.EXPLAIN_ROW, {"graph": "kg", "table": "nodes", "key": []}),
    (names.EXPLAIN_ROW, {"graph": "kg", "table": "nodes", "key": ["a", "b"]}),
    (names.EXPLAIN_ROW, {"graph": "kg", "table": "nodes", "key": ["\x00"]}),
    (names.EXPLAIN_ROW, {"graph": "kg", "table": "nodes", "key": "x"}),
    (names.LIST_GRAPHS, {"graph": URI}),
    (names.LIST_GRAPHS, {"limit": -1}),
    (names.LIST_GRAPHS, {"limit": 10**30}),
    (names.LIST_GRAPHS, {"after": "\x00"}),
    (names.ADD_GRAPH, {"draft": {"slug": URI}}),
    (names.ADD_GRAPH, {"draft": {"slug": "kg"}, "schedule": SECRET}),
    (names.ADD_GRAPH, {"draft": {"slug": "other", "write_store": "nobody"}}),
    (names.ADD_GRAPH, {"draft": {"slug": "other", "composition": {"sync": {"provider": 7}}}}),
    (names.ADD_GRAPH, {"draft": {"slug": "other", "schema_name": "kg"}}),
    (names.ADD_GRAPH, {"draft": {"slug": "other", "name": "\x00"}}),
    (names.CHANGE_GRAPH, {"graph": "kg", "status": SECRET}),
    (names.CHANGE_GRAPH, {"graph": "kg", "name": ""}),
    (names.CHANGE_GRAPH, {"graph": "kg", "name": "no\x00body"}),
    (names.CHANGE_GRAPH, {"graph": "kg", "schedule": {"every_seconds": SECRET}}),
    (names.CHANGE_GRAPH, {"graph": "kg", "schedule": {URI: 1}}),
    (names.CHANGE_GRAPH, {"graph": "kg", "composition": {"sync": {"provider": "x", "oh": SECRET}}}),
    (
        names.CHANGE_GRAPH,
        {"graph": "kg", "composition": {"sync": {"provider": "x", "options": {"a": "\x00"}}}},
    ),
    (names.PROMOTE_SHADOW, ACTION),
    (names.PROMOTE_SHADOW, {**ACTION, "force": SECRET}),
]


def said_by_us(event: Any) -> Any:
    """An event of a history without inputs, which are what was typed, and with its payloads decoded."""
    if isinstance(event, dict):
        kept = {key: value for key, value in event.items() if key != "input"}
        if "data" in kept and isinstance(kept["data"], str):
            kept["data"] = base64.b64decode(kept["data"]).decode(errors="replace")
        return {key: said_by_us(value) for key, value in kept.items()}
    return [said_by_us(each) for each in event] if isinstance(event, list) else event


@pytest.fixture
def logged(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that is logged or printed meanwhile has a traceback or a secret."""
    yield
    out, err = capfd.readouterr()
    for text in (out, err, caplog.text):
        assert "Traceback" not in text, text[-5_000:]
        assert LEAK not in text, text[-5_000:]


@pytest.mark.long("workflow/test_command_line.py::test_wrong_input_fails_the_run_at_once_and_says_why")
async def test_a_bad_workflow_input_ends_the_run_in_a_sentence(kg: SyncLab, logged: None) -> None:
    """What fails is told in the failure; no activity is retried for ever, no run ended from outside."""
    turns, wrong = asyncio.Semaphore(8), list[str]()

    async def one(number: int, workflow: str, given: Any) -> None:
        async with turns:
            run = await kg.client.start_workflow(
                workflow, given, id=kg.unique(f"bad-{number}"), task_queue=kg.task_queue
            )
            problem = None
            try:
                async with asyncio.timeout(30):
                    await run.result()
            except WorkflowFailureError as failed:
                cause = failed.cause.cause if isinstance(failed.cause, ActivityError) else failed.cause
                if not isinstance(cause, ApplicationError) or cause.type in (
                    None,
                    "ValueError",
                    "RuntimeError",
                ):
                    problem = f"ended by {cause!r}"
                elif len(cause.message) > 2_000 or LEAK in cause.message:
                    problem = f"said {cause.message[:300]}"
            except TimeoutError:
                problem = "did not end"
                await run.terminate()
            told = [said_by_us(MessageToDict(event)) for event in (await run.fetch_history()).events]
            if LEAK in json.dumps(told):
                problem = f"has the secret in its history: {str(told[-1])[:300]}"
            if problem is not None:
                wrong.append(f"{workflow} {str(given)[:80]}: {problem}")

    await asyncio.gather(*(one(number, *case) for number, case in enumerate(WORKFLOWS)))
    assert not wrong, "\n".join(wrong)


def test_there_are_two_hundred() -> None:
    counted = (SETTINGS, MAPS, COMPOSITIONS, RECORDS, COMMANDS, WORKFLOWS)
    assert sum(len(cases) for cases in counted) >= 200
