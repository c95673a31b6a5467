"""Whoever may change records may delete them."""

from pathlib import Path

from sqlalchemy import Connection

from syncline.migrations.revisions import run_script

revision = "control_0007"
down_revision = "control_0006"


def upgrade(connection: Connection) -> None:
    """Apply the revision to the schema on the search_path."""
    run_script(connection, Path(__file__).with_name("0007_delete_graphs.sql"))
