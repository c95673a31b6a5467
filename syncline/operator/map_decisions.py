"""Map decisions: what of a write-db's tables can be synced, and how: keys, references and links."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from syncline.capture.install.catalog import Catalog, ColumnState
from syncline.operator.map_catalog import MapTable, ParentKey

__all__ = ["COMPOSITE_KEYS", "KEY_TYPES", "Decisions", "Proposed", "Side"]

KEY_TYPES: Final = frozenset(
    (
        "text",
        "character varying",
        "uuid",
        "smallint",
        "integer",
        "bigint",
        "numeric",
        "date",
        "bytea",
        "timestamp without time zone",
        "timestamp with time zone",
    )
)
"""The types of keys that the engine can sync, as Postgres spells them."""

COMPOSITE_KEYS: Final = True
"""Whether the engine can sync keys of several columns that are no references."""

_AS_TEXT: Final = frozenset({"character varying", "character", "name", "citext"})
_SHORT: Final = {"timestamp with time zone": "timestamptz", "timestamp without time zone": "timestamp"}


@dataclass(frozen=True, kw_only=True)
class Side:
    """One schema: its tables, and the types of their columns."""

    catalog: Catalog
    tables: Mapping[str, MapTable]

    def column(self, table: str, name: str) -> ColumnState | None:
        """Return a column as capture and the engine see it."""
        found = self.catalog.tables.get(table)
        return None if found is None else found.columns.get(name)

    def type_of(self, table: str, name: str) -> str:
        """Return the type that a map has for a column: of an enum, the text of its values."""
        column = self.column(table, name)
        if column is None or column.enum or column.type.rpartition(".")[2] in _AS_TEXT:
            return "text"
        return _SHORT.get(column.type, column.type)


@dataclass
class Proposed:
    """What is proposed for one source table."""

    source: str
    name: str
    key: tuple[str, ...] = ()
    refused: str | None = None
    """Why it cannot be synced."""
    references: dict[str, str] = field(default_factory=dict)
    """Column -> parent's source table."""
    optional: set[str] = field(default_factory=set)
    arrays: dict[str, str] = field(default_factory=dict)
    """Array column -> the members' source table."""
    notes: dict[str, str] = field(default_factory=dict)
    """Column -> what could not be decided."""
    remarks: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    """Column that is not copied -> why."""


