"""The page `docs/temporal-reference.md`: everything that Temporal sees, read from the code that defines it.

`python -m tests.kit.temporal_reference` prints it. Workflows and activities come from their definitions, names
from `syncline.names`, messages from their models, error types from `syncline.errors`; what each of them means is
its docstring.
"""

import ast
import inspect
import json
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from functools import cache
from itertools import pairwise
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from temporalio import activity, workflow

from activities.loads import LoadActivities
from activities.operations import FleetActivities, OperationActivities
from activities.schedules import ScheduleActivities
from activities.sync import SyncActivities
from activities.visibility import VisibilityActivities
from syncline import errors, names
from syncline.messages.sync import Committed, HandedOn, SyncEvent
from workflows.operations import OPERATIONS, DescribeFleet, DescribeGraphs, DescribeHealth
from workflows.reconcile import ReconcileSchedules
from workflows.sync_graph import SyncGraph
from workflows.visibility import WaitVisible

__all__ = ["ERRORS", "MESSAGES", "Model", "reference"]

Model = type[BaseModel] | type[StrEnum]
WORKFLOWS = (
    SyncGraph,
    ReconcileSchedules,
    *OPERATIONS,
    DescribeFleet,
    DescribeHealth,
    DescribeGraphs,
    WaitVisible,
)
ACTIVITIES = (
    SyncActivities,
    LoadActivities,
    ScheduleActivities,
    OperationActivities,
    FleetActivities,
    VisibilityActivities,
)
_BASES = (errors.SynclineError, errors.StoreError, errors.VectorStoreError, errors.EmbeddingError)
ERRORS = [
    cls
    for cls in vars(errors).values()
    if isinstance(cls, type) and issubclass(cls, errors.SynclineError) and cls not in _BASES
]

_PAGE = """# Temporal reference

Every name that Temporal sees, and every message that crosses it. They are wire format: saved views, scripts and
running workflows rely on them, so none is renamed, and a new field has a default. How to work with them:
[temporal.md](temporal.md). `make docs` writes this page from the code.

## Workflows

{workflows}

## Activities

{activities}

## Signals

Activities send them to their own run; an operator never needs to.

{signals}

## Queries

They answer for closed runs too, as long as a worker runs.

{queries}

## Search attributes

{attributes}

## Ids, task queues and channels

`<slug>` is that of the graph; `syncline` is the worker's task queue (`SYNCLINE_TASK_QUEUE`).

{ids}

## Errors that are not retried

The type of a failure in Temporal is the class in `syncline/errors.py`. These fail the run at once; the next scheduled
run tries again. [What to do](temporal.md#when-a-run-fails) about each.

{refused}

## Errors that are retried

So is every exception that is not of Syncline.

{retried}

*normal operation*: Temporal's category is `BENIGN`. The SDK does not count it as a failed activity, and the log has it
as information.

## Messages

JSON objects. In a message marked *sparse*, in the `tables` and in `carried` of a run's result, and in the details of
`CycleFailed`, a field that has its default is left out. Times are ISO 8601.

{messages}
"""


def reference() -> str:
    """Return the page `docs/temporal-reference.md`."""
    return _PAGE.format(
        workflows=_table(("Workflow", "Input", "Result", "What one run does"), _workflows()),
        activities=_table(("Activity", "Input", "Result", "What it does"), _activities()),
        signals=_table(("Signal", "Payload", "Meaning"), _handlers(_definition(SyncGraph).signals)),
        queries=_table(("Query", "Answer", "Meaning"), _handlers(_definition(SyncGraph).queries)),
        attributes=_table(("Name", "Type", "Meaning"), _attributes()),
        ids=_table(("Name", "Meaning"), _ids()),
        refused=_table(("Type", "Meaning"), _errors(retryable=False)),
        retried=_table(("Type", "Meaning"), _errors(retryable=True)),
        messages="\n\n".join(_message(model) for model in MESSAGES),
    )


