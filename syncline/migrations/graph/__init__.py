"""Revisions of a graph's graph-db side: alembic loads the modules, each runs the `.sql` file it names."""
