"""Words that were given up do not come back: as names, log events, metrics and alerts."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from syncline.metrics import DECLARED

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for place in ("syncline", "activities", "workflows", "providers", "worker.py")
    for path in ([ROOT / place] if place.endswith(".py") else (ROOT / place).rglob("*.py"))
)

NAMES = {
    "ear": "listener",
    "ears": "listeners",
    "attention": "listen session",
    "hearing": "listener status",
    "hear": "listen, receive",
    "heard": "received",
    "unheard": "missed changes",
    "wake": "trigger",
    "wakes": "triggers",
    "waking": "trigger",
    "woken": "triggered",
    "hush": "throttle",
    "hushed": "muted",
    "room": "provider thread",
    "rooms": "provider threads",
    "beat": "heartbeat",
    "tenure": "fence",
    "sieve": "bisecting sender",
    "absence": "outage",
    "away": "outage",
    "overran": "timed out",
    "abandoned": "cancel ignored",
    "escaped": "base exception raised",
    "unsettled": "in flight",
    "misfits": "schema problems",
    "bury": "insert dead letters",
    "absolve": "resolve dead letters",
    "excuse": "reset liveness",
    "retire": "stop polling",
    "pay": "run",
    "tell": "log, report, format, upsert, bind, notify, translate or filter",
    "tells": "reports",
    "telling": "output, report",
    "told": "logged, reported, formatted, notified, …",
    "untold": "unannounced",
    "say": "print, report",
    "says": "matches, prints",
    "whoever": "the actor",
    "somebody": "the actor",
    "nobody": "no worker, no operator, …",
}
"""Word of a module's, class's or function's name -> what to write."""

WHOLE_NAMES = {
    "Line": "ListenConnection",
    "Turn": "Lock",
    "Images": "RowChecksums",
    "Embedded": "EmbeddingBatch",
    "Trying": "PendingRetry",
    "Returned": "OutageEnded",
    "UnderWayHere": "RunningCycles",
    "run_by_hand": "execute_and_wait",
    "waits_told": "report_lock_waits",
    "take_turn": "acquire",
    "take_turns": "acquire",
    "pass_on": "release",
}

EVENTS = NAMES.keys() | {"anew", "who"}
"""Words that no log event, metric or alert has."""

LOGGED = re.compile(r"debug|info|warning|error|exception|critical|_log_\w+|_warn_\w+")


def words(name: str) -> list[str]:
    """Return the words of a name in any spelling: `on_ProviderReturned` has three."""
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower().strip("_").split("_")


@cache
def nodes(source: str) -> list[ast.AST]:
    """Return all nodes of a module."""
    return list(ast.walk(ast.parse(source)))


def named(source: str) -> Iterator[str]:
    """Yield the names of a module's classes, functions and methods."""
    for node in nodes(source):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name


def events(source: str) -> Iterator[str]:
    """Yield the constant parts of what a module logs."""
    for node in nodes(source):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            parts = ast.walk(node.args[0]) if LOGGED.fullmatch(node.func.attr) else ()
            yield from (
                part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)
            )


def banned_name(name: str) -> str | None:
    """Return what to write instead of a name that has a word which was given up."""
    return WHOLE_NAMES.get(name.strip("_")) or next(
        (NAMES[word] for word in words(name) if word in NAMES), None
    )


def banned_words(text: str) -> set[str]:
    """Return the words of a text that no event has."""
    return set(re.findall(r"[a-z]+", text.lower())) & EVENTS


def where(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_names_of_modules_classes_and_functions_are_the_glossarys() -> None:
    found = {
        f"{where(path)}: {name}": instead
        for path in SOURCES
        for name in (path.stem, *named(path.read_text(encoding="utf-8")))
        if (instead := banned_name(name)) is not None
    }
    assert found == {}


def test_log_events_have_no_word_that_was_given_up() -> None:
    found = {
        f"{where(path)}: {event}": given_up
        for path in SOURCES
        for event in events(path.read_text(encoding="utf-8"))
        if (given_up := banned_words(event))
    }
    assert found == {}


def test_metrics_and_alerts_have_no_word_that_was_given_up() -> None:
    rules = (ROOT / "ops/alerts.yml").read_text(encoding="utf-8")
    alerts = re.findall(r"^ *- alert: *(\w+)", rules, re.MULTILINE)
    assert len(alerts) > 10
    assert [
        name for name in (*DECLARED, *alerts) if EVENTS.intersection(words(name)) or "Listens" in name
    ] == []


@pytest.mark.parametrize(
    "name", ["Ear", "_told_key", "tell", "WakesUp", "serve_room", "hush_writers", "run_by_hand", "_Line"]
)
def test_banned_name_is_found(name: str) -> None:
    assert banned_name(name) is not None


@pytest.mark.parametrize("name", ["heartbeat", "TableLine", "on_provider_returned", "ClearRoomba", "payload"])
def test_banned_name_leaves_other_words_alone(name: str) -> None:
    assert banned_name(name) is None


def test_events_of_a_module_are_what_it_logs() -> None:
    source = 'log.info("a told", x="b")\nlog.bind(y="c")\nself._log_failure(f"d {z}", error)'
    assert list(events(source)) == ["a told", "d "]
