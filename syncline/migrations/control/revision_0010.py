"""The generation before a rebuild is kept for a time."""

from pathlib import Path

from sqlalchemy import Connection

from syncline.migrations.revisions import run_script

revision = "control_0010"
down_revision = "control_0009"


def upgrade(connection: Connection) -> None:
    """Apply the revision to the schema on the search_path."""
    run_script(connection, Path(__file__).with_name("0010_kept_generations.sql"))
