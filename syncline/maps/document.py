"""Map document: YAML or JSON <-> schema map."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, replace
from functools import cache
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails

from syncline.errors import MapInvalid, MapProblem
from syncline.maps.forms import STRICT, Keyed, Name
from syncline.maps.into import completed
from syncline.maps.rules import did_you_mean, faults_of, parents_first
from syncline.maps.schema_map import SchemaMap
from syncline.maps.source import Place, SourceFault, parsed
from syncline.maps.table_map import Column, Reference, TableMap
from syncline.maps.tenants import Tenant, TenantForm
from syncline.quoting import shown

__all__ = ["VERSION", "MapDocument", "line_of", "read_map", "write_map"]

VERSION: Final = 1
"""Version of the form of the document."""

Path = tuple[str | int, ...]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MapDocument:
    """A map: which tables of the write-db are synced, and what of them goes where in graph-db and Qdrant."""

    version: Literal[1]
    """Version of this form of document: 1."""
    name: Name
    """Name of the map."""
    tables: Annotated[tuple[TableMap, ...], Keyed("name")]
    """The tables, in any order: parents are synced before their children."""
    tenant: TenantForm = None
    """The column that says whose a row is, in every table that says nothing else: each graph has the rows of
    the tenant that its composition names."""


def read_map(text: str, *, source: str) -> SchemaMap:
    """Return the map that a YAML or JSON text describes; raise MapInvalid with all its problems.

    `source` says whose text it is: a file or a map by name.
    """
    try:
        place, twice = parsed(text)
    except SourceFault as none:
        raise MapInvalid(source, [_of_source(none)]) from None
    problems = [_of_source(again) for again in twice]
    document = None
    try:
        document = _adapter().validate_python(place.data)
    except ValidationError as invalid:
        found = invalid.errors(include_url=False, include_input=False)
        problems += [_of_model(place, error) for error in found]
    if document is not None and not document.tables:
        line, named, _ = _found(place, ("tables",))
        fix = "Add an entry for each table that is to be synced."
        problems.append(MapProblem(line=line, path=named, problem="there is no table in it", fix=fix))
    elif document is not None:
        listed = completed(document.tables)
        ordered, circle = parents_first(listed)
        order = [*ordered, *circle]
        tables = tuple(_with_tenant(listed[index], document.tenant) for index in order)
        for fault in faults_of(tables):
            _, index, *rest = fault.path
            path: Path = ("tables", order[index] if isinstance(index, int) else index, *rest)
            line, named, _ = _found(place, path)
            problems.append(MapProblem(line=line, path=named, problem=fault.problem, fix=fault.fix))
        if not problems:
            return SchemaMap(name=document.name, tables=tables)
    raise MapInvalid(source, sorted(problems, key=lambda problem: problem.line))


def _with_tenant(table: TableMap, default: TenantForm) -> TableMap:
    if isinstance(table.tenant, Tenant) or (table.tenant is None and default is None):
        return table
    return replace(
        table, tenant=None if table.tenant is not None or not isinstance(default, Tenant) else default
    )


def line_of(text: str, path: Sequence[str]) -> int | None:
    """Return the line of a key in a document, or of the nearest one around it; None if it cannot be read.

    `path` has the names of tables and columns, also where the document has lists.
    """
    try:
        place, _ = parsed(text)
    except SourceFault:
        return None
    line = place.line
    for step in path:
        part = place.named(step)
        if part is None:
            break
        _, line, place = part
    return line


def write_map(schema_map: SchemaMap) -> str:
    """Return the YAML document of a map: it reads back equal."""
    document = {
        "version": VERSION,
        "name": schema_map.name,
        "tables": {table.name: _short(table, "name") for table in schema_map},
    }
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


@cache
def _adapter() -> TypeAdapter[MapDocument]:
    return TypeAdapter(MapDocument)


# What is wrong ----------------------------------------------------------------------------------------------


def _of_source(fault: SourceFault) -> MapProblem:
    return MapProblem(line=fault.line, path=_joined(fault.path), problem=fault.problem, fix=fault.fix)


def _of_model(document: Place, error: ErrorDetails) -> MapProblem:
    """Return an error of the model in the words of the document."""
    context = error.get("ctx", {})
    path: Path = (*error["loc"], *context.get("at", ()))
    line, named, place = _found(document, path)
    problem, fix = _said(error, path, place)
    return MapProblem(line=line, path=named, problem=problem, fix=fix)


def _said(error: ErrorDetails, path: Path, place: Place | None) -> tuple[str, str]:
    """Return what is wrong, and the fix."""
    last = str(path[-1]) if path else "the document"
    match error["type"]:
        case "map":
            context = error["ctx"]
            return context["problem"], context["fix"]
        case "missing":
            return f"'{last}' is missing", _WANTED.get(last, f"Add `{last}:`.")
        case "unexpected_keyword_argument":
            known = _keys_at(path[:-1])
            otherwise = f"Known: {', '.join(known)}."
            return f"unknown key {shown(last)}", did_you_mean(last, known, otherwise=otherwise)
        case "enum":
            return f"{shown(last)} must be {error['ctx']['expected']}", "Write one of them."
        case "literal_error":
            return (
                f"this version of the form is unknown: {VERSION} is the newest",
                f"Write `version: {VERSION}`.",
            )
        case "string_type" if place is not None and place.plain and place.data is not None:
            return "this is a number or a truth value, not a text", "Put it in quotes."
        case "string_type":
            return "a text is wanted here", "Write one text."
        case "bool_type":
            return "true or false is wanted here", "Write `true` or `false`, without quotes."
        case "tuple_type" | "list_type":
            return (
                "a list or a mapping is wanted here",
                "Write `- item` in lines of their own, or `key: value`.",
            )
        case "mapping_type" | "dict_type":
            return "a mapping is wanted here", "Write `key: value` in lines of their own."
        case "dataclass_type" | "dataclass_exact_type":
            known = _keys_at(path)
            return (
                "a mapping is wanted here",
                f"Write `key: value` in lines of their own; known: {', '.join(known)}.",
            )
        case _:
            return error["msg"], "See the reference in docs/maps.md."


_WANTED: Final[Mapping[str, str]] = {
    "version": f"Begin with `version: {VERSION}`.",
    "name": "Add `name:` with the name of the map or the table.",
    "tables": "Add `tables:` with an entry for each table.",
    "source": "Add `source:` with the table, or for links the array column, of the write-db.",
    "parent": "Add `parent:` with the name of the table whose rows are named.",
    "collection": "Add `collection:` with the name of the collection in Qdrant.",
    "text": "Add `text:` with the SQL of the text to embed, such as t.title.",
    "payload": "Add `payload:` with an entry for each field, such as `title: t.title`; {} has none.",
}


def _found(document: Place, path: Path) -> tuple[int, str, Place | None]:
    """Return line and name of a field, and its place; of the nearest one around it if the text lacks it."""
    place, line, named = document, document.line, list[str | int]()
    for number, step in enumerate(path):
        part = place.part(step)
        if part is None:
            # The key of an entry is a field of the item; so is a text that stands for the item.
            said = place.data is not None and place.entries is None and place.items is None
            said |= isinstance(named[-1:] and named[-1], str) and _key_field(path[:number]) == step
            return line, _joined((*named, *(() if said else path[number:]))), None
        key, line, place = part
        named.append(key)
    return line, _joined(named), place


def _joined(path: Sequence[str | int]) -> str:
    return ".".join(str(step) if isinstance(step, int) else _quoted(step) for step in path)


def _quoted(key: str) -> str:
    return key if key.isidentifier() else shown(key)


# The fields of the model ------------------------------------------------------------------------------------


def _keys_at(path: Path) -> list[str]:
    """Return the fields that an object at this path of the model has."""
    found = _class_at(path)
    return [] if found is None else [field.name for field in fields(found)]


def _class_at(path: Path) -> type[Any] | None:
    at: type[Any] | None = MapDocument
    for step in path:
        if isinstance(step, int):
            continue
        if at is None:
            return None
        hint = get_type_hints(at).get(step)
        at = next((each for each in _inside(hint) if hasattr(each, "__dataclass_fields__")), None)
    return at


def _key_field(path: Path) -> str | None:
    """Return the field of an item that the key of the mapping stands for; None if `path` is not an item."""
    if not (path and isinstance(path[-1], int)):
        return None
    around = _class_at(path[:-2])
    hint = None if around is None else get_type_hints(around, include_extras=True).get(str(path[-2]))
    keyed = [extra for extra in get_args(hint) if isinstance(extra, Keyed)]
    return keyed[0].by if keyed else None


def _inside(hint: object) -> Iterator[type[Any]]:
    if isinstance(hint, type) and get_origin(hint) is None:
        yield hint
    for each in get_args(hint):
        yield from _inside(each)


# The short forms --------------------------------------------------------------------------------------------


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and short lists in one line."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    if not text.replace("\n", "").isprintable():
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _represent_list(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.SequenceNode:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(list, _represent_list)


def _short(value: Any, key: str | None = None) -> Any:
    """Return what a document says for a value of the model: no defaults, and no field that is its key."""
    match value:
        case Column() if value.copied:
            return value.type
        case Column():
            return _short_column(value)
        case Reference() if value == Reference(column=value.column, parent=value.parent):
            return value.parent
        case str():
            return str(value)  # members of StrEnum are texts too
    if isinstance(value, tuple):
        return value[0] if len(value) == 1 else list(value)
    if not hasattr(value, "__dataclass_fields__"):
        return dict(value) if isinstance(value, Mapping) else value
    hints = get_type_hints(type(value), include_extras=True)
    said: dict[str, Any] = {}
    for each in fields(value):
        item = getattr(value, each.name)
        if each.name == key or _by_default(each, item):
            continue
        keyed = [extra for extra in get_args(hints[each.name]) if isinstance(extra, Keyed)]
        said[each.name] = (
            {getattr(one, keyed[0].by): _short(one, keyed[0].by) for one in item} if keyed else _short(item)
        )
    return said


def _short_column(column: Column) -> dict[str, Any]:
    said: dict[str, Any] = {"type": column.type}
    if any(column.source.values()):
        said["source"] = {name: type_ or None for name, type_ in column.source.items()}
    elif column.source:
        names = list(column.source)
        said["source"] = names[0] if len(names) == 1 else names
    return said | ({} if column.value is None else {"value": column.value})


def _by_default(each: Any, item: object) -> bool:
    if each.default is not MISSING:
        return bool(each.default == item)
    return each.default_factory is not MISSING and bool(each.default_factory() == item)
