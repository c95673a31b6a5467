"""`syncline mcp`: which commands are tools, what they are called with, and what they answer."""

import json

import pytest
import typer
from mcp.client import Client
from mcp_types import TextContent

from syncline.cli import app
from syncline.cli.answers import ANSWERS
from syncline.cli.mcp import READS, server, tools

GROUP = typer.main.get_command(app)
TOOLS = {tool.name: tool for tool in tools(GROUP, allow_changes=True)}


def test_without_leave_only_commands_that_read_are_tools() -> None:
    reading = {tool.name for tool in tools(GROUP, allow_changes=False)}
    assert reading == {name.replace(" ", "_") for name in READS}
    assert {"graph_pause", "sync", "failures_discard", "migrate"} <= TOOLS.keys() - reading
    [verify] = [tool for tool in tools(GROUP, allow_changes=False) if tool.name == "verify"]
    assert "repair" in TOOLS["verify"].properties
    assert "repair" not in verify.properties


def test_every_command_that_answers_is_a_tool() -> None:
    answering = {
        "_".join(word for word in command.split() if word.islower() and not word.startswith("-")).replace(
            "-", "_"
        )
        for command in ANSWERS
    }
    assert answering <= TOOLS.keys()


@pytest.mark.parametrize(
    ("tool", "given", "line"),
    [
        ("graph_show", {"graph": "world"}, "graph show --json -- world"),
        ("graph_set", {"graph": "world", "notify": False}, "graph set --json --no-notify -- world"),
        ("graph_set", {"graph": "--x", "every_seconds": 5}, "graph set --json --every-seconds=5 -- --x"),
        (
            "verify",
            {"graph": "g", "table": ["a", "b"], "repair": True},
            "verify --json --repair --table=a --table=b -- g",
        ),
        ("explain", {"graph": "g", "table": "t", "key": ["1", "2"]}, "explain --json -- g t 1 2"),
    ],
)
def test_arguments_become_a_command_line(tool: str, given: dict[str, object], line: str) -> None:
    """What begins with a dash is a value, whatever it looks like."""
    made = TOOLS[tool].line(given)  # type: ignore[arg-type]
    flags = made.index("--")
    assert [*sorted(made[:flags]), *made[flags:]] == [
        *sorted(line.split()[: line.split().index("--")]),
        *line.split()[line.split().index("--") :],
    ]


async def test_a_tool_answers_what_its_command_prints() -> None:
    async with Client(server(GROUP, allow_changes=False)) as client:
        listed = {tool.name: tool for tool in (await client.list_tools()).tools}
        answer = await client.call_tool("provider_check", {})
        refused = await client.call_tool("graph_pause", {"graph": "world"})
        unknown = await client.call_tool("provider_check", {"nme": "acme"})
    assert listed["graph_show"].input_schema["required"] == ["graph"]
    [said] = answer.content
    assert isinstance(said, TextContent)
    assert json.loads(said.text.partition("\nexit status")[0].partition("\nNo plugin")[0])["plugins"] == []
    assert (answer.is_error, refused.is_error, unknown.is_error) == (False, True, True)
