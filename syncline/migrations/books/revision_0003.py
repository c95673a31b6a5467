"""Which Temporal run did what people asked for."""

from pathlib import Path

from sqlalchemy import Connection

from syncline.migrations.revisions import run_script

revision = "books_0003"
down_revision = "books_0002"


def upgrade(connection: Connection) -> None:
    """Apply the revision to the schema on the search_path."""
    run_script(connection, Path(__file__).with_name("0003_audit_by_run.sql"))
