"""Identity: how a row's key, its id in the bookkeeping tables and its id in the target make each other.

A row has up to three names:

- its **key**, as text parts in their form (syncline.maps.key_types);
- its **row id**, a uuid: the hash of the key, whatever the table map. Bookkeeping tables know rows by it;
- its **target id**, the target's primary key, made from the key by the map's rule. For rule `hash` it is the
  row id. Of a table whose rows are `listed`, table `sync_row` has key and target id of each row id: rules
  `column` and `assigned` find the id there, and rows of others that stand in the target are in no list.

Every expression here is for the graph-db. One module because the three names are made of each other.
"""

from collections.abc import Sequence
from typing import Final

from syncline.engine.key_forms import form, read, safe, spelled
from syncline.engine.render.fragments import column, commas
from syncline.engine.render.named import named_key
from syncline.engine.table_map import Links, Reference, SchemaMap, TableMap
from syncline.engine.template import sql
from syncline.maps.ids import IdRule
from syncline.maps.key_types import KeyType, Kind
from syncline.sql import literal, quoted

__all__ = ["Identity", "is_listed", "key_hash", "listed_as", "ours", "row_hash"]

_LIST: Final = "sync_row"


def key_hash(text: str) -> str:
    """Return the expression for the row id of a key of one part."""
    return f"syncline.key_uuid({text})"


def row_hash(parts: Sequence[str]) -> str:
    """Return the expression for the row id of a key; it is immutable and inlined."""
    if len(parts) == 1:
        return key_hash(parts[0])
    return key_hash(" || ".join(f"{key_hash(part)}::text" for part in parts))


def ours(table: TableMap) -> str:
    """Return a target without rows of others, as what stands before an alias in FROM."""
    if not table.listed:
        return quoted(table.target)
    return sql("ours", target=quoted(table.name), is_ours=is_listed(table, "t")).strip()


def is_listed(table: TableMap, row: str) -> str:
    """Return the condition that a row of a `listed` table is in the list."""
    entry = _entry(table, f"{row}.{column(table.id_column)}", by_row_id=table.hashed)
    return sql("is_listed", list=_LIST, **entry).strip()