def _table(header: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines).replace("|  |", "| |")


def _workflows() -> Iterator[Sequence[str]]:
    for cls in WORKFLOWS:
        definition = _definition(cls)
        parameters, result = definition.arg_types or [], definition.ret_type
        yield f"`{definition.name}`", _given(parameters), _type(result), _prose(cls.__doc__)


def _activities() -> Iterator[Sequence[str]]:
    for method, definition in _activity_definitions():
        parameters, result = definition.arg_types or [], definition.ret_type
        yield f"`{definition.name}`", _given(parameters), _type(result), _prose(method.__doc__)


def _activity_definitions() -> Iterator[tuple[Callable[..., Any], activity._Definition]]:
    for owner in ACTIVITIES:
        for method in vars(owner).values():
            definition = activity._Definition.from_callable(method) if callable(method) else None
            if definition is not None:
                yield method, definition


def _definition(cls: type) -> workflow._Definition:
    return workflow._Definition.must_from_class(cls)


def _handlers(
    defined: Mapping[str | None, workflow._SignalDefinition] | Mapping[str | None, workflow._QueryDefinition],
) -> Iterator[Sequence[str]]:
    docs = _docs_of(names)
    meanings = {
        value: docs[name] for name, value in vars(names).items() if name in docs and isinstance(value, str)
    }
    for name in [known for known in meanings if known in defined]:
        handler = defined[name]
        if isinstance(handler, workflow._QueryDefinition):
            crossing = _type(handler.ret_type)
        else:
            crossing = _given(handler.arg_types or [])
        yield f"`{name}`", crossing, _capital(meanings[name].partition(": ")[2])


def _attributes() -> Iterator[Sequence[str]]:
    constants = {value: name for name, value in vars(names).items() if name.startswith("ATTRIBUTE_")}
    for name, kind in names.SEARCH_ATTRIBUTES.items():
        yield f"`{name}`", kind, _docs_of(names)[constants[name]]


def _ids() -> Iterator[Sequence[str]]:
    queue = names.TASK_QUEUE
    made: list[tuple[Callable[..., object], tuple[str, ...]]] = [
        (names.sync_schedule_id, ("<slug>",)),
        (names.sync_workflow_id, ("<slug>",)),
        (names.shadow_workflow_id, ("<slug>",)),
        (names.shadow_slug, ("<slug>",)),
        (names.reconcile_schedules_id, (queue,)),
        (names.operation_id, (names.VERIFY_GRAPH, "<slug>", "<token>")),
        (names.operations_task_queue, (queue,)),
        (names.schedules_task_queue, (queue,)),
        (names.provider_task_queue, (queue, "<provider>")),
    ]
    for function, arguments in made:
        yield f"`{function(*arguments)}`", _capital(_prose(function.__doc__).removeprefix("Return "))
    for constant in (
        "MEMO_TIMES",
        "FALLBACK_PROVIDER",
        "DEFAULT_PROVIDER",
        "NOTIFY_CHANNEL",
        "WRITE_CHANNEL",
        "VISIBLE_CHANNEL",
    ):
        yield f"`{getattr(names, constant)}`", _docs_of(names)[constant]


def _errors(*, retryable: bool) -> Iterator[Sequence[str]]:
    for cls in ERRORS:
        if cls.retryable is retryable:
            yield f"`{cls.__name__}`", _prose(cls.__doc__) + (" *normal operation*" if cls.benign else "")


def _crossing() -> Iterator[object]:
    for cls in WORKFLOWS:
        definition = _definition(cls)
        yield from [*(definition.arg_types or []), definition.ret_type]
        for signal in definition.signals.values():
            yield from signal.arg_types or []
        for query in definition.queries.values():
            yield query.ret_type
    for _, made in _activity_definitions():
        yield from [*(made.arg_types or []), made.ret_type]
    # Of a failure's details, and of the channel for readers: no definition names them.
    yield from (HandedOn, Committed, SyncEvent)


