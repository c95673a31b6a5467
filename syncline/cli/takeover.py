"""`syncline graph takeover`: a target that is full already, filled by another engine."""

from typing import TYPE_CHECKING, Annotated

import typer

from syncline.cli.operators import (
    GraphArgument,
    JsonOption,
    ReasonOption,
    TimeoutOption,
    ask,
    os_user,
    slug_of,
)
from syncline.cli.output import (
    EXIT_DIFFERS,
    EXIT_FAILED,
    errors_printed,
    one_line,
    print_error,
)
from syncline.cli.sync import sync_and_wait
from syncline.cli.verify import print_verification
from syncline.errors import ConfigurationError
from syncline.quoting import counted

if TYPE_CHECKING:
    from syncline.cli.answers import SyncedRun, TakenOver
    from syncline.messages.takeover import StrangeRows, Takeover
    from syncline.messages.verification import Verification

__all__ = ["STATUS_OF_TAKEOVER", "takeover"]

STATUS_OF_TAKEOVER = (
    "Exit status: 0 taken over and equal, or equal but for extras that were left; with --dry-run: equal. "
    "1 refused or failed, 2 wrong usage or configuration, 5 with --dry-run: the target differs."
)


@errors_printed
def takeover(
    graph: GraphArgument,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only compare, and say what would be written and deleted.")
    ] = False,
    delete_extra: Annotated[
        bool,
        typer.Option("--delete-extra", help="Delete rows, links and points that the write-db does not have."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before extras are deleted.")] = False,
    keep_vectors: Annotated[
        bool,
        typer.Option(
            "--keep-vectors",
            help="The vectors that are there are of the texts that stand there, by this embedding service: "
            "do not embed these again.",
        ),
    ] = False,
    keys: Annotated[int, typer.Option(min=0, max=10_000, help="Keys to name for each finding.")] = 10,
    vectors: Annotated[bool, typer.Option(help="Compare Qdrant too.")] = True,
    reason: ReasonOption = "takeover",
    timeout: TimeoutOption = 3600.0,
    as_json: JsonOption = False,
) -> None:
    """Take over a target that another engine filled: compare, write only what differs, compare again.

    Every row keeps its id. Rows under other ids than the map's refuse the takeover, since a sync would
    double them. --timeout is for each comparison; the runs of the first sync are waited for without one.
    """
    from syncline.cli.answers import TakenOver
    from syncline.messages.operator import TakeOverGraphInput
    from syncline.messages.takeover import Takeover

    slug = slug_of(graph)

    def asked(*, dry: bool) -> Takeover:
        request = TakeOverGraphInput(
            graph=slug,
            dry_run=dry,
            delete_extra=delete_extra,
            keep_vectors=keep_vectors,
            keys=keys,
            vectors=vectors,
            who="" if dry else os_user(),
            why="" if dry else reason,
        )
        return ask(request, Takeover, seconds=timeout)

    unasked = delete_extra and not yes and not dry_run
    found = asked(dry=dry_run or unasked)
    if not as_json:
        _print(found)
    if dry_run:
        _answer(TakenOver(takeover=found), as_json=as_json)
        if not found.equal:
            raise typer.Exit(EXIT_DIFFERS)
        return
    if not found.refusals and unasked:
        _confirm(found)
        found = asked(dry=False)
    if found.refusals:
        _answer(TakenOver(takeover=found), as_json=as_json)
        for refusal in found.refusals:
            print_error(one_line(refusal))
        raise typer.Exit(EXIT_FAILED)
    ran, verified = _first_sync(slug, quiet=as_json), None
    if ran.result is not None and ran.result.drained:
        verified = _verified(slug, keys=keys, vectors=vectors, timeout=timeout)
    _answer(TakenOver(takeover=found, sync=ran, verification=verified), as_json=as_json)
    _conclude(ran, verified, as_json=as_json)


def _first_sync(slug: str, *, quiet: bool) -> "SyncedRun":
    """Sync until nothing is pending, or a run fails; return the last run."""
    from syncline.messages.sync import CycleStatus, SyncGraphInput

    while True:
        ran = sync_and_wait(SyncGraphInput(graph=slug), follow=False, wait=True, timeout=None, quiet=quiet)
        if ran.cycle is not CycleStatus.BUDGET_SPENT:
            return ran


def _verified(slug: str, *, keys: int, vectors: bool, timeout: float) -> "Verification":
    from syncline.messages.operator import VerifyGraphInput
    from syncline.messages.verification import Verification

    return ask(VerifyGraphInput(graph=slug, keys=keys, vectors=vectors), Verification, seconds=timeout)


def _print(found: "Takeover") -> None:
    print_verification(found.found, repaired=True)
    for strange in found.strange:
        typer.echo(one_line(_strange(strange)))
        if strange.way_out:
            typer.echo(one_line(strange.way_out))
    for sentence in found.sentences():
        typer.echo(sentence)


def _strange(rows: "StrangeRows") -> str:
    from syncline.cli.operators import format_key

    pairs = zip(rows.keys, rows.ids, strict=True)
    named = ", ".join(f"{format_key(key) if key else 'no key'} (id {id_})" for key, id_ in pairs)
    more = f" and {rows.count - len(rows.ids):,} more" if rows.count > len(rows.ids) else ""
    unreadable = f", {rows.unreadable:,} of them without a key that can be read" if rows.unreadable else ""
    return f"{rows.table}: {rows.count:,} under another id than the map's{unreadable}: {named}{more}"


def _confirm(found: "Takeover") -> None:
    """Ask whether so many extras are to be deleted; raise ConfigurationError where nobody can answer."""
    import sys

    rows, links = counted(found.extra_rows, "row"), counted(found.extra_links, "link")
    extras = f"{rows}, {links} and {counted(found.extra_points, 'point')}"
    if not sys.stdin.isatty():
        raise ConfigurationError(f"--delete-extra deletes {extras}: give --yes too. Nothing was done.")
    typer.confirm(f"Delete {extras} that the write-db does not have?", abort=True, err=True)


def _answer(answer: "TakenOver", *, as_json: bool) -> None:
    if as_json:
        typer.echo(answer.model_dump_json(indent=2))
    elif answer.verification is not None:
        print_verification(answer.verification, repaired=True)


def _conclude(ran: "SyncedRun", verified: "Verification | None", *, as_json: bool) -> None:
    from syncline.messages.verification import RelationKind

    if verified is None:
        print_error(one_line(ran.error or f"The first sync did not end: `syncline status {ran.graph}`."))
        raise typer.Exit(EXIT_FAILED)
    extra = sum(one.extra.count for one in verified.relations if one.kind is not RelationKind.LINKS)
    if not verified.complete or verified.damaged > extra:
        raise typer.Exit(EXIT_FAILED)
    if extra and not as_json:
        typer.echo(
            f"Taken over; equal but for {extra:,} extra, which were left: "
            f"`syncline verify {ran.graph} --repair` deletes them."
        )
    elif not as_json:
        typer.echo("Taken over; equal.")
