"""What each graph's vectors are made with."""

from pathlib import Path

from sqlalchemy import Connection

from syncline.migrations.revisions import run_script

revision = "control_0003"
down_revision = "control_0002"


def upgrade(connection: Connection) -> None:
    """Apply the revision to the schema on the search_path."""
    run_script(connection, Path(__file__).with_name("0003_graph_embeddings.sql"))
