"""Statements: the `.sql` templates of the engine, filled in for a table map.

Table maps are code, so their names and expressions are trusted; names are quoted all the same, always.
Schemas never appear: each connection's `search_path` is the graph's schema, so one rendered statement serves
every graph.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from syncline.engine.tablemap import Links, Reference, SchemaMap, TableMap
from syncline.sqltext import literal, quoted, templates_of

_EQUAL_IS_SAME = {
    *("boolean", "smallint", "integer", "bigint", "real", "double precision", "text", "uuid", "bytea"),
    *("date", "time", "timestamp", "timestamptz", "jsonb"),
}
"""Types whose `=` can say whether a value changed: others call '1 day' and '24 hours' equal, or have none."""


_template = templates_of("syncline.engine")


def sql(name: str, /, **fragments: str) -> str:
    """Return template `name` with its fragments filled in; KeyError if one is missing."""
    return _template(name).substitute(fragments)


def _commas(parts: Sequence[str]) -> str:
    return ", ".join(parts)


def reference_id(column: str) -> str:
    """Return the stage column that holds the UUID of a reference."""
    return quoted(f"ref_{column}")


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """Where capture of a table stands. Without a key: everything of a transaction before `xid` is done."""

    xid: int = 0
    key: tuple[str, ...] | None = None

    def parameters(self) -> tuple[str, ...]:
        """Return the statement parameters that `TableStatements.after_cursor` refers to."""
        return (str(self.xid), *(self.key or ()))


class TableStatements:
    """Everything the engine says about one table, rendered once."""

    def __init__(self, schema_map: SchemaMap, table: TableMap) -> None:
        self.table = table
        self.stage_name = _stage_name(table)
        self.stage = f"pg_temp.{quoted(self.stage_name)}"
        self.key_order = _commas([f'{quoted(column)} COLLATE "C"' for column in table.key])
        names = _stage_columns(table)
        self.stage_columns = ["sync_xid", "sync_present", *names]
        self._selection = _commas(
            ["sync_xid::text::bigint AS sync_xid", f"({table.present}) AS sync_present", *map(quoted, names)]
        )
        self.create_stage = sql("stage_create", stage=self.stage, definitions=_stage_definitions(table))
        self.analyze_stage = f"ANALYZE {self.stage} ({_commas(_generated_columns(table))})"
        key = _commas([f"s.{quoted(column)}" for column in table.key])
        descending = _commas([f's.{quoted(column)} COLLATE "C" DESC' for column in table.key])
        self.last_staged = sql("stage_last", stage=self.stage, key=key, key_descending=descending)
        self.stage_released = sql(
            "stage_released",
            stage=self.stage,
            table=literal(table.name),
            columns=_commas([quoted(name) for name in self.stage_columns]),
            image_columns=_commas([_from_image(name, _types(table)) for name in self.stage_columns]),
        )
        self.park_rows = [
            sql(
                "park_rows",
                stage=self.stage,
                table=literal(table.name),
                key=key,
                image=_image(table),
                **self._reference(reference),
            )
            for reference in table.required
        ]
        self.unpark_rows = sql("unpark_rows", stage=self.stage, table=literal(table.name), key=key)
        self.unpark_references = sql("unpark_references", stage=self.stage, table=literal(table.name))
        self.park_references = [
            sql(
                "park_reference",
                stage=self.stage,
                table=literal(table.name),
                name=literal(reference.column),
                beside=self._beside(reference),
                **self._reference(reference),
            )
            for reference in table.optional
        ]
        self.merge = self._merge()
        self.merge_links = [
            sql(
                "merge_links",
                stage=self.stage,
                table=literal(table.name),
                source=quoted(links.source),
                **_links(links),
            )
            for links in table.links
        ]
        self.release_rows = sql("release_rows", stage=self.stage, table=literal(table.name))
        self.release_links: list[tuple[str, str]] = []
        self.release_references: list[tuple[str, str]] = []
        for child in schema_map:
            self._release(child)

    def after_cursor(self, cursor: Cursor, first_parameter: int) -> str:
        """Return the condition for rows behind the cursor, reading parameters from `first_parameter` on."""
        xid = f"${first_parameter}::text::xid8"
        if cursor.key is None:
            return f"sync_xid >= {xid}"
        values = [f"${first_parameter + 1 + index}::text" for index in range(len(self.table.key))]
        return f"(sync_xid, {self.key_order}) > ({xid}, {_commas(values)})"

    def probe(self, schema: str, cursor: Cursor, first_parameter: int) -> str:
        """Return the expression that is true when rows are waiting behind the cursor."""
        return sql(
            "probe",
            source=f"{quoted(schema)}.{quoted(self.table.source)}",
            after_cursor=self.after_cursor(cursor, first_parameter),
        )

    def ahead(self, schema: str) -> str:
        """Return the expression that is true when rows have stamps that this cluster has not given yet."""
        return sql("ahead", source=f"{quoted(schema)}.{quoted(self.table.source)}")

    def capture(self, cursor: Cursor, *, limit: int) -> str:
        """Return the COPY source query; parameters: the cursor's, then the horizon as text."""
        horizon = 1 + len(cursor.parameters())
        return sql(
            "capture",
            selection=self._selection,
            source=quoted(self.table.source),
            after_cursor=self.after_cursor(cursor, 1),
            horizon=f"${horizon}::text::xid8",
            key_order=self.key_order,
            limit=str(limit),
        )

    def _reference(self, reference: Reference) -> dict[str, str]:
        return {
            "reference": quoted(reference.column),
            "reference_id": reference_id(reference.column),
            "parent": quoted(reference.parent),
            "parent_name": literal(reference.parent),
        }

    def _beside(self, reference: Reference) -> str:
        """Return the condition that the parent is not in this very batch either."""
        if reference.parent != self.table.name:
            return ""
        return sql("beside", stage=self.stage, reference_id=reference_id(reference.column))

    def _merge(self) -> str:
        table = self.table
        values = {"id": "s.sync_row_id", "key": f"s.{quoted(table.key[0])}"} if table.identified else {}
        values |= {reference.column: f"s.{reference_id(reference.column)}" for reference in table.references}
        values |= {column.name: f"s.{quoted(column.name)}" for column in table.columns}
        values |= table.expressions
        target_key = ["id"] if table.identified else list(table.key)
        compared = [name for name in values if name not in target_key]
        return sql(
            "merge",
            target=quoted(table.name),
            stage=self.stage,
            columns=_commas([*map(quoted, values), "sync_version"]),
            values=_commas([*values.values(), "s.sync_xid"]),
            target_key=_commas([quoted(name) for name in target_key]),
            assignments=_commas(
                [f"{quoted(name)} = excluded.{quoted(name)}" for name in [*compared, "sync_version"]]
            ),
            differs=_differs(table, compared),
            returned="t.id" if table.identified else "1",
            queue=_queue(table),
        )

    def _release(self, child: TableMap) -> None:
        for links in child.links:
            if links.parent == self.table.name:
                statement = sql(
                    "release_links",
                    stage=self.stage,
                    child=quoted(child.name),
                    child_name=literal(child.name),
                    **_links(links),
                )
                self.release_links.append((child.name, statement))
        for reference in child.optional:
            if reference.parent == self.table.name:
                statement = sql(
                    "release_reference",
                    stage=self.stage,
                    child=quoted(child.name),
                    child_name=literal(child.name),
                    reference=quoted(reference.column),
                    reference_name=literal(reference.column),
                    queue=_queue(child),
                )
                self.release_references.append((child.name, statement))


