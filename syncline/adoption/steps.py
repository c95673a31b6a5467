"""Steps: what adoption does to a schema, one after the other, as a sentence and as SQL."""

from dataclasses import dataclass

from syncline.sqltext import quoted

__all__ = ["AdoptionPlan", "Step"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One change that is done or not done. Its statements are one transaction, unless they are `alone`."""

    sentence: str
    """What it does, for a person."""
    statements: tuple[str, ...]
    lock: str | None = None
    """The statement before them that makes writers wait, and takes every lock that they could wait for."""
    locked: tuple[str, ...] = ()
    """The tables, quoted, whose writers wait until it is done."""
    shared: bool = False
    """Whether it changes schema `syncline`, which every graph of the database shares."""
    role: str | None = None
    """Who acts: the owner of the tables, so that nothing made here has more rights; None: who adopts."""
    alone: bool = False
    """Whether each statement runs outside any transaction, as CONCURRENTLY must. Writers wait for none."""

    @property
    def script(self) -> str:
        """The SQL as a person could run it."""
        statements = self.statements if self.lock is None else (self.lock, *self.statements)
        lines = [f"{statement.rstrip()};" for statement in (*self.settings, *statements)]
        if self.alone:
            return "\n".join(lines if self.role is None else [*lines, "RESET ROLE;"])
        return "\n".join(["BEGIN;", *lines, "COMMIT;"])

    @property
    def settings(self) -> tuple[str, ...]:
        """What is said before everything else: who acts, and that names are found in pg_catalog alone."""
        role = None if self.role is None else quoted(self.role)
        if self.alone:
            return () if role is None else (f"SET ROLE {role}",)
        path = "SET LOCAL search_path = pg_catalog, pg_temp"
        return (path,) if role is None else (f"SET LOCAL ROLE {role}", path)


@dataclass(frozen=True, kw_only=True)
class AdoptionPlan:
    """What is still to be done in a schema. Without steps, nothing is."""

    schema: str
    steps: tuple[Step, ...]
