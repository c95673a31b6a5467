"""The knowledge graph's write-db tables; adoption adds the capture triggers."""

from pathlib import Path

from sqlalchemy import Connection

from syncline.migrations.revisions import run_script

revision = "write_0001"
down_revision = None


def upgrade(connection: Connection) -> None:
    """Apply the revision to the schema on the search_path."""
    run_script(connection, Path(__file__).with_name("0001_knowledge_graph.sql"))
