"""The roles of the stack's databases: an owner who migrates, a worker that only syncs, a writer, a reader.

Their rights are what `syncline grants` prints, and nothing else: the stack shows least privilege at work.
"""

from collections.abc import Mapping
from typing import Final

from syncline.devstack.postgres import EmbeddedPostgres
from syncline.rights.databases import Places, Roles, grants
from syncline.sql import quoted, statements_of, string_literal

__all__ = ["ROLES", "give_rights", "make_roles"]

ROLES: Final = Roles(
    worker="syncline_worker",
    writer="syncline_writer",
    owner="syncline_owner",
    reader="syncline_reader",
    # `syncline graph add` is a worker's work.
    creates=True,
)

_sql = statements_of("syncline.devstack")


def make_roles(postgres: EmbeddedPostgres, *databases: str) -> None:
    """Make the roles that are missing; what earlier releases made as superuser becomes the owner's."""
    for role in (ROLES.worker, ROLES.writer, ROLES.owner, ROLES.reader):
        if role is not None:
            postgres.psql(_sql("role", name=quoted(role), text=string_literal(role)))
    for database in databases:
        postgres.psql(_sql("hand_over", owner=string_literal(ROLES.owner or "")), database)


def give_rights(postgres: EmbeddedPostgres, databases: Mapping[str, str], places: Places) -> None:
    """Run what `syncline grants` prints for these schemas; `databases` is write-db and graph-db by name."""
    for database in grants(ROLES, places):
        postgres.psql(database.sql, databases.get(database.name, databases["graph-db"]))
