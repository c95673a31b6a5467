"""How much waits, was refused and is owed, kept instead of counted."""

from pathlib import Path

from sqlalchemy import Connection

from syncline.migrations.revisions import run_script

revision = "books_0006"
down_revision = "books_0005"


def upgrade(connection: Connection) -> None:
    """Apply the revision to the schema on the search_path."""
    run_script(connection, Path(__file__).with_name("0006_kept_counts.sql"))
