"""The engine state: fence, cursors, parked rows, dead letters, outbox."""

from pathlib import Path

from sqlalchemy import Connection

from syncline.migrations.revisions import run_script

revision = "engine_0001"
down_revision = None


def upgrade(connection: Connection) -> None:
    """Apply the revision to the schema on the search_path."""
    run_script(connection, Path(__file__).with_name("0001_engine_state.sql"))
