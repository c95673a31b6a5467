"""Rules: what contradicts itself in the table maps of a graph, all at once, each with where and the fix.

One module because these rules look at several parts of a table map, or at several tables, at once; rules of
one part are in modules of their own (`key_rules`, `link_rules`, `column_rules`, …).
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from syncline.maps.column_rules import column_faults, source_paths
from syncline.maps.counter_rules import counter_faults
from syncline.maps.forms import RESERVED
from syncline.maps.into import into_faults
from syncline.maps.key_rules import identity_faults, referring_faults
from syncline.maps.link_rules import link_faults
from syncline.maps.mark_rules import mark_faults
from syncline.maps.sql_rules import parameter_faults
from syncline.maps.stub_rules import stub_faults
from syncline.maps.table_map import Links, Reference, TableMap
from syncline.maps.tenant_rules import tenant_faults
from syncline.maps.together_rules import together_faults
from syncline.maps.unreadable_rules import unreadable_faults

__all__ = ["Fault", "did_you_mean", "faults_of", "parents_first"]

Path = tuple[str | int, ...]
_MADE = re.compile(r"(?P<of>.+)\.(live|[0-9]+)")
"""Names that the vector store gets beside a collection's own."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One contradiction. `path` leads from the schema map to the field: names of fields and positions."""

    path: Path
    problem: str
    fix: str
    table: str | None = None
    """The table map at fault, if it is one."""

    def __str__(self) -> str:
        of = "" if self.table is None else f"{self.table}: "
        return f"{of}{self.problem}. {self.fix}"


def did_you_mean(name: str, known: Iterable[str], *, otherwise: str) -> str:
    """Return a question with the known name that is near, or `otherwise`."""
    near = get_close_matches(name, list(known), n=1)
    return f"Did you mean '{near[0]}'?" if near else otherwise


def parents_first(tables: Sequence[TableMap]) -> tuple[list[int], list[int]]:
    """Return the positions of the tables with parents before children, and those that no order can place.

    Otherwise the order stays. Tables wait only for those that there are; the second list is a circle of
    references, and what depends on it.
    """
    names = {table.name for table in tables}
    waiting = list(range(len(tables)))
    placed: set[str] = set()
    ordered: list[int] = []
    while waiting:
        ready = next(
            (index for index in waiting if {*tables[index].parents} & names <= placed | {tables[index].name}),
            None,
        )
        if ready is None:
            break
        waiting.remove(ready)
        ordered.append(ready)
        placed.add(tables[ready].name)
    return ordered, waiting


def faults_of(tables: Sequence[TableMap]) -> list[Fault]:
    """Return every contradiction in and between the tables, which stand parents before children."""
    found: list[Fault] = []
    known = {table.name: table for table in tables}
    seen: dict[str, TableMap] = {}
    collections: dict[str, str] = {}
    for index, table in enumerate(tables):
        rules = _Table(index, table)
        if table.name in seen:
            found.append(rules.fault("name", problem="it is declared twice", fix="Use separate names."))
        seen.setdefault(table.name, table)
        found += rules.parents(seen, known)
        found += rules.into(tables)
        found += rules.own()
        vector = table.vector
        if vector is not None and collections.setdefault(vector.collection, table.name) != table.name:
            # The same key gives the same id in every table: two tables would overwrite each other's points.
            other = f"another table, {collections[vector.collection]}, has collection {vector.collection}"
            fix = "Use a collection for each table."
            found.append(rules.fault("vector", "collection", problem=other, fix=fix))
        if vector is not None and "@" in vector.collection:
            taken = f"collection {vector.collection} has an '@', as the second generation of another has"
            found.append(rules.fault("vector", "collection", problem=taken, fix="Use a name without '@'."))
    for index, table in enumerate(tables):
        made = None if table.vector is None else _MADE.fullmatch(table.vector.collection)
        if made is not None and made["of"] in collections:
            taken = f"its name is that of an alias, or of another generation, of collection {made['of']}"
            fix = "Use a name that does not end with '.live' or a dot and a number."
            found.append(_Table(index, table).fault("vector", "collection", problem=taken, fix=fix))
    found += _uses(tables)
    for index, path, problem, fix in tenant_faults(tables):
        found.append(_Table(index, tables[index]).fault(*path, problem=problem, fix=fix))
    for index, table in enumerate(tables):
        rules = _Table(index, table)
        found += rules.rejections(seen)
        found += rules.counts(tables)
    # The first one of a field has the particulars; what is wrong with it besides often follows from that.
    return list({fault.path: fault for fault in reversed(found)}.values())[::-1]


