"""Missing privileges: which of the needed ones the worker's role lacks, with one query per store."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import asyncpg

from syncline.rights.needed import Kind, Right, grant
from syncline.sql import statements_of

__all__ = ["Missing", "missing_rights"]

_sql = statements_of("syncline.rights")


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Privileges on one object that the role of a connection lacks."""

    kind: Kind
    place: str
    """The object's name, quoted."""
    privileges: tuple[str, ...]
    role: str

    @property
    def grant(self) -> str:
        """The GRANT that fixes it."""
        return grant(self.kind, self.privileges, self.place, self.role)

    def __str__(self) -> str:
        """Return it in words."""
        if self.kind == "role":
            return f"membership in {self.place}"
        return f"{', '.join(self.privileges)} on {self.kind} {self.place}"


async def missing_rights(connection: asyncpg.Connection, needed: Iterable[Right]) -> Sequence[Missing]:
    """Return what the connection's role lacks, object by object. Missing objects are skipped."""
    wanted = [
        (right.kind, right.schema, name, right.ours, privilege)
        for right in needed
        for name in (right.names if right.names is not None else (None,))
        for privilege in right.privileges
    ]
    columns = [list(column) for column in zip(*wanted, strict=True)]
    role = await connection.fetchval("SELECT current_user::text")
    rows = await connection.fetch(_sql("missing"), *columns)
    return [
        Missing(kind=kind, place=place, privileges=tuple(row["privilege"] for row in found), role=role)
        for (kind, place), found in groupby(rows, key=lambda row: (row["kind"], row["place"]))
    ]
