"""Rules of references by several columns: what contradicts itself, and what is no key of the parent."""

from collections.abc import Iterator

from syncline.maps.key_rules import NUMBERS, Found
from syncline.maps.key_types import key_type
from syncline.maps.table_map import Reference, TableMap

__all__ = ["together_faults"]


def together_faults(table: TableMap, reference: Reference, parent: TableMap) -> Iterator[Found]:
    """Yield what is wrong with a reference that has `columns`; where in it, not in the table map."""
    name, columns = reference.column, reference.columns
    if reference.by is not None or reference.unreadable is not None:
        one = "by" if reference.by is not None else "unreadable"
        yield (one,), f"several columns name a row by its key, and have no `{one}`", "Leave it out."
    made = {source for column in table.columns if not column.copied for source in column.sources}
    if name in {*table.key, *columns, *made}:
        yield ("columns",), f"{name} names the reference here, and is a column too", "Name it otherwise."
    if name in table.types:
        yield (
            ("columns",),
            f"the type of {name} is given, which is no column",
            f"Give types of {', '.join(columns)}.",
        )
    if len(columns) != len(parent.key) or len(set(columns)) < len(columns):
        said = f"keys of {parent.name} are ({', '.join(parent.key)}), and {len(columns)} columns are named"
        yield ("columns",), said, "Name one for each, in their order."
        return
    for place, (column, wanted) in enumerate(zip(columns, parent.key_types, strict=True)):
        own = table.type_of(column)
        if own.kind is not wanted.kind and not {own.kind, wanted.kind} <= NUMBERS:
            problem = f"{column} has {own.name}, and {parent.key[place]} of {parent.name} is {wanted.name}"
            yield ("columns", place), problem, f"Give the type that {column} has in `types`."
    if parent.identified:
        if reference.target is None:
            problem = f"{parent.name} has an id, and no column for it is named"
            yield ("columns",), problem, f"Add `target:` with the column for {parent.id_column}."
        return
    if reference.target is not None:
        problem = f"{parent.name} has no id that {reference.target} could hold"
        yield ("target",), problem, f"Leave it out: ({', '.join(columns)}) name the row there too."
    if not reference.required:
        problem = f"columns of the row cannot wait for {parent.name} by themselves"
        yield ("required",), problem, f"Make it required, or give {parent.name} an `id`."
    for place, column in enumerate(columns):
        held, wanted = table.holding(column, parent.parent_part(parent.key[place])), parent.key_types[place]
        if held is None:
            problem = f"no column of the target has {column}, as the parent has it"
            yield ("columns", place), problem, "Copy it, or refer by it to the row that the parent refers to."
            continue
        copied = next((c for c in table.columns if c.name == held and not c.copied), None)
        kind = None if copied is None else getattr(key_type(copied.type), "kind", None)
        if copied is not None and kind is not wanted.kind and not {kind, wanted.kind} <= NUMBERS:
            problem = f"{held} is {copied.type}, and {parent.key[place]} of {parent.name} is {wanted.name}"
            yield ("columns", place), problem, "Give it the type of the key."
