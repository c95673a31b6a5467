"""Revisions of the control plane: alembic loads the modules, each runs the `.sql` file it names."""