def _models() -> list[Model]:
    """Every model that crosses Temporal or is inside one that does, in the order in which they are met."""
    found: dict[Model, None] = {}

    def meet(kind: object) -> None:
        for part in get_args(kind):
            meet(part)
        if not isinstance(kind, type) or kind in found:
            return
        if issubclass(kind, StrEnum):
            found[kind] = None
        elif issubclass(kind, BaseModel):
            found[kind] = None
            for field in kind.model_fields.values():
                meet(field.annotation)

    for kind in _crossing():
        meet(kind)
    return list(found)


MESSAGES = _models()


def _message(model: Model) -> str:
    heading = f"### `{model.__name__}`\n\n{_prose(model.__doc__)}"
    docs = _docs_of(model)
    if issubclass(model, StrEnum):
        rows = ((f"`{member.value}`", docs.get(member.name, "")) for member in model)
        return f"{heading}\n\n{_table(('Value', 'Meaning'), rows)}"
    if any(base.__name__ == "SparseMessage" for base in model.__mro__):
        heading += " *sparse*"
    if not model.model_fields:
        return heading
    fields = (
        (f"`{name}`", _bounded(field), _default(field), docs.get(name, ""))
        for name, field in model.model_fields.items()
    )
    return f"{heading}\n\n{_table(('Field', 'Type', 'Default', 'Meaning'), fields)}"


def _given(kinds: Sequence[object]) -> str:
    return ", ".join(_type(kind).removesuffix(" or null") for kind in kinds) or "none"


_WORDS: Mapping[object, str] = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "true or false",
    datetime: "time",
    UUID: "UUID",
    NoneType: "null",
}


def _type(kind: object) -> str:
    if kind in _WORDS:
        return _WORDS[kind]
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _type(parts[0])
    if origin is Literal:
        return " or ".join(f"`{choice}`" for choice in parts)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(_type, parts)))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "object" if _type(parts[1]) == "JSON" else f"object of {_type(parts[1])}"
    if origin in (tuple, list, Sequence):
        return f"list of {' and '.join(_type(part) for part in parts if part is not Ellipsis)}"
    if isinstance(kind, type) and issubclass(kind, BaseModel | StrEnum):
        return f"[`{kind.__name__}`](#{kind.__name__.lower()})"
    return "JSON"


def _bounded(field: FieldInfo) -> str:
    limits = [
        f"{word}{limit:,}"
        for rule in field.metadata
        for name, word in (("ge", "≥ "), ("gt", "> "), ("le", "≤ "), ("max_length", "length ≤ "))
        if (limit := getattr(rule, name, None)) is not None
    ]
    return ", ".join([_type(field.annotation), *limits])


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(default, BaseModel):
        return "its defaults"
    return f"`{default}`" if isinstance(default, str) else json.dumps(default)


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _prose(docstring: str | None) -> str:
    """Return a docstring as the cell of a table."""
    return " ".join(inspect.cleandoc(docstring or "").split()).replace("|", "\\|")


@cache
def _docs_of(owner: object) -> Mapping[str, str]:
    """Return name -> docstring of the attributes of a module, or of a class and its bases."""
    found: dict[str, str] = {}
    bases = reversed(owner.__mro__) if isinstance(owner, type) else [owner]
    for layer in bases:
        if isinstance(layer, type) and not layer.__module__.startswith("syncline"):
            continue
        body: list[ast.stmt] = ast.parse(textwrap.dedent(inspect.getsource(layer))).body  # type: ignore[arg-type]
        if isinstance(body[0], ast.ClassDef):
            body = body[0].body
        for statement, text in pairwise(body):
            if not isinstance(text, ast.Expr) or not isinstance(text.value, ast.Constant):
                continue
            match statement:
                case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                    found[name] = _prose(str(text.value.value))
    return found


if __name__ == "__main__":
    sys.stdout.write(reference())