def _differs(table: TableMap, compared: Sequence[str]) -> str:
    """Return the condition that the proposed row is another than the current one.

    Where `=` does not tell, the bytes do: it costs more, since both rows are formed for it.
    """
    types = {column.name: column.type for column in table.columns}
    types |= {"key": "text"} | {reference.column: "uuid" for reference in table.references}
    by_value = [quoted(name) for name in compared if types.get(name) in _EQUAL_IS_SAME]
    by_image = [quoted(name) for name in compared if types.get(name) not in _EQUAL_IS_SAME]
    conditions = [
        f"{row}({_commas([f't.{name}' for name in names])}){record} {differs}"
        f" {row}({_commas([f'excluded.{name}' for name in names])}){record}"
        for names, row, record, differs in (
            (by_value, "", "", "IS DISTINCT FROM"),
            (by_image, "ROW", "::record", "OPERATOR(pg_catalog.*<>)"),
        )
        if names
    ]
    return " OR ".join(conditions) or "false"


def _types(table: TableMap) -> dict[str, str]:
    types = {column.name: column.type for column in (*table.columns, *table.source_only)}
    return types | {links.source: "text[]" for links in table.links}


def _image(table: TableMap) -> str:
    """Return the staged row `s` as jsonb. A JSON column is left out if it is NULL: null is JSON's own."""
    types = _types(table)
    nullable = [name for name in _stage_columns(table) if types.get(name) in ("json", "jsonb")]
    absent = [f"CASE WHEN s.{quoted(name)} IS NULL THEN '{literal(name)}' END" for name in nullable]
    return f"to_jsonb(s.*) - ARRAY[{_commas(absent)}]::text[]" if absent else "to_jsonb(s.*)"


