"""The operations handbook: a page for each alert and an alert for each page, with commands that there are."""

import re
import shlex
import subprocess
from functools import cache
from pathlib import Path

import pytest
import yaml
from typer.core import TyperGroup
from typer.main import get_group

from syncline.cli import app
from syncline.devstack.temporal_server import temporal_binary

ROOT = Path(__file__).parents[2]
HANDBOOK = ROOT / "docs" / "operations"
ALARMS = sorted((HANDBOOK / "alarms").glob("*.md"))
PAGES = [*ALARMS, *sorted(HANDBOOK.glob("*.md"))]


def alerts() -> dict[str, dict[str, object]]:
    rules = yaml.safe_load((ROOT / "ops" / "alerts.yml").read_text(encoding="utf-8"))
    return {rule["alert"]: rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule}


def title(page: Path) -> str:
    return page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def test_every_alert_has_its_page_and_every_page_its_alert() -> None:
    runbooks = {alert: ROOT / rule["annotations"]["runbook"] for alert, rule in alerts().items()}
    assert runbooks == {title(page): page for page in ALARMS}


def test_the_handbook_lists_every_alert() -> None:
    listed = re.findall(r"^\| \[(\w+)\]\(alarms/", (HANDBOOK / "README.md").read_text("utf-8"), re.MULTILINE)
    assert listed == list(alerts())


@pytest.mark.parametrize("page", ALARMS, ids=lambda page: page.stem)
def test_a_page_of_an_alarm_says_what_it_means_what_to_run_and_when_it_is_over(page: Path) -> None:
    headings = re.findall(r"^## (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert headings == ["What it means", "How it looks", "What to run", "It is over when"]


def commands(page: Path) -> set[str]:
    """The commands of a page: lines of its shell blocks, and what stands in backticks and begins like one."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    whole = "\n".join(blocks).replace("\\\n", " ")
    found = [*whole.splitlines(), *re.findall(r"`((?:temporal|syncline) [^`\n]+)`", prose)]
    return {line for line in found if line.startswith(("temporal ", "syncline "))}


ALL = sorted({command for page in PAGES for command in commands(page)})


def test_the_pages_have_commands() -> None:
    assert len(ALL) > 50


@pytest.mark.parametrize("command", [command for command in ALL if command.startswith("syncline ")])
def test_a_command_of_ours_exists_with_its_options(command: str) -> None:
    _, *words = shlex.split(command)
    found = get_group(app)
    while words and isinstance(found, TyperGroup):
        word = words.pop(0)
        assert word in found.commands, f"syncline has no command {word}"
        found = found.commands[word]
    known = {name for parameter in found.params for name in parameter.opts + parameter.secondary_opts}
    options = {word for word in words if word.startswith("-")}
    assert options <= known
    required = {
        parameter.opts[0] for parameter in found.params if parameter.required and parameter.opts[0][0] == "-"
    }
    assert not options or required <= options


@cache
def help_of(subcommand: tuple[str, ...]) -> str:
    done = subprocess.run([temporal_binary(), *subcommand, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("command", [command for command in ALL if command.startswith("temporal ")])
def test_a_command_of_temporal_exists_with_its_options(command: str) -> None:
    _, *words = shlex.split(command)
    options = [at for at, word in enumerate(words) if word.startswith("-")]
    subcommand = tuple(words[: options[0]] if options else words)
    usage = help_of(subcommand)
    assert f"temporal {' '.join(subcommand)}" in usage
    for at in options:
        assert f"{words[at]} " in usage, f"{words[at]} is no option of {' '.join(subcommand)}"
