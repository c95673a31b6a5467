"""The rest of the knowledge graph: rejections, dimensions, reports, counters, versions, chunks, usage."""

from pathlib import Path

from sqlalchemy import Connection

from syncline.migrations.revisions import run_script

revision = "graph_0002"
down_revision = "graph_0001"


def upgrade(connection: Connection) -> None:
    """Apply the revision to the schema on the search_path."""
    run_script(connection, Path(__file__).with_name("0002_whole_graph.sql"))
