"""What each command prints with `--json`: one table, of which docs/json.md is made and tests are checked."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from syncline.cli.output import EXIT_STATUSES
from syncline.messages.sync import CycleStatus, SyncResult
from syncline.messages.takeover import Takeover
from syncline.messages.verification import Verification
from syncline.operator.health.check import Check

if TYPE_CHECKING:
    from pydantic import JsonValue

    from syncline.engine.map_changes import TableChange

__all__ = [
    "ANSWERS",
    "WITHOUT_JSON",
    "Adopted",
    "AdoptionStep",
    "DatabaseGrants",
    "Diagnosis",
    "Loaded",
    "MapDiff",
    "Migrated",
    "ScheduleListed",
    "ScheduleRun",
    "ScheduleSteered",
    "SchedulesSteered",
    "SteeredAction",
    "SyncedRun",
    "TableDiff",
    "TakenOver",
    "pages",
    "schema_of",
]

ANSWERS: Final[Mapping[str, str]] = {
    "migrate": "list[syncline.cli.answers:Migrated]",
    "doctor": "syncline.cli.answers:Diagnosis",
    "grants": "list[syncline.cli.answers:DatabaseGrants]",
    "providers": "syncline.operator.fleet:Fleet",
    "provider check": "syncline.operator.plugins:PluginsChecked",
    "provider promote": "syncline.messages.operator:Promotion",
    "logs": "list[syncline.temporal.run_lines:LogLine]",
    "runs": "list[syncline.temporal.runs:RunEntry]",
    "status": "list[syncline.temporal.overview:GraphOverview]",
    "status GRAPH": "syncline.temporal.overview:GraphReport",
    "sync": "syncline.cli.answers:SyncedRun",
    "explain": "syncline.operator.explanation:Explanation",
    "parked": "syncline.operator.parked:ParkedSummary",
    "parked --table": "syncline.operator.parked:ParkedPage",
    "usage": "syncline.messages.usage:UsageReport",
    "embedding plan": "syncline.messages.embedding:EmbeddingPlan",
    "embedding start": "syncline.messages.embedding:EmbeddingStatus",
    "embedding status": "syncline.messages.embedding:EmbeddingStatus",
    "embedding switch": "syncline.messages.embedding:EmbeddingStatus",
    "embedding rollback": "syncline.messages.embedding:EmbeddingStatus",
    "embedding drop": "syncline.messages.embedding:EmbeddingStatus",
    "rebuild start": "syncline.messages.rebuild:RebuildStatus",
    "rebuild status": "syncline.messages.rebuild:RebuildStatus",
    "rebuild switch": "syncline.messages.rebuild:RebuildStatus",
    "rebuild rollback": "syncline.messages.rebuild:RebuildStatus",
    "rebuild drop": "syncline.messages.rebuild:RebuildStatus",
    "wait": "syncline.messages.visibility:Visibility",
    "verify": "syncline.messages.verification:Verification",
    "failures summary": "syncline.operator.dead_letters:FailureSummary",
    "failures list": "syncline.operator.dead_letters:DeadLetterPage",
    "failures show": "syncline.operator.dead_letters:DeadLetter",
    "failures retry": "syncline.messages.operator:FailuresActed",
    "failures discard": "syncline.messages.operator:FailuresActed",
    "failures audit": "syncline.operator.dead_letters:AuditPage",
    "graph add": "syncline.control.graphs:Graph",
    "graph adopt": "syncline.cli.answers:Adopted",
    "graph takeover": "syncline.cli.answers:TakenOver",
    "graph audit": "syncline.control.audit:GraphAuditPage",
    "graph archive": "syncline.control.graphs:Graph",
    "graph delete": "syncline.messages.operator:GraphDeleted",
    "graph rename": "syncline.control.graphs:Graph",
    "graph drop-collections": "syncline.messages.operator:CollectionsDropped",
    "graph list": "list[syncline.control.graphs:Graph]",
    "graph pause": "syncline.control.graphs:Graph",
    "graph resume": "syncline.control.graphs:Graph",
    "graph set": "syncline.control.graphs:Graph",
    "graph show": "syncline.control.graphs:Graph",
    "map check": "syncline.operator.map_check:MapCheck",
    "map diff": "syncline.cli.answers:MapDiff",
    "map ignore": "syncline.messages.operator:ColumnsDecided",
    "map history": "syncline.messages.operator:MapPage",
    "map list": "syncline.messages.operator:MapPage",
    "map propose": "syncline.operator.proposing:Proposal",
    "map put": "syncline.control.maps:MapPut",
    "map schema": "syncline.operator.proposing:JsonSchema",
    "map show": "syncline.control.maps:MapDocument",
    "map take": "syncline.messages.operator:ColumnsDecided",
    "sample wordnet": "syncline.cli.answers:Loaded",
    "sample world": "syncline.cli.answers:Loaded",
    "schedule backfill": "syncline.cli.answers:ScheduleSteered",
    "schedule list": "list[syncline.cli.answers:ScheduleListed]",
    "schedule pause": "syncline.cli.answers:ScheduleSteered",
    "schedule pause --all": "syncline.cli.answers:SchedulesSteered",
    "schedule reconcile": "syncline.messages.sync:Reconciliation",
    "schedule resume": "syncline.cli.answers:ScheduleSteered",
    "schedule resume --all": "syncline.cli.answers:SchedulesSteered",
    "schedule trigger": "syncline.cli.answers:ScheduleSteered",
}
"""Command, and what of it decides -> the model of its answer, as `module:Name` or as a list of that."""

WITHOUT_JSON: Final = ("dev", "worker", "mcp", "psql", "provider new")
"""Commands that answer nothing, and so have no `--json`: they run something, or write files."""


def schema_of(command: str) -> "dict[str, JsonValue]":
    """Return the JSON Schema of a command's answer."""
    return _schema(ANSWERS[command])