def _from_image(name: str, types: dict[str, str]) -> str:
    if types.get(name) in ("json", "jsonb"):
        return f"(p.image -> '{literal(name)}')::{types[name]}"
    return f"r.{quoted(name)}"


def _links(links: Links) -> dict[str, str]:
    return {
        "links": quoted(links.table),
        "links_name": literal(links.table),
        "owner": quoted(links.owner),
        "member": quoted(links.member),
        "parent": quoted(links.parent),
        "parent_name": literal(links.parent),
    }


def _queue(table: TableMap) -> str:
    return sql("queue", collection=literal(table.vector.collection)) if table.vector else ""


def _stage_columns(table: TableMap) -> list[str]:
    """Return the source columns that travel, each once, keys first."""
    names = [
        *table.key,
        *(reference.column for reference in table.references),
        *(column.name for column in (*table.columns, *table.source_only)),
        *(links.source for links in table.links),
    ]
    return list(dict.fromkeys(names))


def _generated_columns(table: TableMap) -> list[str]:
    own = ["sync_row_id"] if table.identified else []
    return own + [reference_id(reference.column) for reference in table.references]


def _stage_definitions(table: TableMap) -> str:
    types = _types(table)
    columns = ["sync_xid bigint NOT NULL", "sync_present boolean NOT NULL"]
    columns += [f"{quoted(name)} {types.get(name, 'text')}" for name in _stage_columns(table)]
    generated = [(reference_id(reference.column), reference.column) for reference in table.references]
    if table.identified:
        generated.insert(0, ("sync_row_id", table.key[0]))
    columns += [
        f"{name} uuid GENERATED ALWAYS AS (syncline.key_uuid({quoted(source)})) STORED"
        for name, source in generated
    ]
    return _commas(columns)


def _stage_name(table: TableMap) -> str:
    # A pooled connection keeps its stages, so another layout of the same table needs another name.
    # The table's name comes last, because Postgres cuts off what is too long.
    layout = sha256(f"{table.name} {_stage_definitions(table)}".encode()).hexdigest()[:12]
    return f"stage_{layout}_{table.name}"


class SchemaStatements:
    """Everything the engine says about one graph's tables."""

    def __init__(self, schema_map: SchemaMap) -> None:
        self.schema_map = schema_map
        self.tables = {table.name: TableStatements(schema_map, table) for table in schema_map}

    def pending(self, schema: str, cursors: dict[str, Cursor]) -> tuple[str, list[str]]:
        """Return the query that asks which tables have rows behind their cursors, and its parameters.

        It names the schema itself: an idle cycle asks this once and sets no search_path for it.
        """
        probes: list[str] = []
        parameters: list[str] = []
        for name, table in self.tables.items():
            cursor = cursors[name]
            probes.append(table.probe(schema, cursor, len(parameters) + 1))
            parameters.extend(cursor.parameters())
        ahead = ",\n".join(table.ahead(schema) for table in self.tables.values())
        return sql("pending", probes=",\n".join(probes), ahead=ahead), parameters