class Decisions:
    """The decisions about all tables of a schema: each depends on what was decided before."""

    def __init__(self, write: Side, graph: Side, key_types: frozenset[str], *, composite_keys: bool) -> None:
        self.write, self.graph = write, graph
        self._key_types, self._composite_keys = key_types, composite_keys
        self.prefix = _shared_prefix(sorted(write.tables))
        self.all: dict[str, Proposed] = {}
        taken: set[str] = set()
        for source in sorted(write.tables):
            name = self._target_name(source)
            name = source if name in taken else name
            taken.add(name)
            self.all[source] = Proposed(source, name)

    def decide(self) -> None:
        """Decide keys, then references, then arrays: each depends on what was decided before."""
        for table in self.all.values():
            self._decide_key(table)
        # What refers to a table that cannot be synced is copied as it is, and may lose its own key by that.
        while [table for table in self.all.values() if self._lose_key(table)]:
            pass
        for table in self.synced():
            self._decide_references(table)
        self._break_circles()
        for table in self.synced():
            self._decide_arrays(table)

    def synced(self) -> list[Proposed]:
        return [table for table in self.all.values() if table.refused is None]

    def _target_name(self, source: str) -> str:
        bare = source.removeprefix(self.prefix)
        for name in (bare, source, f"{bare}s", bare.removesuffix("s"), f"{bare.removesuffix('y')}ies"):
            if name in self.graph.tables:
                return name
        return bare

    def _decide_key(self, table: Proposed) -> None:
        found = self.write.tables[table.source]
        unique = [
            columns
            for columns in found.unique
            if all(found.columns[name].not_null for name in columns if name in found.columns)
        ]
        key = found.key or next(iter(unique), ())
        pair = self._pair(table, unique)
        if pair is not None:
            table.remarks.append(f"A join table: ({', '.join(pair)}) is unique, and is the key here.")
            table.left = {found.key[0]: "a key of its own, which no other table refers to"}
            key = pair
        if not key:
            table.refused = "it has no primary key, and no unique columns that are NOT NULL."
            return
        if not found.key:
            table.remarks.append(f"No primary key: {', '.join(key)} is unique and NOT NULL.")
        table.key = key
        table.references = {
            column: parent
            for column in key
            if (parent := self._parent(table, column)) is not None and parent != table.source
        }
        for column in key:
            kind = self.write.column(table.source, column)
            if kind is None or kind.enum or kind.type not in self._key_types:
                spelled = "of an unknown type" if kind is None else kind.type
                table.refused = f"its key column {column} is {spelled}; keys can be {self._said_types()}."
                return
        if len(key) > 1 and len(table.references) < len(key) and not self._composite_keys:
            others = ", ".join(column for column in key if column not in table.references)
            table.refused = (
                f"its key ({', '.join(key)}) has a column, {others}, that refers to no table; a key has one "
                "column, or columns that are all references."
            )

    def _pair(self, table: Proposed, unique: Sequence[tuple[str, ...]]) -> tuple[str, ...] | None:
        """Return the two unique references of a join table that has a key of its own beside them.

        None if that key is needed: others refer to it, or the target has it as its own.
        """
        found, target = self.write.tables[table.source], self.graph.tables.get(table.name)
        if len(found.key) != 1 or found.parent_of(found.key[0]) is not None:
            return None
        if target is not None and target.key == found.key and self._copied(table, found.key[0]):
            return None
        others = (each for each in self.write.tables.values() if each is not found)
        if any(key.parent == found.name for each in others for key in each.parents):
            return None
        pairs = [
            columns
            for columns in unique
            if len(columns) == 2
            and all(self._parent(table, column) not in (None, table.source) for column in columns)
        ]
        return pairs[0] if len(pairs) == 1 else None

    def _copied(self, table: Proposed, column: str) -> bool:
        """Whether the target has a column with the type of the source's."""
        here, there = self.write.column(table.source, column), self.graph.column(table.name, column)
        return here is not None and there is not None and here.type == there.type

    def _lose_key(self, table: Proposed) -> bool:
        """Take away a key's references to what has no id; return whether there were any."""
        if table.refused is not None:
            return False
        lost = [
            column for column, parent in table.references.items() if not self.identified(self.all[parent])
        ]
        if not lost:
            return False
        if len(table.key) == 1 or self._composite_keys:
            for column in lost:
                del table.references[column]
            return True
        parent = self.all[table.references[lost[0]]]
        why = "is not proposed" if parent.refused is not None else "has no id of its own"
        table.refused = f"its key ({', '.join(table.key)}) refers to {parent.source}, which {why}."
        return True

    def _said_types(self) -> str:
        return ", ".join(sorted(self._key_types))

    def _parent(self, table: Proposed, column: str) -> str | None:
        """Return the source table to whose key a column refers by a foreign key."""
        key = self.write.tables[table.source].parent_of(column)
        parent = None if key is None else self.write.tables.get(key.parent)
        if key is None or parent is None or parent.key != key.parent_columns:
            return None
        return parent.name

    def identified(self, table: Proposed) -> bool:
        """Whether other tables can refer to it: its key is no reference."""
        return table.refused is None and len(table.key) == 1 and table.key[0] not in table.references

    def _decide_references(self, table: Proposed) -> None:
        found = self.write.tables[table.source]
        together: set[str] = set()
        for key in found.parents:
            if len(key.columns) > 1:
                together.update(key.columns)
                table.remarks.append(
                    f"({', '.join(key.columns)}) refers to {key.parent} together, and these are copied."
                    + self._line_of(key)
                )
        for column in found.columns.values():
            if column.name in table.key:
                like = self._like(table, column.name)
                if like is not None and column.name not in table.references:
                    table.remarks.append(
                        f"Key column {column.name} has no foreign key; if it names a row of {like}, add it "
                        "to `references`."
                    )
                continue
            to = found.parent_of(column.name)
            if to is None:
                if column.name not in together:
                    self._note_like(table, column.name)
                continue
            parent = self.all.get(to.parent)
            if parent is None or not self.identified(parent):
                why = "is not proposed" if parent is None or parent.refused else "has no id of its own"
                table.notes[column.name] = f"refers to {to.parent}, which {why}"
            elif self._parent(table, column.name) is None:
                table.notes[column.name] = f"refers to {to.parent} by {', '.join(to.parent_columns)}"
            elif not self.identified(table) and not column.not_null:
                table.notes[column.name] = f"refers to {to.parent}, but may be NULL in a table without an id"
            else:
                table.references[column.name] = parent.source
                if not column.not_null or parent is table:
                    table.optional.add(column.name)

    def _line_of(self, key: ParentKey) -> str:
        """Return what to add for a reference by several columns, if its parent is proposed with that key."""
        parent, to = self.all.get(key.parent), dict(zip(key.parent_columns, key.columns, strict=True))
        if parent is None or parent.refused is not None or set(parent.key) != set(key.parent_columns):
            return ""
        columns = ", ".join(to[name] for name in parent.key)
        return (
            f" For rows to wait for {key.parent}, and to leave with it, add to `references`: "
            f"of_{parent.name}: {{parent: {parent.name}, columns: [{columns}]}}."
        )

    def _note_like(self, table: Proposed, column: str) -> None:
        """Note that a column without a foreign key is named like one."""
        like = self._like(table, column)
        if like is not None:
            table.notes[column] = f"no foreign key; if it names a row of {like}, move it to `references`"

    def _like(self, table: Proposed, column: str) -> str | None:
        """Return the table that a column, with or without `_id`, is named like, if it has its key's type."""
        stem = column.removesuffix("_id")
        named = (stem,) if stem == column else (stem, f"{stem}s")
        like = next((each for each in self.all.values() if each.name in named), None)
        if like is None or not self.identified(like) or (like is table and column in table.key):
            return None
        same = self.write.type_of(table.source, column) == self.write.type_of(like.source, like.key[0])
        return like.name if same else None

    def _break_circles(self) -> None:
        """Copy columns as they are where tables refer to each other in a circle, optional ones first."""
        while True:
            circle = self._circle()
            if circle is None:
                return
            table, column = circle
            parent = self.all[table.references.pop(column)]
            table.optional.discard(column)
            table.notes[column] = f"refers to {parent.name}, which refers back"

    def _circle(self) -> tuple[Proposed, str] | None:
        found: list[tuple[bool, Proposed, str]] = []
        for table in self.synced():
            for column, parent in table.references.items():
                if parent != table.source and column not in table.key and self._reaches(parent, table.source):
                    found.append((column not in table.optional, table, column))
        return min(found, key=lambda one: one[0])[1:] if found else None

    def _reaches(self, child: str, parent: str) -> bool:
        met: set[str] = set()
        waiting = [child]
        while waiting:
            name = waiting.pop()
            if name == parent:
                return True
            if name not in met:
                met.add(name)
                waiting += self.all[name].references.values()
        return False

    def _decide_arrays(self, table: Proposed) -> None:
        """Decide which arrays are links: those that are named like a table."""
        if not self.identified(table):
            return
        for column in self.write.tables[table.source].columns.values():
            kind = self.write.type_of(table.source, column.name)
            if not kind.endswith("[]"):
                continue
            stem = column.name.removesuffix("_ids").removesuffix("_keys")
            members = [
                each
                for each in self.synced()
                if each.name
                in (stem, f"{stem}s", f"{stem}es", f"{stem.removesuffix('y')}ies", _singular(stem))
                and self.identified(each)
                and each is not table
                and not self._reaches(each.source, table.source)
            ]
            if len(members) != 1:
                table.notes[column.name] = "an array that is copied; if it names rows, move it to `links`"
            elif not self._names_keys(kind, members[0]):
                table.notes[column.name] = (
                    f"names rows of {members[0].name}? Links of {kind} cannot be synced"
                )
            else:
                table.arrays[column.name] = members[0].source

    def _names_keys(self, array: str, member: Proposed) -> bool:
        """Whether elements of an array can be keys of a table: of their type, or their text."""
        key = self.type_of_key(member)
        return array == "text[]" or (array == f"{key}[]" and key in self._key_types)

    def type_of_key(self, table: Proposed) -> str:
        """Return the type of a key of one column."""
        return self.write.type_of(table.source, table.key[0])

    def same_id(self, table: Proposed) -> bool:
        """Whether the target's id is the key itself: as in the target that there is, else if no text."""
        if not self.identified(table):
            return False
        kind, target = self.type_of_key(table), self.graph.tables.get(table.name)
        if target is None:
            return kind != "text"
        return target.key == table.key and self.graph.type_of(target.name, table.key[0]) == kind

    def used(self) -> set[str]:
        used = {table.name for table in self.synced()}
        for table in self.synced():
            used |= {self.link_table(table, column)[0] for column in table.arrays}
        return used

    def link_table(self, table: Proposed, column: str) -> tuple[str, str, str]:
        """Return link table, owner and member of an array: those of the graph-db where it has one."""
        member = self.all[table.arrays[column]]
        for name, found in sorted(self.graph.tables.items()):
            ends = {key.parent: key.columns[0] for key in found.parents if len(key.columns) == 1}
            taken = name in {each.name for each in self.all.values()}
            if len(ends) == 2 and ends.keys() == {table.name, member.name} and not taken:
                return name, ends[table.name], ends[member.name]
        owner, other = _singular(table.name), _singular(member.name)
        links = f"{owner}_{member.name}"
        if links in {each.name for each in self.all.values()}:
            links = f"{owner}_{column}"
        return links, f"{owner}_id", f"{other}_id"


def _shared_prefix(names: Sequence[str]) -> str:
    """Return the words and underscores with which all names begin, if there are several names."""
    if len(names) < 2:
        return ""
    first, last = names[0], names[-1]
    length = next((n for n, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), 0)
    return first[: first.rfind("_", 0, length) + 1]


def _singular(name: str) -> str:
    if name.endswith("ies"):
        return f"{name.removesuffix('ies')}y"
    return name.removesuffix("s") if len(name) > 3 and not name.endswith("ss") else name
