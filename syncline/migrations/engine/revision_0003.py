"""Points of rows whose ids are no uuids."""

from pathlib import Path

from sqlalchemy import Connection

from syncline.migrations.revisions import run_script

revision = "engine_0003"
down_revision = "engine_0002"


def upgrade(connection: Connection) -> None:
    """Apply the revision to the schema on the search_path."""
    run_script(connection, Path(__file__).with_name("0003_points_of_ids.sql"))
