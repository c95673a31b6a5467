"""Revisions of a graph's write-db side: alembic loads the modules, each runs the `.sql` file it names."""
