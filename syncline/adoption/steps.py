"""Steps: what adoption does to a schema, one after the other, as a sentence and as SQL."""

from dataclasses import dataclass

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
    alone: bool = False
    """Whether each statement runs outside any transaction, as CONCURRENTLY must. Writers wait for none."""

    @property
    def script(self) -> str:
        """The SQL as a person could run it."""
        statements = self.statements if self.lock is None else (self.lock, *self.statements)
        lines = [f"{statement.rstrip()};" for statement in statements]
        return "\n".join(lines if self.alone else ["BEGIN;", *lines, "COMMIT;"])


@dataclass(frozen=True, kw_only=True)
class AdoptionPlan:
    """What is still to be done in a schema. Without steps, nothing is."""

    schema: str
    steps: tuple[Step, ...]