def pages() -> dict[str, str]:
    """Return what is generated: path below docs/ -> text."""
    rows = [
        f"| `syncline {command}` | [{_title(kind)}](schemas/{_stem(kind)}.json) |"
        for command, kind in ANSWERS.items()
    ]
    without = ", ".join(f"`{command}`" for command in WITHOUT_JSON)
    statuses = [f"| {code} | {text} |" for code, text in EXIT_STATUSES.items()]
    page = _PAGE.format(answers="\n".join(rows), without=without, statuses="\n".join(statuses))
    schemas = {f"schemas/{_stem(kind)}.json": _text(_schema(kind)) for kind in ANSWERS.values()}
    return {"json.md": page, **schemas}


_PAGE: Final = """# What commands answer

Every command takes `--json`, except these, which run or serve something or write files: {without}.
With it, standard output is one JSON value and nothing else; hints, warnings and errors go to standard error.
The value keeps to a JSON Schema (draft 2020-12). A later release may add properties; it renames and removes
none. Times are ISO 8601 in UTC.

```sh
syncline status --json | jq -r '.[] | select(.standing == "failed") | .graph'
```

| Command | Its answer |
|---|---|
{answers}

A command that fails may have printed its answer all the same: `syncline sync --json` of a run that failed
says why in `error`, and exits with 1.

## Exit statuses

| Status | Meaning |
|---|---|
{statuses}

## Tools for programs

`syncline mcp` serves the commands above as tools of the [Model Context
Protocol](https://modelcontextprotocol.io) over standard input and output: `graph list` is tool `graph_list`,
with the command's parameters, and answers its JSON. A tool runs the command in a process of its own, so
rights, audit and errors are the command's. Only commands that read are served, and `verify` without
`--repair`; `--allow-changes` serves all of them. `pip install 'syncline[mcp]'` has what it needs.

```json
{{"mcpServers": {{"syncline": {{"command": "syncline", "args": ["mcp"]}}}}}}
```

This page and the schemas are generated from `syncline/cli/answers.py`: `make docs`.
"""


def _schema(kind: str) -> "dict[str, JsonValue]":
    return TypeAdapter(_type(kind)).json_schema(mode="serialization")


def _type(kind: str) -> Any:
    """Return the type that a registry entry names."""
    module, _, name = _item(kind).partition(":")
    found: Any = getattr(import_module(module), name)
    return list[found] if kind != _item(kind) else found


def _item(kind: str) -> str:
    return kind.removeprefix("list[").removesuffix("]")


def _title(kind: str) -> str:
    name = _item(kind).partition(":")[2]
    return name if kind == _item(kind) else f"list of {name}"


def _stem(kind: str) -> str:
    return "-".join(reversed(_title(kind).split(" of ")))


def _text(schema: "dict[str, JsonValue]") -> str:
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / "schemas").mkdir(exist_ok=True)
    for path, text in pages().items():
        (folder / path).write_text(text, encoding="utf-8")


