"""The rest of the knowledge graph's write-db tables. What capture needs on top comes from adoption."""

from pathlib import Path

from sqlalchemy import Connection

from syncline.migrations.revisions import run_script

revision = "write_0002"
down_revision = "write_0001"


def upgrade(connection: Connection) -> None:
    """Apply the revision to the schema on the search_path."""
    run_script(connection, Path(__file__).with_name("0002_whole_graph.sql"))
