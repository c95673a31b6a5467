"""Unique rules: a target's unique indexes and exclusion constraints, and how a row can give up its values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import asyncpg

__all__ = ["UniqueRule", "rule_of"]


@dataclass(frozen=True, kw_only=True)
class UniqueRule:
    """A unique index or exclusion constraint, and which values can free a row's place in it."""

    number: int
    name: str
    exclusion: bool
    nulls_equal: bool
    predicate: str
    expressions: tuple[str, ...]
    operators: tuple[str, ...]
    collations: tuple[str, ...]
    stand_ins: tuple[tuple[str, str], ...]
    """(column, temporary value) pairs, the best first."""

    @property
    def applies(self) -> str:
        return f"sync_ok{self.number}"

    def claims(self) -> list[str]:
        """Return the columns of `sync_claim` for this rule."""
        values = [
            f"({expression}) AS {self.claim(index)}" for index, expression in enumerate(self.expressions)
        ]
        return [f"({self.predicate}) IS TRUE AS {self.applies}", *values]

    def claim(self, index: int) -> str:
        return f"sync_k{self.number}_{index}"

    def equal(self, claim: str) -> str:
        """Return the condition that a target row has the values that `claim` needs."""
        parts = []
        for index, (expression, operator, collation) in enumerate(
            zip(self.expressions, self.operators, self.collations, strict=True)
        ):
            wanted = f"{claim}.{self.claim(index)}"
            same = f"({expression}){collation} {operator} {wanted}"
            if self.nulls_equal:
                same = f"({same} OR ({expression}) IS NULL AND {wanted} IS NULL)"
            parts.append(same)
        return " AND ".join(parts)

    def kept(self, claim: str) -> str:
        """Return the condition that a row keeps its values."""
        if not self.exclusion:
            return self.equal(claim)
        return " AND ".join(
            f"({expression})::text IS NOT DISTINCT FROM {claim}.{self.claim(index)}::text"
            for index, expression in enumerate(self.expressions)
        )


def rule_of(
    number: int, row: asyncpg.Record, known: Mapping[str, asyncpg.Record], key: Sequence[str]
) -> UniqueRule:
    free = [
        known[name]
        for name in row["columns"]
        if name not in key and not name.startswith("sync_") and not known[name]["referenced"]
    ]
    # NULL conflicts with no row, and needs no search.
    empty = [] if row["nulls_equal"] else [(column["name"], "NULL") for column in free if _nullable(column)]
    other = [
        (column["name"], f"({value})::{column['type']}")
        for column in free
        if column["generation"] is None and not column["refers"] and not column["fixed"]
        for value in _other_values(column)
    ]
    return UniqueRule(
        number=number,
        name=row["name"],
        exclusion=row["exclusion"],
        nulls_equal=row["nulls_equal"],
        predicate=row["predicate"] or "true",
        expressions=tuple(row["expressions"]),
        operators=tuple(row["operators"]),
        collations=tuple(row["collations"]),
        stand_ins=(*empty, *other),
    )


def _nullable(column: asyncpg.Record) -> bool:
    return column["generation"] is None and not column["fixed"] and not column["required"]


def _other_values(column: asyncpg.Record) -> list[str]:
    """Return expressions, over the row number `c.sync_n`, for values unlikely to exist."""
    digest = "md5('@salt' || c.sync_n)"
    match column["base"]:
        case "int2":
            return ["32767 - c.sync_n", "-32768 + c.sync_n"]
        case "int4":
            return ["2147483647 - c.sync_n", "-2147483648 + c.sync_n"]
        case "int8":
            return ["9223372036854775807 - c.sync_n", "-9223372036854775807 + c.sync_n"]
        case "numeric" | "float8":
            return ["1e15 - c.sync_n", "1e6 - c.sync_n", "-c.sync_n"]
        case "uuid":
            return [digest]
        case "date":
            return ["date '5874897-12-31' - c.sync_n::int"]
        case "timestamp":
            return ["timestamp '294276-12-31' - c.sync_n * interval '1 second'"]
        case "timestamptz":
            return ["timestamptz '294276-12-30 00:00+00' - c.sync_n * interval '1 second'"]
        case "bytea":
            return [f"decode({digest}, 'hex')"]
        case "jsonb":
            return [f"to_jsonb({digest})"]
    match column["category"]:
        case "S":
            return [digest, f"left({digest}, 8)", "c.sync_n::text"]
        case "R":
            return ["'empty'"]
    return []
