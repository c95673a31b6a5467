"""What an operator reads in the Web UI about a verification: a table of what was found, as markdown."""

from collections.abc import Iterator

from syncline.verification import Relation, Verdict, Verification
from workflows.details import table

__all__ = ["describe_verification"]


def describe_verification(found: Verification) -> str:
    """Return the finding, its table, and what could not be compared."""
    return "\n\n".join(_paragraphs(found))


def _paragraphs(found: Verification) -> Iterator[str]:
    word = "differ from the shadow" if found.shadow else "damaged"
    damage = "equal" if found.equal else f"**{found.damaged:,} {word}**"
    if not found.damaged and not found.complete:
        damage = "**not all was compared**"
    asked = f", {found.queued:,} asked for: the next cycle makes them right" if found.queued else ""
    yield f"{found.compared:,} compared in {found.seconds:.1f} s: {damage}{asked}"
    header = ("what", "of", "equal", *(verdict.value for verdict in Verdict))
    yield table(header, [_cells(relation) for relation in found.relations], words=2)
    problems = [
        f"- **{relation.name}** ({relation.kind.value}) was not compared: {relation.problem}"
        for relation in found.relations
        if relation.problem
    ]
    notes = [
        f"- {sentence}" for sentence in (*found.not_compared, *found.behind, *found.differences)
    ] + problems
    if notes:
        yield "\n".join(notes)


def _cells(relation: Relation) -> tuple[str, ...]:
    counts = (f"{relation.found(verdict).count:,}" for verdict in Verdict)
    return (relation.name, relation.kind.value, f"{relation.equal:,}", *counts)
