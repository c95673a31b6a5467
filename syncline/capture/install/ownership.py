"""Ownership: which role adoption acts as, so that no role gains privileges by it, and why it may be
impossible.

Every writer calls the capture functions, and they run with their owner's privileges. So all of it belongs to
the tables' owner: a role that can replace any of it has those privileges anyway.
"""

from collections.abc import Collection, Iterable, Iterator

from syncline.capture.install.catalog import Catalog, FunctionState, RoleState, TableState
from syncline.capture.install.steps import (
    LISTENER,
    POSITIONS,
    SHARED_SCHEMA,
    SHARED_VERSION_FUNCTION,
    STATE,
    TOKEN,
    TOMBSTONES,
    Step,
    qualified,
)
from syncline.capture.install.triggers import function_definition, is_ours
from syncline.sql import quoted

__all__ = [
    "capture_owner",
    "filtered_bookkeeping",
    "filtered_problem",
    "handing_over",
    "hidden",
    "ownership_problems",
]


def capture_owner(catalog: Catalog, sources: Collection[str]) -> str:
    """Return the single owner of the sources, which have no `ownership_problems`."""
    return _owners(catalog, sources)[0]


def ownership_problems(catalog: Catalog, sources: Collection[str]) -> list[str]:
    """Return a sentence for each reason why the current role cannot adopt as the tables' owner."""
    return list(_problems(catalog, sources))


def handing_over(
    catalog: Catalog, owner: str, functions: dict[tuple[str, str], FunctionState]
) -> Iterator[Step]:
    """Yield the step that transfers objects created by an earlier release to the tables' owner.

    `functions` are ours, in their current form. An object of an untrusted role is a problem, found before.
    """
    statements: list[str] = []
    for name, found in catalog.functions.items():
        if not _is_ours(name, catalog) or found.owner == owner:
            continue
        if name in functions and functions[name] != found:
            statements.append(function_definition(name, functions[name]))
        statements.append(f"ALTER FUNCTION {qualified(*name)}() OWNER TO {quoted(owner)}")
    tables = [qualified(table.schema, table.name) for table in _our_tables(catalog) if table.owner != owner]
    statements += [f"ALTER TABLE {table} OWNER TO {quoted(owner)}" for table in tables]
    if statements:
        yield Step(
            sentence=f"Transfer the capture objects of {catalog.schema} to {owner}, the owner of its tables.",
            statements=tuple(statements),
            locked=tuple(tables),
        )


def _problems(catalog: Catalog, sources: Collection[str]) -> Iterator[str]:
    schema = catalog.schema
    owners = _owners(catalog, sources)
    if len(owners) != 1:
        yield (
            f"The tables of {schema} belong to several roles ({', '.join(owners)}), and their capture "
            "can act as only one of them: ALTER TABLE … OWNER TO one role."
        )
        return
    [owner] = owners
    role = catalog.roles[owner]
    if not role.may_become:
        yield (
            f"Adoption acts as '{owner}', who owns the tables of {schema}, and this role may not: "
            f"GRANT {quoted(owner)} TO it, or adopt as '{owner}'."
        )
    if not role.held_by_schema_owner:
        yield (
            f"Schema {schema} belongs to '{catalog.owner}', who could replace what acts as '{owner}', the "
            f"owner of its tables: ALTER SCHEMA {quoted(schema)} OWNER TO {quoted(owner)}."
        )
    if not role.may_create:
        yield (
            f"'{owner}', who owns the tables of {schema}, may not create there: "
            f"GRANT CREATE ON SCHEMA {quoted(schema)} TO {quoted(owner)}."
        )
    for table in _our_tables(catalog):
        yield from _not_to_be_had(catalog, f"{schema}.{table.name}", table.owner, owner)
        if table.kind != "table":
            yield f"{schema}.{table.name} is a {table.kind}, and capture needs the name: drop it."
    for name, found in catalog.functions.items():
        if _is_ours(name, catalog) and found.owner is not None:
            yield from _not_to_be_had(catalog, f"{'.'.join(name)}()", found.owner, owner)
    yield from _shared(catalog)


def _shared(catalog: Catalog) -> Iterator[str]:
    """Yield objects of schema `syncline` whose owner could make other roles' writers run code."""
    if catalog.shared_owner is not None and not _is_trusted(catalog.roles[catalog.shared_owner]):
        yield (
            f"Schema {SHARED_SCHEMA}, which all writers of this database use, belongs to "
            f"'{catalog.shared_owner}': ALTER SCHEMA {SHARED_SCHEMA} OWNER TO the adopting role, or drop it."
        )
    listener = catalog.listener
    if listener is not None and not (listener.stores and _is_trusted(catalog.roles[listener.owner])):
        yield (
            f"{'.'.join(LISTENER)}, which all writers of this database read, belongs neither to the adopting "
            f"role, nor to a superuser or the database's owner, but to '{listener.owner}': drop it."
        )
    token = None if catalog.token is None else catalog.token.owner
    if token is not None and not _is_trusted(catalog.roles[token]):
        yield (
            f"Function {'.'.join(TOKEN)}(), which writers of this database call, belongs neither to the "
            f"adopting role, nor to a superuser or the database's owner, but to '{token}': drop it."
        )


def _is_trusted(role: RoleState) -> bool:
    return role.superuser or role.self or role.database_owner


def _not_to_be_had(catalog: Catalog, name: str, found: str, owner: str) -> Iterator[str]:
    role = catalog.roles[found]
    if found != owner and not (_is_trusted(role) or role.owns_schema):
        yield f"{name} belongs to '{found}', and capture acts as '{owner}': drop it, or give it to that role."


def _owners(catalog: Catalog, sources: Collection[str]) -> list[str]:
    tables = [catalog.tables[name] for name in sources]
    return sorted({each.owner for table in tables for each in (table, *table.leaves)})


def _our_tables(catalog: Catalog) -> Iterator[TableState]:
    for name in (TOMBSTONES, STATE, POSITIONS):
        if name in catalog.tables:
            yield catalog.tables[name]


def _is_ours(function: tuple[str, str], catalog: Catalog) -> bool:
    return function != SHARED_VERSION_FUNCTION and is_ours(function, catalog.schema)


def hidden(schema: str, table: str, role: str) -> str:
    """Return the sentence about a table with policies for the role, listing every fix that works."""
    name = qualified(schema, table)
    # `row_security = off` raises whatever the policies say, so changing a policy does not help.
    return (
        f"Row level security of {schema}.{table} applies to role '{role}', and rows that it hides would be "
        f"treated as deleted; no policy fixes that, not even USING (true). Run, as a superuser, "
        f"ALTER ROLE {quoted(role)} BYPASSRLS; or ALTER TABLE {name} DISABLE ROW LEVEL SECURITY; or make the "
        f"role a member of the table's owner, and ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY if it is "
        "forced."
    )


def filtered_problem(catalog: Catalog, table: TableState) -> Iterable[str]:
    """Return the sentence about a table of the schema whose policies apply to the current role, if any."""
    return [hidden(table.schema, table.name, catalog.role)] if table.filtered else []


def filtered_bookkeeping(catalog: Catalog) -> list[str]:
    """Return such a sentence for each of the engine's bookkeeping tables in the schema."""
    own = [table for name, table in catalog.tables.items() if name.startswith("sync_")]
    return [sentence for table in own for sentence in filtered_problem(catalog, table)]
