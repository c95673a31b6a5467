"""Foreign keys and indexes that a first load has put off."""

from pathlib import Path

from sqlalchemy import Connection

from syncline.migrations.revisions import run_script

revision = "engine_0006"
down_revision = "engine_0005"


def upgrade(connection: Connection) -> None:
    """Apply the revision to the schema on the search_path."""
    run_script(connection, Path(__file__).with_name("0006_first_load.sql"))
