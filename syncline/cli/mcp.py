"""`syncline mcp`: the commands that answer as JSON, as tools of the Model Context Protocol.

A tool runs its command in a process of its own, with `--json`, so that it does and refuses what that does and
refuses: nothing is defined twice.
"""

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from inspect import cleandoc
from typing import TYPE_CHECKING, Annotated, Final, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from syncline.cli.output import errors_printed
from syncline.errors import ConfigurationError

if TYPE_CHECKING:
    from mcp.server import Server
    from pydantic import JsonValue

__all__ = ["READS", "ToolCommand", "mcp", "server", "tools"]

READS: Final = frozenset(
    {"doctor", "explain", "parked", "providers", "runs", "status", "usage", "verify", "wait"}
    | {"embedding plan", "embedding status", "provider check", "rebuild status", "schedule list"}
    | {f"failures {verb}" for verb in ("audit", "list", "show", "summary")}
    | {f"graph {verb}" for verb in ("audit", "list", "show")}
    | {f"map {verb}" for verb in ("check", "diff", "history", "list", "schema", "show")}
)
"""Commands that change nothing when they are given none of `_CHANGING`."""
_CHANGING: Final = {"verify": {"repair"}}
"""Options that make a reading command change something; absent from its tool unless changes are allowed."""
_NEVER: Final = frozenset({"as_json", "follow", "watch", "help"})
"""Parameters that no tool has: its answer is JSON, and one."""


@dataclass(frozen=True, kw_only=True)
class ToolCommand:
    """A command as a tool."""

    words: tuple[str, ...]
    description: str
    properties: Mapping[str, "JsonValue"]
    """JSON Schema of each parameter."""
    required: tuple[str, ...]
    options: Mapping[str, tuple[str, str | None]]
    """Parameter -> its flag, and the flag that says no. Parameters without one are positional, in order."""
    reads: bool

    @property
    def name(self) -> str:
        """Such as `graph_list`."""
        return "_".join(self.words).replace("-", "_")

    def line(self, given: Mapping[str, "JsonValue"]) -> list[str]:
        """Return the command line; raise ValueError for a parameter that there is not."""
        if unknown := given.keys() - self.properties.keys():
            raise ValueError(f"{self.name} has no parameter {', '.join(sorted(unknown))}")
        flags, positional = ["--json"], []
        for parameter in self.properties:
            value = given.get(parameter)
            if value is None:
                continue
            values = value if isinstance(value, list) else [value]
            if parameter not in self.options:
                positional += [_text(one) for one in values]
                continue
            flag, negative = self.options[parameter]
            for one in values:
                if one is True:
                    flags.append(flag)
                elif one is not False:
                    flags.append(f"{flag}={_text(one)}")
                elif negative is not None:
                    flags.append(negative)
        return [*self.words, *flags, "--", *positional]


@errors_printed
def mcp(
    context: typer.Context,
    allow_changes: Annotated[
        bool, typer.Option("--allow-changes", help="Also those that change something, such as `graph pause`.")
    ] = False,
) -> None:
    """Serve the commands as tools of the Model Context Protocol, over standard input and output.

    Only those that read, unless --allow-changes. A program starts it, with the environment of
    commands. It needs the extra `mcp`.
    """
    try:
        from mcp.server.stdio import stdio_server
    except ImportError as error:
        raise ConfigurationError(
            f"`syncline mcp` needs a package that is missing ({error.name}).",
            fix="Run: pip install 'syncline[mcp]'",
        ) from error

    group = context.find_root().command

    async def serve() -> None:
        served = server(group, allow_changes=allow_changes)
        async with stdio_server() as (read, write):
            await served.run(read, write, served.create_initialization_options())

    asyncio.run(serve())


def server(group: object, *, allow_changes: bool) -> "Server[dict[str, object]]":
    """Return the server of a command line's tools."""
    from importlib.metadata import version

    import mcp_types as types
    from mcp.server import Server, ServerRequestContext

    known = {tool.name: tool for tool in tools(group, allow_changes=allow_changes)}

    async def list_tools(
        _context: ServerRequestContext, _request: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(
            tools=[
                types.Tool(
                    name=tool.name,
                    description=tool.description,
                    input_schema={
                        "type": "object",
                        "properties": dict(tool.properties),
                        "required": list(tool.required),
                        "additionalProperties": False,
                    },
                    annotations=types.ToolAnnotations(
                        read_only_hint=tool.reads, destructive_hint=not tool.reads
                    ),
                )
                for tool in known.values()
            ]
        )

    async def call_tool(
        _context: ServerRequestContext, request: types.CallToolRequestParams
    ) -> types.CallToolResult:
        try:
            line = known[request.name].line(request.arguments or {})
        except KeyError:
            hint = "" if allow_changes else "; what changes something needs `syncline mcp --allow-changes`"
            return _answer(f"There is no tool {request.name}{hint}.", failed=True)
        except ValueError as error:
            return _answer(str(error), failed=True)
        status, out, err = await _ran(line)
        answered = bool(out.strip())
        # An exit status other than 0 may come with an answer, such as that nothing matched.
        said = "\n".join(
            part for part in (out.strip(), err.strip(), status and f"exit status {status}") if part
        )
        return _answer(said, failed=not answered)

    def _answer(text: str, *, failed: bool) -> types.CallToolResult:
        return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=failed)

    return Server(
        "syncline",
        version=version("syncline"),
        instructions="Operates Syncline: begin with `status`. GRAPH is a slug or an id.",
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


async def _ran(line: list[str]) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from syncline.cli import app; app()",
        *line,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    return process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace")


def tools(group: object, *, allow_changes: bool) -> Iterator[ToolCommand]:
    """Yield a tool for each command that answers as JSON and, unless changes are allowed, reads."""
    from syncline.cli.answers import ANSWERS

    answering = {
        " ".join(word for word in command.split() if word.islower() and word[0] != "-") for command in ANSWERS
    }
    for words, command in _commands(group):
        name = " ".join(words)
        reads = name in READS
        if name in answering and (reads or allow_changes):
            left_out = _NEVER if allow_changes else _NEVER | _CHANGING.get(name, set())
            yield _tool(words, command, left_out, reads=reads)


def _commands(group: object, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], TyperCommand]]:
    if isinstance(group, TyperGroup):
        for name, command in group.commands.items():
            yield from _commands(command, (*words, name))
    elif isinstance(group, TyperCommand):
        yield words, group


def _tool(words: tuple[str, ...], command: TyperCommand, left_out: Set[str], *, reads: bool) -> ToolCommand:
    from pydantic import TypeAdapter

    hints = get_type_hints(command.callback)
    properties: dict[str, JsonValue] = {}
    required, options = [], {}
    for parameter in command.params:
        name = parameter.name or ""
        if name in left_out or name not in hints:
            continue
        schema = TypeAdapter(hints[name]).json_schema()
        properties[name] = {**schema, "description": cleandoc(getattr(parameter, "help", None) or "")}
        if parameter.required:
            required.append(name)
        if parameter.param_type_name == "option":
            negative = parameter.secondary_opts[0] if parameter.secondary_opts else None
            options[name] = (parameter.opts[0], negative)
    return ToolCommand(
        words=words,
        description=cleandoc(command.help or ""),
        properties=properties,
        required=tuple(required),
        options=options,
        reads=reads,
    )


def _text(value: "JsonValue") -> str:
    return value if isinstance(value, str) else json.dumps(value)
