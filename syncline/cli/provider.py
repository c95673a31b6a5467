"""`syncline provider …`: making a provider of your own, and having it take over."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from syncline.cli.fleet import describe_fleet
from syncline.cli.operators import (
    STATUS,
    GraphArgument,
    JsonOption,
    ReasonOption,
    TimeoutOption,
    ask,
    format_time,
    os_user,
)
from syncline.cli.output import EXIT_FAILED, errors_printed, one_line, print_error, print_table
from syncline.quoting import counted

if TYPE_CHECKING:
    from syncline.messages.operator import Promotion
    from syncline.operator.fleet import ProviderUse
    from syncline.operator.plugins import PluginsChecked

__all__ = ["app", "promote", "providers"]


@errors_printed
def promote(
    graph: GraphArgument,
    reason: ReasonOption = "promote",
    who: Annotated[
        str | None, typer.Option(help="Who does this, for the audit; the user of this process when left out.")
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Even if the shadow is behind, or lacks what the live schema has."),
    ] = False,
    timeout: TimeoutOption = 180.0,
    as_json: JsonOption = False,
) -> None:
    """Swap a graph and its shadow: providers, schemas of the graph-db, prefixes of the collections.

    What was live is the shadow then, so that it can be promoted back.
    """
    from syncline.messages.operator import PromoteShadowInput, Promotion

    request = PromoteShadowInput(graph=graph, force=force, who=who or os_user(), why=reason)
    done = ask(request, Promotion, seconds=timeout)
    if as_json:
        typer.echo(done.model_dump_json(indent=2))
    else:
        _print(done)


def _print(done: "Promotion") -> None:
    if done.resumed:
        typer.echo("A promotion that was cut off is finished now; nothing was swapped again.")
    for reason in done.despite:
        typer.echo(one_line(f"Although {reason}"), err=True)
    typer.echo(one_line(done.outcome))


app = typer.Typer(help="Make a provider of your own, and have it take over.", no_args_is_help=True)

app.command()(promote)


@app.command()
def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Its id, which compositions name, such as acme-sync.")
    ],
    into: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="A new or empty folder for the project; NAME in this one if left out."
        ),
    ] = None,
) -> None:
    """Write a plugin's project: a provider on top of the built-in engine, with types, tests and a README."""
    from syncline.scaffold import PluginName, write_project

    try:
        plugin = PluginName(name)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="NAME") from None
    folder = into or Path(name)
    try:
        written = write_project(plugin, folder)
    except FileExistsError as error:
        raise typer.BadParameter(f"{error}; name another one", param_hint="--into") from None
    for path in written:
        typer.echo(path)
    typer.echo(f"\nNext: cd {folder}, and README.md there has the commands to install and to test it.")


@app.command(epilog=STATUS)
@errors_printed
def check(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Only this one: a provider's id, entry point or distribution."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show which providers a worker of this Python environment would load, from where, and why not.

    It imports each plugin, as a worker does, and asks no server. Run it where the worker is installed.
    """
    from syncline.operator.plugins import check_plugins
    from syncline.settings import load_allowed_plugins

    checked = check_plugins(load_allowed_plugins())
    if name is not None:
        found = tuple(plugin for plugin in checked.plugins if name in plugin.names())
        checked = checked.model_copy(update={"plugins": found, "unmatched": ()})
    if as_json:
        typer.echo(checked.model_dump_json(indent=2))
    else:
        _print_checked(checked, name)
    for unmatched in checked.unmatched:
        print_error(
            one_line(f"SYNCLINE_PLUGINS names '{unmatched}', and no installed distribution contributes that.")
        )
    failed = checked.unmatched or any(plugin.problem for plugin in checked.plugins)
    if failed or (name and not checked.plugins):
        raise typer.Exit(EXIT_FAILED)


def _print_checked(checked: "PluginsChecked", name: str | None) -> None:
    if not checked.plugins:
        which = f"No installed distribution contributes '{name}'" if name else "No plugin is installed"
        typer.echo(f"{which} for {checked.python}; `python -m pip install` adds one there.", err=True)
        return
    print_table(
        ("kind", "provider", "version", "API", "from", "entry point", "loads"),
        [
            (
                plugin.kind or "-",
                plugin.provider or "-",
                plugin.version or "-",
                "-" if plugin.api_version is None else str(plugin.api_version),
                plugin.distribution,
                plugin.entry_point,
                "no" if plugin.problem else "yes",
            )
            for plugin in checked.plugins
        ],
        styles={"no": "bold red"},
        spare=("API", "kind", "entry point"),
    )
    for plugin in checked.plugins:
        if plugin.problem:
            print_error(one_line(plugin.problem))


@errors_printed
def providers(
    timeout: Annotated[float, typer.Option(metavar="S", min=1, help="Seconds to wait for a worker.")] = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Show every provider: its versions, the workers that have it, the graphs that name it; then the workers.

    What graphs name and no worker has comes first. A worker answers; it needs no plugin itself.
    """
    fleet = describe_fleet(timeout)
    if as_json:
        typer.echo(fleet.model_dump_json(indent=2))
        return
    missing_first = sorted(fleet.providers, key=lambda use: (bool(use.installed), use.kind, use.id))
    header = ("kind", "provider", "version", "API", "from", "workers", "graphs", "used by")
    lines = [line for use in missing_first for line in _lines(use)]
    print_table(header, lines, styles={"installed nowhere": "bold red"}, spare=("API", "kind", "workers"))
    if fleet.undeclared:
        named = _named(fleet.undeclared_names, fleet.undeclared)
        typer.echo(
            one_line(f"{counted(fleet.undeclared, 'graph')} without a declared sync provider: {named}")
        )
    for slug, problem in fleet.refused.items():
        typer.echo(one_line(f"{slug}: {problem}"), err=True)
    typer.echo()
    print_table(
        ("worker", "task queue", "Syncline", "version", "Python", "since", "left out"),
        (
            (
                worker.identity,
                worker.task_queue,
                worker.syncline_version,
                worker.deployment_version or "-",
                worker.python_version,
                format_time(worker.started_at),
                "; ".join(worker.problems),
            )
            for worker in fleet.worker_list
        ),
        spare=("Python", "task queue", "version", "since"),
    )
    if not fleet.workers:
        typer.echo("No worker has told about itself yet; `syncline doctor` says why.", err=True)


def _lines(use: "ProviderUse") -> Iterator[tuple[str, ...]]:
    graphs = (f"{use.graphs:,}", _named(use.graph_names, use.graphs))
    if not use.installed:
        yield (use.kind, use.id, "-", "-", "installed nowhere", "0", *graphs)
    for number, found in enumerate(use.installed):
        used = ("", "") if number else graphs
        facts = (found.version, str(found.api_version), found.distribution, f"{found.workers:,}")
        yield (use.kind, use.id, *facts, *used)


def _named(names: tuple[str, ...], number: int, most: int = 5) -> str:
    more = f" and {number - most:,} more" if number > most else ""
    return ", ".join(names[:most]) + more
