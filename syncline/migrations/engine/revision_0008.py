"""Checkpoints, the keys read since, and what a comparison of keys may remove."""

from pathlib import Path

from sqlalchemy import Connection

from syncline.migrations.revisions import run_script

revision = "engine_0008"
down_revision = "engine_0007"


def upgrade(connection: Connection) -> None:
    """Apply the revision to the schema on the search_path."""
    run_script(connection, Path(__file__).with_name("0008_checkpoints.sql"))
