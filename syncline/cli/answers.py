"""What each command prints with `--json`: one table, of which docs/json.md is made and tests are checked."""

import json
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter

from syncline.cli.sentences import EXIT_STATUSES

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = ["ANSWERS", "pages", "schema_of"]

ANSWERS: Final[Mapping[str, str]] = {
    "migrate": "list[syncline.cli.models:Migrated]",
    "doctor": "syncline.cli.models:Diagnosis",
    "grants": "list[syncline.cli.models:DatabaseGrants]",
    "providers": "syncline.fleet:Fleet",
    "provider promote": "syncline.operations.requests:Promotion",
    "runs": "list[syncline.runs:RunEntry]",
    "status": "list[syncline.runs:GraphOverview]",
    "status GRAPH": "syncline.runs:GraphReport",
    "sync": "syncline.cli.models:SyncedRun",
    "explain": "syncline.operations:Explanation",
    "parked": "syncline.operations:ParkedSummary",
    "parked --table": "syncline.operations:ParkedPage",
    "verify": "syncline.verification:Verification",
    "failures summary": "syncline.operations:FailureSummary",
    "failures list": "syncline.operations:DeadLetterPage",
    "failures show": "syncline.operations:DeadLetter",
    "failures retry": "syncline.operations.requests:FailuresActed",
    "failures discard": "syncline.operations.requests:FailuresActed",
    "failures audit": "syncline.operations:AuditPage",
    "graph add": "syncline.graphs:Graph",
    "graph adopt": "syncline.cli.models:Adopted",
    "graph audit": "syncline.graph_audit:GraphAuditPage",
    "graph archive": "syncline.graphs:Graph",
    "graph list": "list[syncline.graphs:Graph]",
    "graph pause": "syncline.graphs:Graph",
    "graph resume": "syncline.graphs:Graph",
    "graph set": "syncline.graphs:Graph",
    "graph show": "syncline.graphs:Graph",
    "sample wordnet": "syncline.cli.models:Loaded",
    "sample world": "syncline.cli.models:Loaded",
    "schedule backfill": "syncline.cli.models:ScheduleSteered",
    "schedule list": "list[syncline.cli.models:ScheduleListed]",
    "schedule pause": "syncline.cli.models:ScheduleSteered",
    "schedule pause --all": "syncline.cli.models:SchedulesSteered",
    "schedule reconcile": "syncline.messages:Reconciliation",
    "schedule resume": "syncline.cli.models:ScheduleSteered",
    "schedule resume --all": "syncline.cli.models:SchedulesSteered",
    "schedule trigger": "syncline.cli.models:ScheduleSteered",
}
"""Command, and what of it decides -> the model of its answer, as `module:Name` or as a list of that."""


def schema_of(command: str) -> "dict[str, JsonValue]":
    """Return the JSON Schema of a command's answer."""
    return _schema(ANSWERS[command])


def pages() -> dict[str, str]:
    """Return what is generated: path below docs/ -> text."""
    rows = [
        f"| `syncline {command}` | [{_title(kind)}](schemas/{_stem(kind)}.json) |"
        for command, kind in ANSWERS.items()
    ]
    statuses = [f"| {code} | {text} |" for code, text in EXIT_STATUSES.items()]
    page = _PAGE.format(answers="\n".join(rows), statuses="\n".join(statuses))
    schemas = {f"schemas/{_stem(kind)}.json": _text(_schema(kind)) for kind in ANSWERS.values()}
    return {"json.md": page, **schemas}


_PAGE: Final = """# What commands answer

Every command that answers something takes `--json`. Then its standard output is one JSON value and nothing
else; hints, warnings and errors go to standard error. The value keeps to a JSON Schema (draft 2020-12). A
later release may add properties; it renames and removes none. Times are ISO 8601 in UTC.

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
