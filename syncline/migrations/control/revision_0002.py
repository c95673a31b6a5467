"""What embeddings cost: the ledger, the days of the budgets, and the rules of a graph's vectors."""

from pathlib import Path

from sqlalchemy import Connection

from syncline.migrations.revisions import run_script

revision = "control_0002"
down_revision = "control_0001"


def upgrade(connection: Connection) -> None:
    """Apply the revision to the schema on the search_path."""
    run_script(connection, Path(__file__).with_name("0002_embedding_usage.sql"))
