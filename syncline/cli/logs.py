"""`syncline logs GRAPH`: what the workers said of a graph, or what Temporal says of its runs, by time."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer

from syncline.cli.durations import seconds_of
from syncline.cli.operators import (
    GraphArgument,
    JsonOption,
    exit_nothing_matched,
    format_time,
    print_json_list,
    run,
    slug_of,
)
from syncline.cli.output import errors_printed, one_line
from syncline.errors import ConfigurationError

if TYPE_CHECKING:
    from syncline.temporal.run_lines import LogLine

__all__ = ["logs", "of_the_graph"]

_MOST_RUNS: Final = 100
_EVERY: Final = 2.0
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?Z?")


@errors_printed
def logs(
    graph: GraphArgument,
    since: Annotated[
        str, typer.Option(metavar="TIME", help="How far back: 90s, 15m, 2h, 7d, or an ISO 8601 time in UTC.")
    ] = "1h",
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what was said of a graph, the oldest first: lines of the workers' log, and ends of its runs.

    The log is that of the dev stack that runs here. Elsewhere workers' logs are where their platform keeps
    them (a line about a graph has the field `graph`); then these are its runs alone, as Temporal has them.
    """
    if follow and as_json:
        raise ConfigurationError("--follow does not end, and --json is one value; leave one out.")
    begin, slug = _moment(since), slug_of(graph)
    if follow:
        _follow(slug, begin)
        return
    found = _found(slug, begin)
    if as_json:
        print_json_list(found)
    else:
        _print(found)
    if not found:
        exit_nothing_matched(f"Nothing was said of graph {slug} since {format_time(begin)}.")


def _follow(slug: str, begin: datetime) -> None:
    import time

    printed: set[tuple[str, str]] = set()
    try:
        while True:
            found = [line for line in _found(slug, begin) if (line.source, _key(line)) not in printed]
            _print(found)
            printed |= {(line.source, _key(line)) for line in found}
            time.sleep(_EVERY)
    except KeyboardInterrupt:
        return


def _key(line: "LogLine") -> str:
    # An open run that does not continue is told of once, however long it lasts.
    return line.text if line.source == "run" else f"{line.at.isoformat()} {line.text}"


def _found(slug: str, begin: datetime) -> "Sequence[LogLine]":
    from syncline.cli.target import stack_log
    from syncline.temporal.run_lines import LogLine

    log = stack_log()
    lines = list(run(_runs(slug, begin)))
    if log is not None and log.is_file():
        with log.open(encoding="utf-8", errors="replace") as said:
            lines += [
                LogLine(at=at, source="worker", text=text)
                for at, text in of_the_graph(said, slug)
                if at >= begin
            ]
    return sorted(lines, key=lambda line: line.at)


async def _runs(slug: str, begin: datetime) -> "Sequence[LogLine]":
    from syncline.cli.target import connect_temporal
    from syncline.temporal.run_lines import lines_of
    from syncline.temporal.runs import run_entries

    client = await connect_temporal(prepare=False)
    return lines_of(await run_entries(client, slug, limit=_MOST_RUNS), since=begin)


def of_the_graph(said: Iterable[str], slug: str) -> Iterator[tuple[datetime, str]]:
    """Yield moment and text of each entry of a log, in either format, about the graph or its shadow.

    What follows an entry without a time of its own, such as a traceback, belongs to it.
    """
    of_console = re.compile(rf"\bgraph=['\"]?{re.escape(slug)}(?:/shadow)?['\"]?(?:\s|$)")
    entry: tuple[datetime, str] | None = None
    for raw in said:
        line = raw.rstrip("\n")
        begun = _entry(line)
        if begun is None:
            if entry is not None:
                entry = entry[0], f"{entry[1]}\n{line}"
            continue
        if entry is not None:
            yield entry
        at, fields, text = begun
        named = fields.get("graph") if fields is not None else None
        mine = (
            named in (slug, f"{slug}/shadow") if fields is not None else of_console.search(line) is not None
        )
        entry = (at, text) if mine else None
    if entry is not None:
        yield entry


def _entry(line: str) -> "tuple[datetime, dict[str, object] | None, str] | None":
    """Return moment, fields (of JSON) and text of a line that begins an entry; None if it begins none."""
    fields = None
    if line.startswith("{"):
        try:
            fields = json.loads(line)
        except ValueError:
            return None
        stamp, text = str(fields.get("timestamp", "")), line
    else:
        said = _TIME.match(line)
        stamp, text = ("", line) if said is None else (said[0], line[said.end() :].strip())
    try:
        at = datetime.fromisoformat(stamp.replace(" ", "T"))
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC), fields, text


def _print(found: "Sequence[LogLine]") -> None:
    for line in found:
        typer.echo(f"{format_time(line.at)}  {line.source:<6}  {_shown(line)}")


def _shown(line: "LogLine") -> str:
    return "\n".join(one_line(part) for part in line.text.splitlines())


def _moment(typed: str) -> datetime:
    ago = seconds_of(typed)
    if ago is not None:
        return datetime.now(UTC) - timedelta(seconds=ago)
    try:
        at = datetime.fromisoformat(typed)
    except ValueError:
        raise ConfigurationError(
            f"--since '{one_line(typed)}' is no time; write it like 15m, 2h or 2026-01-31T12:00:00."
        ) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