def _uses(tables: Sequence[TableMap]) -> Iterator[Fault]:
    """Yield tables with two uses, and those with a reserved name."""
    placed: dict[str, str] = {}
    for index, table in enumerate(tables):
        rules = _Table(index, table)
        places: list[tuple[str, str, Path]] = [(table.name, f"the rows of {table.name}", ("name",))]
        for position, links in enumerate(table.links):
            places.append((links.table, f"the links of {table.name}", ("links", position, "table")))
        if table.stats is not None and table.stats.table is not None:
            places.append((table.stats.table, f"the counts of {table.name}", ("stats", "table")))
        for name, what, path in places:
            # One name twice is told as such.
            if name in placed and placed[name] != what:
                problem = f"{name} cannot hold {placed[name]} and {what}"
                yield rules.fault(*path, problem=problem, fix="Use separate tables.")
            placed.setdefault(name, what)
        for name, path in [*((name, path) for name, _, path in places), (table.source, ("source",))]:
            if name.startswith(RESERVED):
                problem = f"{name} begins with {RESERVED} like the engine's own tables"
                yield rules.fault(*path, problem=problem, fix="Name another table.")


class _Table:
    """The rules of one table map."""

    def __init__(self, index: int, table: TableMap) -> None:
        self._index, self._table = index, table

    def fault(self, *path: str | int, problem: str, fix: str) -> Fault:
        return Fault(path=("tables", self._index, *path), table=self._table.name, problem=problem, fix=fix)

    def own(self) -> Iterator[Fault]:
        """Yield what contradicts itself in this table map alone."""
        yield from self._key()
        yield from self._references()
        yield from self._names()
        yield from self._ignored()
        yield from self._expressions()
        yield from self._vector()

    def parents(self, seen: Mapping[str, TableMap], known: Mapping[str, TableMap]) -> Iterator[Fault]:
        """Yield parents that are not declared before this table, or that cannot be one."""
        named: list[tuple[Reference | Links, Path]] = [
            (reference, ("references", position)) for position, reference in enumerate(self._table.references)
        ]
        named += [(links, ("links", position)) for position, links in enumerate(self._table.links)]
        for one, path in named:
            parent = seen.get(one.parent)
            if parent is None:
                problem = f"it refers to {one.parent}, not declared before it"
                fix = f"Declare {one.parent} before it."
                if one.parent not in known:
                    otherwise = f"Declare {one.parent}, or leave this out."
                    fix = did_you_mean(one.parent, known, otherwise=otherwise)
                elif _refers(known, one.parent, self._table.name):
                    problem += f" in any order: {one.parent} refers back to {self._table.name}"
                    fix = "Leave one of these references out, or copy its column as it is."
                yield self.fault(*path, "parent", problem=problem, fix=fix)
                continue
            if isinstance(one, Reference) and one.columns:
                for at, problem, fix in together_faults(self._table, one, parent):
                    yield self.fault(*path, *at, problem=problem, fix=fix)
                continue
            if not parent.identified:
                problem = f"it refers to {one.parent}, which has no id of its own"
                fix = f"Refer to the parents of {one.parent}, or give it an `id`."
                if isinstance(one, Reference) and one.by is None and len(parent.key) > 1:
                    columns = f"name what refers to ({', '.join(parent.key)}) in `columns`"
                    fix = f"Refer to the parents of {one.parent}, {columns}, or give it an `id`."
                yield self.fault(*path, "parent", problem=problem, fix=fix)
            for problem, fix in referring_faults(self._table, one, parent):
                yield self.fault(*path, "parent", problem=problem, fix=fix)
            for at, problem, fix in unreadable_faults(self._table, one, parent):
                yield self.fault(*path, *at, problem=problem, fix=fix)
            if isinstance(one, Reference) and one.by is not None and one.by not in parent.texts:
                problem = f"{one.parent} has no text column {one.by}"
                otherwise = f"Add it to the columns of {one.parent}, copied or renamed, with type text."
                fix = did_you_mean(one.by, parent.texts, otherwise=otherwise)
                yield self.fault(*path, "by", problem=problem, fix=fix)

    def rejections(self, known: Mapping[str, TableMap]) -> Iterator[Fault]:
        """Yield links whose rejections are not rows about one link each."""
        for position, links in enumerate(self._table.links):
            if links.rejected_by is None:
                continue
            rejections = known.get(links.rejected_by)
            parents = (
                None
                if rejections is None or rejections.identified
                else [r.parent for name in rejections.key for r in rejections.required if r.column == name]
            )
            if parents != [self._table.name, links.parent]:
                problem = (
                    f"{links.rejected_by} must have a key of two required references, "
                    f"to {self._table.name} and to {links.parent}"
                )
                fix = (
                    did_you_mean(links.rejected_by, known, otherwise=f"Declare {links.rejected_by}.")
                    if rejections is None
                    else f"Change the key of {links.rejected_by}, or leave this out."
                )
                yield self.fault("links", position, "rejected_by", problem=problem, fix=fix)

    def counts(self, tables: Sequence[TableMap]) -> Iterator[Fault]:
        """Yield counts of what does not refer to this table."""
        for position, stat in enumerate(self._table.stats.columns if self._table.stats else ()):
            columns = set(_naming(tables, self._table, stat.counted))
            if not stat.by or not set(stat.by) <= columns:
                problem = (
                    f"stat {stat.column} counts {stat.counted} by {', '.join(stat.by)}, which "
                    f"refers to {self._table.name} by {sorted(columns) or 'nothing'}"
                )
                fix = (
                    f"Count by {' or '.join(sorted(columns))}."
                    if columns
                    else f"Count a table, or a link table, that refers to {self._table.name}."
                )
                yield self.fault("stats", "columns", position, "by", problem=problem, fix=fix)

    def into(self, tables: Sequence[TableMap]) -> Iterator[Fault]:
        """Yield what contradicts `into`, `marked` or `stub`."""
        for path, problem, fix in (
            *into_faults(self._table, tables),
            *mark_faults(self._table, tables),
            *stub_faults(self._table, tables),
        ):
            yield self.fault(*path, problem=problem, fix=fix)

    def _key(self) -> Iterator[Fault]:
        table = self._table
        if not table.key or len(set(table.key)) < len(table.key):
            named = ", ".join(table.key) or "none"
            yield self.fault(
                "key",
                problem=f"a key has one column or several different ones, not {named}",
                fix="Name each column of the key once.",
            )
            return
        for path, problem, fix in (
            *identity_faults(table),
            *parameter_faults(table),
            *column_faults(table),
            *counter_faults(table),
        ):
            yield self.fault(*path, problem=problem, fix=fix)
        if not table.identified:
            for what in ("links", "vector", "stats"):
                if getattr(table, what):
                    yield self._needs_an_id(what)
            for position, reference in enumerate(table.references):
                if not reference.required:
                    yield self._needs_an_id("references", position)

    def _needs_an_id(self, *path: str | int) -> Fault:
        return self.fault(
            *path,
            problem="links, vectors, stats and optional references need a key that is no reference",
            fix="Give the table a key column of its own, or leave this out.",
        )

    def _references(self) -> Iterator[Fault]:
        table = self._table
        for position, reference in enumerate(table.references):
            at = ("references", position)
            if reference.by and (reference.column in table.key or not reference.required):
                yield self.fault(
                    *at,
                    "by",
                    problem=f"{reference.column} can name a parent by value only if required and no key",
                    fix="Make it required, and choose another key; or refer by the parent's key.",
                )
            if reference.required and reference.parent == table.name:
                yield self.fault(
                    *at,
                    problem="a reference to the table itself cannot be required",
                    fix="Write `required: false`.",
                )
            if not reference.required and (
                reference.column in table.key or reference.target_column in table.expressions
            ):
                yield self.fault(
                    *at,
                    problem="an optional reference can be neither a key nor an expression",
                    fix="Make it required, or give the expression a column of its own.",
                )
        for path, problem, fix in link_faults(table):
            yield self.fault(*path, problem=problem, fix=fix)

    def _names(self) -> Iterator[Fault]:
        table = self._table
        copied_parts = set(table.own_parts) & table.copied.keys()
        ids = [name for name in table.made_of_key if name not in copied_parts]
        columns = [(c.name, ("columns", n, "name")) for n, c in enumerate(table.columns)]
        references = [(r.column, ("references", n, "column")) for n, r in enumerate(table.references)]
        targets = [
            (r.target_column, ("references", n, "target" if r.target else "column"))
            for n, r in enumerate(table.references)
            if r.fills
        ]
        # A column that names a parent by value may be copied as well.
        by_value = {reference.column for reference in table.references if reference.by}
        copied = table.copied.keys() - by_value
        arrays = [(links.source, ("links", n, "source")) for n, links in enumerate(table.links)]
        staged: dict[str, Path] = {}
        for name, path in [
            *((name, ("key",)) for name in table.key),
            *references,
            *source_paths(table),
            *arrays,
        ]:
            staged.setdefault(name, path)
        ids_of_parents = [(f"ref_{name}", path) for name, path in references]
        yield from self._twice("staged columns", [*staged.items(), *ids_of_parents])
        for name, path in references:
            if name in copied:
                yield self.fault(
                    *path,
                    problem=f"{name} cannot be a column and a reference",
                    fix=f"Leave {name} out of the columns.",
                )
        elsewhere = {*table.key, *copied, *(name for name, _ in references)}
        for name, path in arrays:
            if name in elsewhere:
                yield self.fault(
                    *path,
                    problem=f"{name} cannot be links and something else",
                    fix=f"Use {name} for the links alone.",
                )
        yield from self._twice("target columns", [*((name, ("key",)) for name in ids), *columns, *targets])
        numbers: list[tuple[str, Path]] = []
        if table.stats is not None:
            if table.stats.owner is not None:
                numbers.append((table.stats.owner, ("stats", "owner")))
            for position, stat in enumerate(table.stats.columns):
                numbers.append((stat.column, ("stats", "columns", position, "column")))
        yield from self._twice("numbers", numbers)
        named = {**dict(reversed(targets)), **{name: ("expressions", name) for name in table.expressions}}
        named |= {
            name: ("vector", "payload", name) for name in (table.vector.payload if table.vector else ())
        }
        named |= {**dict(reversed(numbers)), **staged}
        for name in sorted(name for name in named if name.startswith(RESERVED)):
            yield self.fault(
                *named[name],
                problem=f"{name} begins with {RESERVED} like the engine's own columns",
                fix="Use another name.",
            )

    def _twice(self, what: str, names: list[tuple[str, Path]]) -> Iterator[Fault]:
        seen: set[str] = set()
        for name, path in names:
            if name in seen:
                yield self.fault(
                    *path,
                    problem=f"{name} would be two {what} of one name",
                    fix="Use separate names, or leave one out.",
                )
            seen.add(name)

    def _ignored(self) -> Iterator[Fault]:
        """Yield columns that are left alone and read all the same."""
        table = self._table
        read = {
            *table.key,
            *(column for reference in table.references for column in reference.sources),
            *(column.name for column in (*table.columns, *table.source_only)),
            *(links.source for links in table.links),
        }
        for position, name in enumerate(table.ignored):
            if name in read:
                yield self.fault(
                    *("ignored", position),
                    problem=f"{name} cannot be ignored and read",
                    fix=f"Leave {name} out of one of them.",
                )

    def _expressions(self) -> Iterator[Fault]:
        """Yield expressions on a column that the engine derives, and finds rows by."""
        table = self._table
        derived = {*table.target_key, *table.made_of_key}
        for name in sorted(derived & table.expressions.keys()):
            yield self.fault(
                *("expressions", name),
                problem=f"{name} comes from the key, by which deletes and children find the row",
                fix="Use the expression for a different column.",
            )
        for reference in table.required:
            expression = table.expressions.get(reference.target_column)
            if expression is None:
                continue
            named = [other for other in table.references if _names(expression, other)]
            if (
                reference.by is not None
                or not named
                or {(r.parent, r.by, r.required) for r in named} != {(reference.parent, None, True)}
            ):
                yield self.fault(
                    *("expressions", reference.target_column),
                    problem=f"{reference.target_column} refers to {reference.parent}; an expression "
                    "on it can only choose among required references to that table by key",
                    fix="Name them as s.ref_<column>, or use the expression for a different column.",
                )

    def _vector(self) -> Iterator[Fault]:
        vector = self._table.vector
        if vector is None:
            return
        for position, name in enumerate(vector.indexed):
            if name not in vector.payload:
                yield self.fault(
                    *("vector", "indexed", position),
                    problem=f"'{name}' is indexed, but no field of the payload",
                    fix=did_you_mean(name, vector.payload, otherwise="Add it to the payload."),
                )


def _refers(known: Mapping[str, TableMap], child: str, parent: str) -> bool:
    """Return whether `child` refers to `parent`, by way of others too."""
    met: set[str] = set()
    waiting = [child]
    while waiting:
        name = waiting.pop()
        if name == parent:
            return True
        if name in known and name not in met:
            met.add(name)
            waiting += known[name].parents
    return False


def _names(expression: str, reference: Reference) -> bool:
    return re.search(rf"\bref_{re.escape(reference.column)}(?!\w)", expression) is not None


def _naming(tables: Sequence[TableMap], table: TableMap, counted: str) -> Iterator[str]:
    """Yield the columns of a target or link table that hold ids of `table`."""
    for other in tables:
        if other.name == counted:
            yield from (r.target_column for r in other.filled if r.parent == table.name)
        for links in other.links:
            if links.table == counted and other.name == table.name:
                yield links.owner
            if links.table == counted and links.parent == table.name:
                yield links.member
