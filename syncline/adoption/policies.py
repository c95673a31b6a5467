"""Row level security: the tables of which a role is shown a part, so that nothing can be said of the rest."""

from collections.abc import Iterable

from syncline.adoption.catalog import Catalog, TableState
from syncline.adoption.naming import qualified
from syncline.sqltext import quoted

__all__ = ["filtered_books", "filtered_problem", "hidden"]


def hidden(schema: str, table: str, role: str) -> str:
    """Return the sentence about a table whose policies apply to the role, with every way out that works."""
    name = qualified(schema, table)
    # `row_security = off` raises whatever the policies say, so that none of them is a way out.
    return (
        f"Row level security of {schema}.{table} applies to role '{role}', and rows that it hides would be "
        f"taken for deleted; no policy is a way out, USING (true) neither. Run, as a superuser, "
        f"ALTER ROLE {quoted(role)} BYPASSRLS; or ALTER TABLE {name} DISABLE ROW LEVEL SECURITY; or make the "
        f"role a member of the table's owner, and ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY if it is "
        "forced."
    )


def filtered_problem(catalog: Catalog, table: TableState) -> Iterable[str]:
    """Return the sentence about a table of the schema, if policies apply to the role that looked."""
    return [hidden(table.schema, table.name, catalog.role)] if table.filtered else []


def filtered_books(catalog: Catalog) -> list[str]:
    """Return a sentence for each of the engine's own tables in the schema that is so."""
    own = [table for name, table in catalog.tables.items() if name.startswith("sync_")]
    return [sentence for table in own for sentence in filtered_problem(catalog, table)]
