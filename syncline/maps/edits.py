"""Edits of a map document: the next version that copies one more column, or leaves one alone on purpose.

The text is edited in place where that is plain, so that comments stay; otherwise it is written anew.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import yaml

from syncline.errors import MapInvalid, MapProblem
from syncline.maps.document import line_of, read_map, write_map
from syncline.maps.rules import faults_of
from syncline.maps.schema_map import SchemaMap
from syncline.maps.source import Place, SourceFault, parsed
from syncline.maps.table_map import Column, TableMap

__all__ = ["with_column", "with_ignored"]

_SOURCE: Final = "The next version"


def with_column(text: str, table: str, name: str, type_: str) -> str:
    """Return the document with a column of a table map copied; raise MapInvalid if the map cannot have it."""

    def change(found: TableMap) -> TableMap:
        return replace(found, columns=(*found.columns, Column(name=name, type=type_)))

    return _edited(text, table, "columns", f"{_scalar(name)}: {_scalar(type_)}", change)


def with_ignored(text: str, table: str, name: str) -> str:
    """Return the document with a column of a table map ignored; raise MapInvalid if the map copies it."""

    def change(found: TableMap) -> TableMap:
        return replace(found, ignored=(*found.ignored, name))

    return _edited(text, table, "ignored", _scalar(name), change)


def _edited(text: str, table: str, field: str, entry: str, change: Callable[[TableMap], TableMap]) -> str:
    before = read_map(text, source=_SOURCE)
    tables = tuple(change(each) if each.name == table else each for each in before)
    faults = faults_of(tables)
    if faults:
        line = line_of(text, ("tables", table)) or 1
        problems = [
            MapProblem(line=line, path=f"tables.{fault.table}", problem=fault.problem, fix=fault.fix)
            for fault in faults
        ]
        raise MapInvalid(_SOURCE, problems)
    after = SchemaMap(name=before.name, tables=tables)
    edited = _in_place(text, table, field, entry)
    return edited if edited is not None and _matches(edited, after) else write_map(after)


def _matches(text: str, wanted: SchemaMap) -> bool:
    """Return whether a document is this map, whatever the order of columns."""
    try:
        found = read_map(text, source=_SOURCE)
    except MapInvalid:
        return False
    return _sorted(found) == _sorted(wanted)


def _sorted(schema_map: SchemaMap) -> list[TableMap]:
    return [
        replace(
            table,
            columns=tuple(sorted(table.columns, key=lambda each: each.name)),
            ignored=tuple(sorted(table.ignored)),
        )
        for table in schema_map
    ]


def _in_place(text: str, table: str, field: str, entry: str) -> str | None:
    """Return the text with an entry added to a field of a table; None where that is not plain."""
    try:
        place, _ = parsed(text)
    except SourceFault:
        return None
    lines = text.splitlines(keepends=True)
    tables = place.part("tables")
    found = None if tables is None else tables[2].part(table)
    if found is None or not found[2].entries:
        return None
    body = found[2]
    there = body.part(field)
    if there is None:
        return _new_field(lines, body, field, entry)
    _, line, value = there
    if value.items is not None or value.entries is None:
        return _listed(lines, line, field, entry)
    if not value.entries or next(iter(value.key_lines.values())) == line:
        return _replaced(lines, line, rf"({re.escape(field)}\s*:\s*\{{)\s*", rf"\g<1>{_verbatim(entry)}, ")
    first = next(iter(value.key_lines.values()))
    return _inserted(lines, first, f"{_indent(lines[first - 1])}{entry}\n")


def _listed(lines: list[str], line: int, field: str, entry: str) -> str | None:
    """Add to a list in one line; a list of columns becomes a mapping, where it says the type too."""
    if field == "ignored":
        return _replaced(lines, line, r"(ignored\s*:\s*\[)\s*", rf"\g<1>{_verbatim(entry)}, ")
    match = re.search(r"columns\s*:\s*\[([\w\s,]*)\]", lines[line - 1])
    if match is None:
        return None
    names = [name.strip() for name in match[1].split(",") if name.strip()]
    columns = ", ".join([entry, *(f"{name}: text" for name in names)])
    return _replaced(lines, line, r"columns\s*:\s*\[[\w\s,]*\]", _verbatim(f"columns: {{{columns}}}"))


def _new_field(lines: list[str], body: Place, field: str, entry: str) -> str | None:
    first = min(body.key_lines.values())
    line = lines[first - 1]
    if re.match(r"\s*[\w\"']+\s*:", line) is None or re.search(r"[{}]", line):
        return None
    value = f"{{{entry}}}" if field == "columns" else f"[{entry}]"
    return _inserted(lines, first, f"{_indent(line)}{field}: {value}\n")


def _inserted(lines: list[str], before: int, line: str) -> str:
    return "".join([*lines[: before - 1], line, *lines[before - 1 :]])


def _replaced(lines: list[str], line: int, pattern: str, by: str) -> str | None:
    changed, times = re.subn(pattern, by, lines[line - 1], count=1)
    return "".join([*lines[: line - 1], changed, *lines[line:]]) if times else None


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _verbatim(text: str) -> str:
    return text.replace("\\", r"\\")


def _scalar(text: str) -> str:
    """Return a text as YAML in one line, also within braces."""
    plain = re.fullmatch(r"[A-Za-z_][\w ]*", text) is not None
    style = None if plain else '"'
    written: str = yaml.safe_dump(text, width=10_000, allow_unicode=True, default_style=style)
    return written.removesuffix("...\n").rstrip("\n")
