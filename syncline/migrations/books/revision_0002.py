"""Deletes, dead letters, rows asked for by key, retries of vectors, and who did what by hand."""

from pathlib import Path

from sqlalchemy import Connection

from syncline.migrations.revisions import run_script

revision = "books_0002"
down_revision = "books_0001"


def upgrade(connection: Connection) -> None:
    """Apply the revision to the schema on the search_path."""
    run_script(connection, Path(__file__).with_name("0002_deletes_and_dead_letters.sql"))
