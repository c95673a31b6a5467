"""Ids of rule uuid5 by an extension that has SHA-1, where one is installed."""

from pathlib import Path

from sqlalchemy import Connection

from syncline.migrations.revisions import run_script

revision = "engine_0010"
down_revision = "engine_0009"


def upgrade(connection: Connection) -> None:
    """Apply the revision to the schema on the search_path."""
    run_script(connection, Path(__file__).with_name("0010_uuid5.sql"))
