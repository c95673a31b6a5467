"""What each command prints with `--json`: one table, of which docs/json.md is made and tests are checked."""

import json
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter

from syncline.cli.sentences import EXIT_STATUSES

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = ["ANSWERS", "reference", "schema_of"]

ANSWERS: Final[Mapping[str, str]] = {
    "migrate": "list[syncline.cli.models:Migrated]",
    "doctor": "syncline.cli.models:Diagnosis",
    "providers": "syncline.fleet:Fleet",
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
    "failures retry": "syncline.cli.models:RowsDone",
    "failures discard": "syncline.cli.models:RowsDone",
    "failures audit": "syncline.operations:AuditPage",
    "graph add": "syncline.graphs:Graph",
    "graph adopt": "syncline.cli.models:Adopted",
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
    "schedule reconcile": "syncline.messages:Reconciliation",
    "schedule resume": "syncline.cli.models:ScheduleSteered",
    "schedule trigger": "syncline.cli.models:ScheduleSteered",
}
"""Command, and what of it decides -> the model of its answer, as `module:Name` or as a list of that."""


def schema_of(command: str) -> "dict[str, JsonValue]":
    """Return the JSON Schema of a command's answer."""
    return TypeAdapter(_type(ANSWERS[command])).json_schema(mode="serialization")


def reference() -> str:
    """Return the page docs/json.md."""
    by_type: dict[str, list[str]] = {}
    for command, kind in ANSWERS.items():
        by_type.setdefault(kind, []).append(command)
    parts = [_HEAD.format(statuses="\n".join(f"| {code} | {text} |" for code, text in EXIT_STATUSES.items()))]
    for kind, commands in by_type.items():
        names = ", ".join(f"`syncline {command}`" for command in commands)
        schema = json.dumps(schema_of(commands[0]), indent=1, ensure_ascii=False)
        parts.append(f"## {_title(kind)}\n\n{names}\n\n<!-- schema -->\n```json\n{schema}\n```\n")
    return "\n".join(parts)


_HEAD: Final = """# What commands answer

Every command that answers something takes `--json`. Then its standard output is one JSON value and nothing
else; hints, warnings and errors go to standard error. The value keeps to the JSON Schema below (draft
2020-12). A later release may add properties; it renames and removes none. Times are ISO 8601 in UTC. This
page is what `python -m syncline.cli.answers` prints.

## Exit statuses

| Status | Meaning |
|---|---|
{statuses}

A command that fails may have printed its answer all the same: `syncline sync --json` of a run that failed
says why in `error`, and exits with 1.
"""


def _type(spec: str) -> Any:
    """Return the type that a registry entry names."""
    inner = spec.removeprefix("list[").removesuffix("]")
    module, _, name = inner.partition(":")
    found: Any = getattr(import_module(module), name)
    return list[found] if spec.startswith("list[") else found


def _title(kind: str) -> str:
    inner = kind.removeprefix("list[").removesuffix("]").partition(":")[2]
    return f"List of {inner}" if kind.startswith("list[") else inner


if __name__ == "__main__":
    sys.stdout.write(reference())
