"""Stubs: rows that are made while what a reference names is missing, and that it takes over when it comes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from syncline.engine.key_forms import read
from syncline.engine.render.fragments import column, commas, merged_values, reference_id, row_id
from syncline.engine.render.identity import Identity, key_hash, row_hash
from syncline.engine.render.kept import stubbing
from syncline.engine.render.merge import Ranged, ranged
from syncline.engine.render.points import queue
from syncline.engine.render.stats import counting_columns, first_counts, new_lines, stubs_noted, touched
from syncline.engine.table_map import Reference, SchemaMap, TableMap
from syncline.engine.template import sql
from syncline.maps.into import written_beside
from syncline.maps.key_types import Kind
from syncline.sql import literal, quoted

__all__ = ["Making", "Stubs"]


@dataclass(frozen=True, kw_only=True)
class Making:
    """How the stubs of one reference are made."""

    make: Ranged
    name: str | None
    """The statement that names them in the stage; None where the stage does."""


class Stubs:
    """The statements of one table: stubs that its rows need, and stubs that its rows take over."""

    def __init__(self, schema_map: SchemaMap, table: TableMap, stage: str) -> None:
        self._map, self._table, self._stage = schema_map, table, stage
        self._own = Identity(schema_map, table)
        self.making = [
            self._making(reference, reference.stub)
            for reference in table.references
            if reference.stub is not None
        ]
        named = [(child, reference) for child, reference in stubbing(schema_map, table) if reference.by]
        by = named[0][1].by if named else None
        self.oust = None if by is None else self._oust(by)
        """The statement that notes stubs for removal whose row is in the target under its own id."""
        self.adopt = None if by is None else self._adopt(by, named)
        """The statement by which new rows get the place of their stubs."""

    def _making(self, reference: Reference, says: Mapping[str, str]) -> Making:
        parent = self._own.of(reference)
        value = f"s.{quoted(reference.column)}"
        if reference.by is None:
            parts = parent.split(parent.named_by(self._table, reference, value))
            id_ = f"s.{reference_id(reference.column)}"
        else:
            key = f"'stub:' || {value}"
            if parent.table.key_types[0].kind is Kind.UUID:
                key = f"{key_hash(key)}::text"
            parts = [f"({key})"]
            id_ = parent.made(parts)
        is_parent = parent.is_row_of("p", parts, id_)
        if reference.by is not None:
            found = f"s.{reference_id(reference.column)}"
            is_parent = f"p.{parent.column} = coalesce({found}, {id_})"
            if parent.shared:
                is_parent += f" AND ({found} IS NOT NULL OR {parent.is_row_of('p', parts, id_)})"
        fragments = {
            "reference": quoted(reference.column),
            "id": id_,
            "row": row_hash(parts),
            "key": commas(parts),
            "is_parent": is_parent,
            **self._columns(reference, says, parent.table, value),
        }
        name = None
        if reference.by is not None:
            name = sql(
                "name_stubs",
                stage=self._stage,
                reference=quoted(reference.column),
                reference_id=reference_id(reference.column),
                id=id_,
            )

        def rendered(stage: str) -> str:
            return sql("make_stubs", stage=stage, **fragments)

        return Making(make=ranged(self._stage, rendered, rendered), name=name)

    def _columns(
        self, reference: Reference, says: Mapping[str, str], parent: TableMap, value: str
    ) -> dict[str, str]:
        types = {each.name: each.type for each in parent.columns}
        proposed = {name: f"({expression})::{types[name]}" for name, expression in says.items()}
        if reference.by is not None:
            proposed[reference.by] = value
        if parent.stamps:
            proposed |= {"sync_version": "s.sync_xid", "sync_run": "(SELECT fence FROM sync_state)"}
        written = {parent.id_column: "m.sync_stub_id"}
        if parent.key_column is not None:
            written[parent.key_column] = read(parent.key_types[0], "m.sync_stub_key[1]")
        for name, type_ in parent.own_parts.items():
            written[name] = read(type_, f"m.sync_stub_key[{parent.key.index(name) + 1}]")
        written |= {name: f"m.{quoted(name)}" for name in proposed}
        written |= first_counts(parent) | {
            name: none for name, none in written_beside(self._map.tables, parent).items() if name not in says
        }
        return {
            "parent": quoted(parent.name),
            "parent_name": literal(parent.name),
            "parent_id": column(parent.id_column),
            "proposed": commas([f"{made} AS {quoted(name)}" for name, made in proposed.items()] or ["NULL"]),
            "columns": commas([quoted(name) for name in written]),
            "values": commas(list(written.values())),
            "noted": stubs_noted(self._map, parent),
            "lines": new_lines(self._map, parent),
        }

    def _found(self, by: str, stage: str) -> dict[str, str]:
        table = self._table
        own = {
            "table": literal(table.name),
            "target": quoted(table.name),
            "row_id": row_id(table),
        }
        found = sql(
            "stub_of_row",
            stage=stage,
            by=quoted(by),
            value=f"({merged_values(table)[by]})",
            id=self._own.column,
            id_type=table.id_type.native,
            row_id=own["row_id"],
            target=own["target"],
        ).strip()
        return {"found": found, "id": self._own.column, "staged": self._own.staged, **own}

    def _oust(self, by: str) -> str:
        found = self._found(by, self._stage)
        found.pop("row_id")
        return sql("oust_stubs", **found)

    def _adopt(self, by: str, named: list[tuple[TableMap, Reference]]) -> Ranged:
        table = self._table
        moved = "".join(self._moves(named))
        if table.stats is not None and table.stats.table is not None:
            place, owner = table.stats_place
            moved += sql("move_stats", stats=quoted(place), owner=quoted(owner))
        key = commas([f"s.{quoted(name)}" for name in table.key])

        def rendered(stage: str) -> str:
            return sql("adopt_stubs", key=key, moved=moved, **self._found(by, stage))

        return ranged(self._stage, rendered, rendered)

    def _moves(self, named: list[tuple[TableMap, Reference]]) -> Iterator[str]:
        children = list(dict.fromkeys(child.name for child, _ in named))
        for number, name in enumerate(children):
            child = self._map[name]
            columns = [quoted(each.target_column) for one, each in named if one.name == name]
            counted = counting_columns(self._map, child.target)
            returned = dict.fromkeys([*child.target_key, *counted])
            moved = f"moved{number} c"
            yield sql(
                "move_references",
                number=str(number),
                child=quoted(child.target),
                changes=commas(
                    [
                        f"{each} = coalesce((SELECT f.id FROM found f WHERE f.old_id = c.{each}), c.{each})"
                        for each in columns
                    ]
                ),
                concerned=" OR ".join(f"c.{each} IN (SELECT f.old_id FROM found f)" for each in columns),
                returned=commas([f"c.{quoted(each)}" for each in returned]),
                queue=queue(child, f"moved{number}", number=str(number)),
                touched=touched(self._map, child.target, [(moved, counted)], name=f"touched{number}"),
            )
