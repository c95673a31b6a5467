"""The documentation says what the code has: all its names, links that lead somewhere, examples that run."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from benchmarks.sizing import Costs, fleets, waits
from syncline import metrics, names
from syncline.cli import app
from syncline.cli.answers import ANSWERS, pages, schema_of
from syncline.cli.examples import EXAMPLES
from syncline.cli.output import EXIT_STATUSES
from syncline.control.composition import parse_composition
from syncline.messages.provider_state import FallbackReason
from syncline.messages.sync import SyncState
from syncline.migrations import ENGINE_VERSION_TABLE, VERSION_TABLE
from syncline.scaffold import PluginName, write_project
from syncline.settings import Settings
from syncline.temporal.overview import GraphHealth
from syncline.testing.conformance.items import ITEMS
from syncline.testing.graphs import TestGraph
from tests.kit.api_reference import reference as api_reference
from tests.kit.temporal_reference import ERRORS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")])

DESCRIBED_ELSEWHERE = {"ENTRY_POINT_GROUP": "providers.md", "SECOND": "databases.md"}


@cache
def text(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


@cache
def terms(markdown: str) -> set[str]:
    """What stands in backticks, code blocks left out."""
    return set(
        re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", markdown, flags=re.DOTALL | re.MULTILINE))
    )


def section(page: str, heading: str) -> str:
    found = re.search(
        rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#{{1,3}} |\Z)", text(page), flags=re.DOTALL | re.MULTILINE
    )
    assert found is not None, f"{page} has no section '{heading}'"
    return found[2]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text(page), flags=re.DOTALL | re.MULTILINE)


def commands(group: TyperGroup, path: str) -> Iterator[str]:
    for name, command in group.commands.items():
        yield f"{path} {name}"
        if isinstance(command, TyperGroup):
            yield from commands(command, f"{path} {name}")


@pytest.mark.parametrize("field", Settings.model_fields)
def test_every_setting_is_documented(field: str) -> None:
    assert f"SYNCLINE_{field.upper()}" in terms(text("settings.md"))


def test_the_reference_of_metrics_is_what_is_declared() -> None:
    assert text("metrics.md") == metrics.reference(), "run: make docs"


def test_every_command_is_documented() -> None:
    documented = set(re.findall(r"^#+ `(syncline .*)`$", text("cli.md"), flags=re.MULTILINE))
    assert documented == set(commands(get_group(app), "syncline"))


def test_the_command_reference_is_what_the_command_line_says(tmp_path: Path) -> None:
    written = tmp_path / "cli.md"
    arguments = [
        "-m",
        "typer",
        "syncline.cli",
        "utils",
        "docs",
        "--name",
        "syncline",
        "--output",
        str(written),
    ]
    subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "TYPER_USE_RICH": "1"},
        check=True,
        capture_output=True,
    )
    assert written.read_text(encoding="utf-8") == text("cli.md"), "run: make docs"


def options(group: TyperGroup, path: str = "") -> Iterator[tuple[str, TyperCommand]]:
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from options(command, f"{path}{name} ")
        elif isinstance(command, TyperCommand):
            yield f"{path}{name}", command


def test_every_command_with_json_is_in_the_registry_of_answers() -> None:
    answering = {
        name
        for name, command in options(get_group(app))
        if any("--json" in parameter.opts for parameter in command.params)
    }
    registered = {re.sub(r" (GRAPH|--\w+)$", "", command) for command in ANSWERS}
    assert registered == answering
    silent = {name for name, _ in options(get_group(app))} - answering
    assert silent == {"dev", "worker", "mcp", "psql", "provider new"}, (
        "a command that answers something takes --json"
    )


def test_the_reference_of_answers_is_what_the_models_say() -> None:
    written = {
        path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8")
        for path in (DOCS / "json.md", *(DOCS / "schemas").iterdir())
    }
    assert written == pages(), "run: make docs"


@pytest.mark.parametrize("command", ANSWERS)
def test_every_schema_is_one(command: str) -> None:
    Draft202012Validator.check_schema(schema_of(command))


@pytest.mark.parametrize(("name", "command"), list(options(get_group(app))))
def test_every_command_says_its_exit_statuses(name: str, command: TyperCommand) -> None:
    assert (command.epilog or "").startswith("Exit status: 0 "), name
    told = {int(code) for code in re.findall(r"(?<=[ ,])(\d+) ", command.epilog or "")}
    assert told <= EXIT_STATUSES.keys()


@pytest.mark.parametrize(("name", "command"), list(options(get_group(app))))
def test_every_command_has_an_example_that_it_takes(name: str, command: TyperCommand) -> None:
    assert EXAMPLES[name] in (command.epilog or "")
    program, *words = shlex.split(EXAMPLES[name])
    path = name.split()
    assert (program, words[: len(path)]) == ("syncline", path)
    assert command.make_context(name, words[len(path) :]).args == []


@pytest.mark.parametrize(
    "constant", [name for name, value in vars(names).items() if name.isupper() and isinstance(value, str)]
)
def test_every_wire_name_is_documented(constant: str) -> None:
    page = DESCRIBED_ELSEWHERE.get(constant, "temporal-reference.md")
    assert getattr(names, constant) in terms(text(page))


@pytest.mark.parametrize(("name", "kind"), names.SEARCH_ATTRIBUTES.items())
def test_search_attribute_is_created_with_its_type(name: str, kind: str) -> None:
    recipe = section("temporal.md", "Search attributes")
    assert f"search-attribute create --name {name} --type {kind}\n" in recipe


def test_sync_state_example_is_an_answer() -> None:
    [example] = [json.loads(block) for block in blocks("temporal.md", "json")]
    assert example.keys() == SyncState.model_fields.keys()
    SyncState.model_validate(example)


@pytest.mark.parametrize("reason", FallbackReason)
def test_every_reason_of_a_fallback_is_documented(reason: FallbackReason) -> None:
    assert reason in terms(section("providers.md", "Resolution"))


def test_every_error_of_a_run_has_its_remedy() -> None:
    """An error that fails a run says what to do; those that only commands raise say it in their message."""
    only_commands = {
        "ScheduleNotFound",
        "SchedulePaused",
        "NoWorker",
        "RunFailed",
        "RunNotFound",
        "QuestionUnanswered",
        "SampleInvalid",
        "DevStackError",
    }
    remedies = terms(section("temporal.md", "Errors that are not retried"))
    refused = {cls.__name__ for cls in ERRORS if not cls.retryable} - only_commands
    assert refused <= remedies


def test_every_state_of_a_graph_is_documented() -> None:
    states = re.findall(r"^\| `([a-z ]+)` \|", section("temporal.md", "Ask a run"), flags=re.MULTILINE)
    assert states == list(GraphHealth)


def test_every_table_of_the_engine_is_documented() -> None:
    ddl = files("syncline.migrations").joinpath("engine")
    scripts = [path.read_text("utf-8") for path in ddl.iterdir() if path.name.endswith(".sql")]
    created = set(
        re.findall(r"^CREATE TABLE (?:IF NOT EXISTS )?(sync_\w+)", "\n".join(scripts), flags=re.MULTILINE)
    )
    assert {"sync_state", "sync_outbox"} < created
    described = set(re.findall(r"^\| `(sync_\w+)` \|", text("databases.md"), flags=re.MULTILINE))
    assert described == created | {VERSION_TABLE, ENGINE_VERSION_TABLE}


@cache
def links() -> list[tuple[Path, str]]:
    return [
        (page, target)
        for page in PAGES
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
        if "://" not in target
    ]


@cache
def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def leads_somewhere(page: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    found = (page.parent / path) if path else page
    return found.exists() and (not anchor or anchor in anchors(found))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    assert [to for linking, to in links() if linking == page and not leads_somewhere(page, to)] == []


def test_every_page_is_in_the_index() -> None:
    indexes = [page for page in PAGES if page.name == "README.md" and page.is_relative_to(DOCS)]
    indexed = {(page.parent / to.partition("#")[0]).resolve() for page, to in links() if page in indexes}
    assert {page for page in PAGES if DOCS in page.parents} - {DOCS / "README.md"} <= indexed


@pytest.mark.parametrize("page", sorted((DOCS / "decisions").glob("*.md")), ids=lambda page: page.stem)
def test_a_decision_record_is_short_and_complete(page: Path) -> None:
    record = page.read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", record, flags=re.MULTILINE) == ["Context", "Decision", "Consequences"]
    assert record.startswith(f"# {page.name[:4]} ")
    assert record.count("\n") < 40


async def test_every_statement_for_the_databases_runs(graph: TestGraph) -> None:
    scripts = blocks("databases.md", "sql")
    assert len(scripts) >= 4
    for script in scripts:
        assert "SET search_path = world;" in script, "the reader has to be told where to look"
        on_write_db = "write_" in script
        connection = await (graph.connect_write() if on_write_db else graph.connect_target())
        try:
            await connection.execute(script.replace("search_path = world", "search_path = kg"))
        finally:
            await connection.close()


def test_the_provider_of_the_walk_is_what_the_command_writes(tmp_path: Path) -> None:
    [shown] = blocks("providers.md", "python")
    write_project(PluginName("acme-sync"), tmp_path)
    assert (tmp_path / "src" / "acme_sync" / "__init__.py").read_text(encoding="utf-8") == shown


def test_llms_names_every_page() -> None:
    """What programs read first."""
    index = (DOCS.parent / "llms.txt").read_text(encoding="utf-8")
    named = set(re.findall(r"\]\(docs/([\w.-]+\.md)\)", index))
    assert {page.name for page in DOCS.glob("*.md")} - named == {"README.md"}
    assert [name for name in named if not (DOCS / name).exists()] == []


def test_reference_of_what_plugins_import_is_up_to_date() -> None:
    assert api_reference() == text("api.md"), "run: make docs"
    assert "### SyncContext" in text("api.md")


def test_every_item_of_the_conformance_suite_is_documented() -> None:
    table = section("providers.md", "The conformance suite")
    assert re.findall(r"^\| `([\w-]+)` \|", table, flags=re.MULTILINE) == list(ITEMS)


def test_the_composition_of_the_walk_names_its_provider() -> None:
    [composition] = map(json.loads, blocks("providers.md", "json"))
    entry = parse_composition("world", composition).sync
    assert entry is not None
    assert (entry.provider, entry.options) == ("acme-sync", {})


def test_tables_of_sizing_are_what_the_simulation_says() -> None:
    page, costs = (DOCS / "sizing.md").read_text("utf-8"), Costs.measured()
    for name, lines in (("worker", waits(costs)), ("fleets", fleets(costs, 0.05))):
        assert "\n".join(lines) in page, f"{name}: run `make sizing`"