class Answer(BaseModel):
    """Base of an answer."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)


class ScheduleRun(Answer):
    """A run that a Schedule has started."""

    workflow_id: str
    run_id: str
    started_at: datetime


class ScheduleListed(Answer):
    """A graph's Schedule."""

    graph: str
    spec: str
    """When it runs, in words."""
    paused: bool
    note: str | None
    next_at: datetime | None
    last_runs: tuple[ScheduleRun, ...]
    """Newest first."""


class ScheduleSteered(Answer):
    """What was done to a graph's Schedule."""

    graph: str
    action: Literal["triggered", "paused", "resumed", "backfilling"]
    reason: str | None = None
    """Of a pause."""
    start: datetime | None = None
    """Of a backfill."""
    end: datetime | None = None


SteeredAction = Literal["paused", "resumed"]
"""What can be done to the Schedules of all graphs at once."""


class SchedulesSteered(Answer):
    """What was done to the Schedules of all graphs."""

    action: SteeredAction
    reason: str
    graphs: tuple[str, ...]
    """Those that it was done to; others were so already, or are paused for another reason."""
    failed: dict[str, str]
    """Those that could not be reached, and why."""


class SyncedRun(Answer):
    """A run of `SyncGraph` that was started, or found open, by hand."""

    graph: str
    workflow_id: str
    run_id: str
    joined: bool
    """Whether it was open already: a run by hand, or with --follow whichever held the graph."""
    status: str
    """`running` if nobody waited for its end, else how it ended: `completed`, `failed`, `canceled`, …"""
    cycle: CycleStatus | None = None
    """How its cycle ended."""
    provider: str | None = None
    """`builtin-engine` in fallback."""
    fallback: bool = False
    result: SyncResult | None = None
    error: str | None = None


class TakenOver(Answer):
    """`graph takeover`: what was found, and unless it was a dry run or refused, what was done."""

    takeover: Takeover
    sync: SyncedRun | None = None
    """The last run of the first sync."""
    verification: Verification | None = None
    """The comparison after it."""


class Migrated(Answer):
    """What migrating one thing took."""

    graph: str | None
    """Null for the control plane."""
    revisions: tuple[str, ...]
    """Those that were applied; none if it was up to date."""


class Loaded(Answer):
    """Sample data that was written."""

    graph: str
    rows: dict[str, int]
    """Table -> rows written."""
    seconds: float


class AdoptionStep(Answer):
    """A step of an adoption."""

    sentence: str
    sql: str


class Adopted(Answer):
    """What was done, or would be, to prepare a graph's tables for capture."""

    graph: str
    undo: bool
    dry_run: bool
    steps: tuple[AdoptionStep, ...]


class Diagnosis(Answer):
    """What `syncline doctor` found."""

    well: bool
    """Whether no check fails; warnings are no failures."""
    checks: tuple[Check, ...]


class DatabaseGrants(Answer):
    """What an administrator is to run in one database, so that roles have their rights there."""

    name: str
    """`write-db`, `graph-db` or `control plane`, with the key of a store that is not the system's."""
    setting: str
    """The setting of the workers that says where it is."""
    sql: str


class TableDiff(Answer):
    """How a table differs between two versions of a map, and what the next cycle does because of it."""

    table: str
    change: Literal["added", "changed", "left"]
    what: tuple[str, ...]
    """What differs, in a few words each."""
    reread: bool
    """Whether every row is read from the write-db again."""
    compare: bool
    """Whether keys are compared, and rows leave that the write-db does not have by them."""
    points: bool
    """Whether every point is written again; texts that are the same are not embedded again."""
    recount: bool
    """Whether every count is made again."""
    stays: tuple[str, ...]
    """Link tables and collections that are no longer written; what is in them stays."""


class MapDiff(Answer):
    """What differs between two versions of a map."""

    name: str
    before: str
    """The version or file that is compared, and in `after` what it is compared with."""
    after: str
    tables: tuple[TableDiff, ...]
    """Only those that differ; none if only layout, comments or the order differ."""
    text: str
    """The difference of the documents, line by line, as `diff -u` prints it."""

    @classmethod
    def of(
        cls, name: str, before: str, after: str, changes: "Sequence[TableChange]", *, text: str
    ) -> "MapDiff":
        """Return the answer for these changes."""
        tables = tuple(
            TableDiff(
                table=change.table,
                change=change.kind.value,
                what=change.what,
                reread=change.reread or change.fill or change.kind.value == "added",
                compare=change.compare,
                points=change.points,
                recount=change.recount,
                stays=(*change.links_left, *([change.collection_left] if change.collection_left else [])),
            )
            for change in changes
        )
        return cls(name=name, before=before, after=after, tables=tables, text=text)