class Identity:
    """The names of one table's rows."""

    def __init__(self, schema_map: SchemaMap, table: TableMap, *, schema: str | None = None) -> None:
        """With `schema`, other rows are looked up there, not on the search_path."""
        self._map, self.table, self._schema = schema_map, table, schema
        self.hashed = table.identified and table.hashed
        """Whether the target id is the row id."""
        self.only_here = table.identified and (
            table.looked_up or table.id_rule in (IdRule.UUID5, IdRule.EXPRESSION)
        )
        """Whether the graph-db alone can make the target id."""
        self.column = column(table.id_column)
        """The id column of an `identified` table, quoted where needed."""
        self.staged = "sync_row_id" if self.hashed else "sync_id"
        """The stage column with the target id of an `identified` table."""

    def derived(self, parts: Sequence[str], *, safely: bool = False) -> str:
        """Return the target id of an `identified` table from its key's parts.

        `safely`: NULL, not an error, for texts that are no values of the key's types.
        """
        if self.table.looked_up:
            return self.listed_id(row_hash(parts))
        return self.made(parts, safely=safely)

    def made(self, parts: Sequence[str], *, safely: bool = False) -> str:
        """Return the id that the rule makes of a key's parts, whatever the list has."""
        rule = self.table.id_rule
        if rule is IdRule.HASH:
            return row_hash(parts)
        if rule is IdRule.UUID5:
            return f"syncline.uuid5('{literal(self.table.id_namespace)}'::uuid, {parts[0]})"
        typed = safe if safely else read
        values = [typed(type_, part) for type_, part in zip(self.table.key_types, parts, strict=True)]
        return values[0] if rule is IdRule.SAME else self.table.id_expression(values)

    def listed_id(self, row: str) -> str:
        """Return the target id that is listed for a row id; NULL if there is none."""
        return sql(
            "listed_id",
            list=self._list,
            table=literal(self.table.name),
            id=read(self.table.id_type, "sync_row.target_id"),
            row_id=row,
        ).strip()

    def listed(self, value: str, target_id: str) -> str:
        """Return what the list has of the row with this target id: `value`, over its row `sync_row`."""
        return sql("listed", value=value, **self._entry(target_id)).strip()

    def is_ours(self, row: str) -> str:
        """Return the condition that a row of a `listed` table is in the list."""
        return self._is_listed(f"{row}.{self.column}", by_row_id=self.table.hashed)

    def kept(self, row: str) -> str:
        """Return the condition that a row whose id is its row id is listed under another one."""
        listed = self._is_listed(f"{row}.{self.column}", by_row_id=False)
        return f"{listed} AND NOT {self.is_ours(row)}"

    def is_row(self, row: str) -> str:
        """Return the condition that the row `sync_row` of the list is of this target row."""
        return sql("is_row", **self._entry(f"{row}.{self.column}")).strip()

    def was_ours(self, row: str, rule: str) -> str:
        """Return the condition that a row is in the list, by an earlier map's rule with ids of this type."""
        return self._is_listed(f"{row}.{self.column}", by_row_id=rule == IdRule.HASH)

    def _is_listed(self, target_id: str, *, by_row_id: bool) -> str:
        entry = _entry(self.table, target_id, by_row_id=by_row_id)
        return sql("is_listed", list=self._list, **entry).strip()

    def only_ours(self, row: str) -> str:
        """Return it as a further condition; empty for a table whose rows are all ours."""
        return f" AND {self.is_ours(row)}" if self.table.listed else ""

    def of_ours(self, row: str) -> str:
        """Return the further condition that the row is ours into which a table map with `into` writes.

        Empty where the row is found by the list.
        """
        owner = Identity(self._map, self._map[self.table.into or self.table.name], schema=self._schema)
        return owner.only_ours(row) if owner.hashed else ""

    @property
    def ours(self) -> str:
        """The target without rows of others, as what stands before an alias in FROM."""
        return ours(self.table if self.table.into is None else self._map[self.table.into])

    def _entry(self, target_id: str) -> dict[str, str]:
        return {"list": self._list, **_entry(self.table, target_id, by_row_id=self.table.hashed)}

    @property
    def _list(self) -> str:
        return ("" if self._schema is None else f"{quoted(self._schema)}.") + _LIST

    def referred(self, type_: KeyType, text: str, *, safely: bool = False) -> str:
        """Return the key of the row that a reference names by a text in another type's form.

        `safely`: NULL, not an error, for a text that is no value of the key's type.
        """
        own = self.table.key_types[0]
        return text if self.takes(type_) else form(own, f"({(spelled if safely else read)(own, text)})")

    def named_by(self, table: TableMap, reference: Reference, text: str, *, there: bool = False) -> str:
        """Return the key of the row that another table's reference names; `there`: in the write-db."""
        if reference.columns:
            return text
        if reference.unreadable is not None:
            return named_key(reference.unreadable, self.table.key_types[0], text, there=there)
        return self.referred(table.key_texts[reference.column], text)

    def named_in(
        self, links: Links, type_: KeyType, text: str, *, safely: bool = False, there: bool = False
    ) -> str:
        """Return the key of the row that an element of an array names; `there`: in the write-db."""
        if links.unreadable is not None:
            return named_key(links.unreadable, self.table.key_types[0], text, there=there)
        return self.referred(type_, text, safely=safely)

    def split(self, named: str) -> list[str]:
        """Return the parts of a key that is one text, as references name it."""
        return self.of_one_text(self.table, named)

    @staticmethod
    def of_one_text(table: TableMap, named: str) -> list[str]:
        """Return the parts of a table's key that is one text."""
        if len(table.key) == 1:
            return [named]
        return [f"(({named})::jsonb ->> {place})" for place in range(len(table.key))]

    def named_of(self, target_id: str) -> str:
        """Return the key of the row with this target id, as one text."""
        if len(self.table.key) == 1:
            return self.key_of(target_id)
        if self.table.listed:
            return self.listed("to_jsonb(sync_row.key)::text", target_id)
        parts = commas(self.parts(_alias(target_id)))
        return f"({self._looked_up(target_id, f'jsonb_build_array({parts})::text')})"

    def is_named(self, row: str, named: str, target_id: str) -> str:
        """Return the condition that a target row has this key, of which `target_id` is made."""
        if self.table.identified:
            return self.is_row_of(row, self.split(named), target_id)
        return self._same_parts(
            [f"{row}.{quoted(name)}" for name in self.table.target_key], self.split(named)
        )

    def is_landed(self, row: str, named: str, target_id: str) -> str:
        """Return the same of a row that is ours: an id of rule `hash` tells the key, not whose row it is.

        What was parked before readers made a row under that id waits for ours, and not in vain.
        """
        return self.is_named(row, named, target_id) + (self.only_ours(row) if self.hashed else "")

    def is_row_of(self, row: str, parts: Sequence[str], target_id: str | None = None) -> str:
        """Return the condition that an `identified` target row is the one of a key, by its parts.

        `target_id`: the id that is made of them, where it is known.
        """
        return f"{row}.{self.column} = {target_id or self.derived(parts)}{self._with_key(row, parts)}"

    def _with_key(self, row: str, parts: Sequence[str]) -> str:
        """Return the further condition that a row is not another key's with the same id, nor readers'."""
        if not self.may_be_anothers:
            return ""
        own = zip(self.parts(row), parts, strict=True)
        return "".join(f' AND {part} COLLATE "C" = {wanted}' for part, wanted in own)

    def id_of(self, named: str, *, safely: bool = False) -> str:
        """Return the target id of the row with a key of one part; NULL if another's stands there."""
        made = self.derived([named], safely=safely)
        if not self.may_be_anothers:
            return made
        if self.table.listed:
            return self.listed_id(key_hash(named))
        return sql("unshared", id=made, holder=self.holder("made.id"), row_id=key_hash(named)).strip()

    def child_of_gone(self, child: TableMap, reference: Reference, row: str) -> str:
        """Return the condition that a row of a child refers to a row to remove, `g`."""
        if reference.fills:
            return self.gone_row_is(f"{row}.{quoted(reference.target_column)}")
        held = child.held(reference, self.table)
        gone = [f"g.key[{place}]" for place in range(1, len(self.table.key) + 1)]
        return self._same_parts([f"{row}.{quoted(name)}" for name in held], gone, safely=True)

    def _same_parts(self, columns: Sequence[str], parts: Sequence[str], *, safely: bool = False) -> str:
        values = [
            self.key_part(name, part, safely=safely) for name, part in zip(self.table.key, parts, strict=True)
        ]
        return " AND ".join(f"{column} = {value}" for column, value in zip(columns, values, strict=True))

    def takes(self, type_: KeyType) -> bool:
        """Whether values of a type have the form of this table's keys."""
        return type_.kind is not Kind.TEXT or self.table.key_types[0].kind is Kind.TEXT

    def parts(self, row: str) -> list[str]:
        """Return the key's parts, as text, of a target row; those of its parents' keys are looked up."""
        table = self.table
        if table.listed:
            places = range(1, len(table.key) + 1)
            return [self.listed(f"sync_row.key[{place}]", f"{row}.{self.column}") for place in places]
        if table.key_column is not None:
            return [form(table.key_types[0], f"{row}.{column(table.key_column)}")]
        if table.identified and len(table.key) == 1:
            return [form(table.key_types[0], f"{row}.{self.column}")]
        return [self._part(row, name, type_) for name, type_ in zip(table.key, table.key_types, strict=True)]

    def _part(self, row: str, name: str, type_: KeyType) -> str:
        reference = self.table.parent_part(name)
        if reference is None:
            return form(type_, f"{row}.{quoted(name)}")
        return self.of(reference).key_of(f"{row}.{quoted(reference.target_column)}")

    def of(self, reference: Reference) -> "Identity":
        """Return the identity of a reference's parent."""
        return Identity(self._map, self._map[reference.parent], schema=self._schema)

    def under_listed(self, name: str) -> bool:
        """Return whether a part of the key is a reference to a table whose rows are listed."""
        reference = self.table.parent_part(name)
        return reference is not None and self.of(reference).table.listed

    def row_id(self, row: str) -> str:
        """Return the row id of a target row."""
        if self.table.listed and not self.hashed:
            return self.listed("sync_row.row_id", f"{row}.{self.column}")
        return f"{row}.{self.column}" if self.hashed else row_hash(self.parts(row))

    def key_of(self, target_id: str) -> str:
        """Return the key of the row with this target id; of a table whose key has one part."""
        table = self.table
        if table.listed:
            return self.listed("sync_row.key[1]", target_id)
        if table.identified and table.key_column is None and len(table.key) == 1:
            return form(table.key_types[0], target_id)
        return f"({self._looked_up(target_id, self.parts(_alias(target_id))[0])})"

    def parts_of(self, target_id: str) -> str:
        """Return the key's parts, as an array, of the row with this target id."""
        if self.table.listed:
            return self.listed("sync_row.key", target_id)
        if len(self.table.key) == 1:
            return f"ARRAY[{self.key_of(target_id)}]"
        return f"({self._looked_up(target_id, f'ARRAY[{commas(self.parts(_alias(target_id)))}]')})"

    def _looked_up(self, target_id: str, value: str) -> str:
        return sql(
            "of_id",
            value=value,
            target=("" if self._schema is None else f"{quoted(self._schema)}.") + quoted(self.table.name),
            row=_alias(target_id),
            id=self.column,
            target_id=target_id,
        ).strip()

    def row_of(self, target_id: str) -> str:
        """Return the row id of the row with this target id; of an id without a row, one that no row has."""
        if self.hashed:
            return target_id
        if self.table.listed:
            return f"coalesce({self.listed('sync_row.row_id', target_id)}, {key_hash(f'{target_id}::text')})"
        if len(self.table.key) == 1:
            return key_hash(f"coalesce({self.key_of(target_id)}, '? ' || {target_id}::text)")
        return f"coalesce(syncline.row_uuid({self.parts_of(target_id)}), {key_hash(f'{target_id}::text')})"

    def gone_id(self, gone: str) -> str:
        """Return the target id of a row to remove; NULL if its key is of another type."""
        if self.hashed:
            return f"{gone}.row_id"
        return self.derived([f"{gone}.key[{n}]" for n in range(1, len(self.table.key) + 1)], safely=True)

    def gone_is(self, target_id: str, *, gone: str = "g") -> str:
        """Return the condition that a row to remove has this target id."""
        return f"{self._removed_id(gone)} = {target_id}"

    def gone_rows(self) -> str:
        """Return the rows to remove, as what stands before an alias in FROM.

        Each has its target id as `sync_target_id`, made once: a join would make it for each comparison.
        """
        if not self.table.identified or self.hashed:
            return "pg_temp.sync_leaving"
        return sql("gone_rows", id=self._removed_id("g"), table=literal(self.table.name)).strip()

    def gone_row_is(self, target_id: str, gone: str = "g") -> str:
        """Return the condition that a row of `gone_rows` has this target id."""
        return f"{gone}.{'row_id' if self.hashed else 'sync_target_id'} = {target_id}"

    def _removed_id(self, gone: str) -> str:
        """Return the target id under which a row to remove stands; NULL if it does not."""
        rule = self.table.id_rule
        if self.table.looked_up or (self.table.listed and rule in (IdRule.UUID5, IdRule.EXPRESSION)):
            # Its row id is there already, and need not be made of its key; what is not listed is not ours.
            return self._listed_gone(gone)
        if self.shared:
            row = f"{gone}.row_id"
            return sql("unshared", id=self.gone_id(gone), holder=self.holder("made.id"), row_id=row).strip()
        return self.gone_id(gone)

    def _listed_gone(self, gone: str) -> str:
        id_ = read(self.table.id_type, f"{gone}.target_id")
        return sql("listed_gone", id=id_, gone=gone, listed=self.listed_id(f"{gone}.row_id")).strip()

    @property
    def shared(self) -> bool:
        """Whether the rule may make one id of two keys: the row that stands under it is the first one's."""
        return self.table.identified and self.table.id_rule is IdRule.EXPRESSION

    @property
    def may_be_anothers(self) -> bool:
        """Whether what stands under the id that is made of a key may be no row of that key.

        It may be readers' own, where rows are listed. Of rule `hash` the id itself says which key it is.
        """
        made = self.only_here and not self.table.looked_up
        return made and (self.shared or self.table.listed)

    def holder(self, target_id: str) -> str:
        """Return the query for the row id, `row_id`, of the row that stands under a target id."""
        if self.table.listed:
            return sql("listed_holder", **self._entry(target_id)).strip()
        return sql(
            "id_holder",
            row_id=self.row_id("h"),
            target=quoted(self.table.name),
            id=self.column,
            target_id=target_id,
        ).strip()

    def target_types(self) -> list[KeyType]:
        """Return the types of the target's primary key."""
        if self.table.identified:
            return [self.table.id_type]
        parts = ((self.table.parent_part(name), name) for name in self.table.key)
        return [
            self.table.type_of(name) if reference is None else self.of(reference).table.id_type
            for reference, name in parts
        ]

    def key_part(self, name: str, text: str, *, safely: bool = True) -> str:
        """Return the value in the target of a part of a key of several columns, from its text."""
        reference = self.table.parent_part(name)
        if reference is None:
            return (safe if safely else read)(self.table.type_of(name), text)
        return self.of(reference).id_of(text, safely=safely)

    def is_gone(self, row: str) -> str:
        """Return the condition that a target row is one to remove, `g`."""
        own = f"{row}.{self.column}"
        return f"{own} = g.row_id" if self.hashed else self.gone_row_is(own)

    @property
    def can_be_strange(self) -> bool:
        """Whether a target row may have another id than its key makes: not where the id is the key itself."""
        return self.table.identified and (self.table.key_column is not None or len(self.table.key) > 1)

    def is_strange(self, row: str) -> str:
        """Return the condition that an `identified` target row has another id than its key makes."""
        strange = f"{row}.{self.column} IS DISTINCT FROM {self.derived(self.parts(row))}"
        return " AND ".join([strange, *self.of_listed(row)])

    def of_listed(self, row: str) -> list[str]:
        """Return the conditions that the rows which a row's key names are listed, where they have to be.

        A row whose key names a row of others is theirs too, and has no key here.
        """
        if self.table.listed:
            return []
        named = [reference for name in self.table.key if (reference := self.table.parent_part(name))]
        return [
            f"{self.of(reference).key_of(f'{row}.{quoted(reference.target_column)}')} IS NOT NULL"
            for reference in named
            if reference.parent != self.table.name and self.of(reference).table.listed
        ]

    def joined(self, row: str, prefix: str, first: int) -> list[tuple[str, str]] | None:
        """Return (join of a parent, part of the key) for each part of the key of a target row.

        None unless every part is a reference to a table that has its key in a column.
        """
        found: list[tuple[str, str]] = []
        for place, (name, target) in enumerate(
            zip(self.table.key, self.table.target_key, strict=False), first
        ):
            reference = self.table.parent_part(name)
            if self.table.identified or reference is None:
                return None
            parent = self.of(reference)
            if parent.table.key_column is None:
                return None
            alias = f"{prefix}{place}"
            join = f"{quoted(parent.table.name)} {alias} ON {alias}.{parent.column} = {row}.{quoted(target)}"
            found.append((join, parent.parts(alias)[0]))
        return found

    def parked(self, member: str = "r.waits_for", key: str = "r.waits_for_key") -> str:
        """Return the target id of the row that a parked entry waits for."""
        return member if self.hashed else self.derived(self.split(key))

    def parked_owner(self, entry: str = "r") -> str:
        """Return the target id of the row that a parked link or reference belongs to."""
        if self.hashed:
            return f"{entry}.owner"
        return self.derived([f"{entry}.owner_key[{place}]" for place in range(1, len(self.table.key) + 1)])


def listed_as(table: TableMap, target_id: str) -> str:
    """Return a target id as the list has it; it is not of rule `hash`, whose ids are row ids."""
    return f'({form(table.id_type, target_id)}) COLLATE "C"'


def _entry(table: TableMap, target_id: str, *, by_row_id: bool) -> dict[str, str]:
    """Return the fragments by which the list is asked for a target id, as a row id or as what it is."""
    name = literal(table.name)
    if by_row_id:
        return {"of_table": sql("of_table_row", table=name).strip(), "by": "row_id", "id": target_id}
    of_table = sql("of_table_target", table=name).strip()
    return {"of_table": of_table, "by": "target_id", "id": listed_as(table, target_id)}


def _alias(expression: str) -> str:
    """Return a row alias that the expression does not use."""
    alias = "k"
    while f"{alias}." in expression:
        alias += "k"
    return alias
