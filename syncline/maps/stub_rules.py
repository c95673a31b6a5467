"""Rules of stubs: where a row that a reference names can be made while it is missing."""

from collections.abc import Iterator, Sequence
from typing import Final

from syncline.maps.ids import IdRule
from syncline.maps.key_rules import Found
from syncline.maps.key_types import Kind
from syncline.maps.table_map import Reference, TableMap

__all__ = ["stub_faults"]

_FROM_KEY: Final = (IdRule.HASH, IdRule.SAME, IdRule.UUID5, IdRule.EXPRESSION)
_AWAY: Final = "Leave `stub` out: the row waits then."


def stub_faults(table: TableMap, tables: Sequence[TableMap]) -> Iterator[Found]:
    """Yield references whose stubs could not be made, found, or taken over by the row."""
    known = {each.name: each for each in tables}
    for position, reference in enumerate(table.references):
        parent = known.get(reference.parent)
        if parent is not None and parent is not table:
            for path, problem, fix in _faults(table, reference, parent, tables):
                yield ("references", position, *path), problem, fix


def _faults(
    table: TableMap, reference: Reference, parent: TableMap, tables: Sequence[TableMap]
) -> Iterator[Found]:
    if reference.stub is None:
        makes = [each for _, each in _references(parent, tables) if each.stub is not None]
        if any(each.by == reference.by for each in makes):
            yield (
                (),
                f"others make stubs of {parent.name} by the same value, for which this row would wait",
                "Add `stub: true`, or leave `stub` out there.",
            )
        elif any(reference.by in each.stub for each in makes if each.stub and reference.by):
            yield (
                ("by",),
                f"a stub of {parent.name} has a {reference.by} of its own, which its row may not have",
                f"Leave {reference.by} out of the stub, or refer by another column.",
            )
        return
    at = ("stub",)
    if not reference.required or reference.target_column in table.expressions:
        yield (
            at,
            "a stub is for a required reference, and this one is optional or an expression",
            "Write `required: true` and leave the expression out, or leave `stub` out.",
        )
    if parent.id_rule not in _FROM_KEY or parent.listed or not parent.identified:
        yield (
            at,
            f"ids of {parent.name} do not follow from its key, so a stub could not have one",
            f"Let {parent.name} have ids by `hash`, `same`, `uuid5` or `expression`, not beside.",
        )
    if parent.required:
        yield at, f"a stub of {parent.name} could not say its {parent.required[0].column}", _AWAY
    if any(links.parent == parent.name for each in tables for links in each.links) and reference.by is None:
        yield at, f"links to {parent.name} would wait for what a stub stands for", _AWAY
    if reference.by is not None:
        yield from _by_value(reference, parent, tables, at)
    names = {column.name for column in parent.columns}
    for name in reference.stub:
        if name not in names or name == reference.by:
            yield (
                (*at, name),
                f"{name} is no column of {parent.name} that a stub can say",
                f"Name one of `columns` of {parent.name}, but for the one that is looked up.",
            )


def _by_value(
    reference: Reference, parent: TableMap, tables: Sequence[TableMap], at: tuple[str, ...]
) -> Iterator[Found]:
    if parent.key_types[0].kind not in (Kind.TEXT, Kind.UUID):
        yield (
            at,
            f"its stubs need keys, and none can be made of type {parent.key_types[0].name}",
            _AWAY,
        )
    if len(parent.key) > 1:
        yield at, f"a value makes no key of {parent.name}, which has several columns", _AWAY
    others = {each.by for _, each in _references(parent, tables) if each.stub is not None and each.by}
    if min(others) != reference.by:
        yield (
            at,
            f"stubs of {parent.name} are found by {min(others)} elsewhere",
            "Look all of them up by one column.",
        )


def _references(parent: TableMap, tables: Sequence[TableMap]) -> Iterator[tuple[TableMap, Reference]]:
    for table in tables:
        for reference in table.references:
            if reference.parent == parent.name:
                yield table, reference
