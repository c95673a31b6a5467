"""The mark by which a cycle that finds the graph taken has its holder look once more."""

from pathlib import Path

from sqlalchemy import Connection

from syncline.migrations.revisions import run_script

revision = "books_0011"
down_revision = "books_0009"


def upgrade(connection: Connection) -> None:
    """Apply the revision to the schema on the search_path."""
    run_script(connection, Path(__file__).with_name("0011_looks.sql"))
