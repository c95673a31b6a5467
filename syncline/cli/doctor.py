"""`syncline doctor`: everything that has to be well, looked at from here and from a worker, with each fix."""

from typing import TYPE_CHECKING, Annotated, Final

import typer

from syncline.cli.operators import JsonOption, run
from syncline.cli.output import EXIT_FAILED, errors_printed, one_line, print_table

if TYPE_CHECKING:
    from syncline.cli.answers import Diagnosis

__all__ = ["STATUS_OF_DOCTOR", "doctor"]

STATUS_OF_DOCTOR = "Exit status: 0 nothing fails, 1 something does, 2 wrong usage or configuration."

_STYLES: Final = {"ok": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}


@errors_printed
def doctor(
    timeout: Annotated[float, typer.Option(metavar="S", min=1, help="Seconds to wait for a worker.")] = 20.0,
    as_json: JsonOption = False,
) -> None:
    """Check Temporal, search attributes, workers, Schedules, stores, migrations, services and clocks.

    Each check is alone and bounded: it works when half of everything is down. It changes nothing.
    """
    from syncline.cli.examining import diagnose

    found: Diagnosis = run(diagnose(timeout))
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        print_table(
            ("check", "status", "found"),
            ((check.name, check.status, check.found) for check in found.checks),
            styles=_STYLES,
        )
        for check in found.checks:
            if check.fix is not None:
                typer.echo(one_line(f"{check.status} {check.name}: {check.fix}"))
    if not found.well:
        raise typer.Exit(EXIT_FAILED)
