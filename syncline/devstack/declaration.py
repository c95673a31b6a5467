"""What `temporal-dev.yaml` declares, and reading it: every complaint names the file, the key and the fix."""

import json
from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
    model_validator,
)

from syncline.application_folder import own_application
from syncline.control.composition import parse_composition
from syncline.control.graphs import GraphDraft, draft_graph
from syncline.errors import ConfigurationError, DevStackError
from syncline.settings import Settings

__all__ = [
    "GraphDeclaration",
    "PostgresDeclaration",
    "QdrantDeclaration",
    "StackDeclaration",
    "TemporalDeclaration",
    "WorkerDeclaration",
    "find_declaration",
    "read_declaration",
]

_IN_THIS_FOLDER = Path("temporal-dev.yaml")
_PREFIX = "SYNCLINE_"
STORE_SELECTING = frozenset({"write_dsn", "graph_dsn", "control_dsn", "stores", "qdrant_path", "owner_role"})
"""Settings that the stack gives its worker itself; nothing from outside may redirect them."""


class _Declared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TemporalDeclaration(_Declared):
    """The Temporal dev server."""

    ip: str = "127.0.0.1"
    port: int = Field(default=7233, ge=1, le=65535)
    ui_port: int = Field(default=8233, ge=1, le=65535)
    namespace: str = Field(default="default", min_length=1)
    database: Path = Path("temporal.db")
    dynamic_config: dict[str, JsonValue] = Field(default_factory=dict)
    """Dynamic configuration of the server, over what the stack gives it (`temporal_server.py`)."""

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        if self.port == self.ui_port:
            raise ValueError(f"port and ui_port are both {self.port}; give them different numbers")
        return self

    @property
    def address(self) -> str:
        """Where clients reach it."""
        return f"{self.ip}:{self.port}"


class PostgresDeclaration(_Declared):
    """The embedded PostgreSQL server."""

    data: Path = Path("postgres")


class QdrantDeclaration(_Declared):
    """The embedded vector store."""

    path: Path = Path("qdrant")


class WorkerDeclaration(_Declared):
    """The worker process."""

    settings: dict[str, JsonValue] = Field(default_factory=dict)

    @field_validator("settings")
    @classmethod
    def _known_settings(cls, settings: dict[str, JsonValue]) -> dict[str, JsonValue]:
        for name in settings:
            field = name.removeprefix(_PREFIX).lower()
            if not name.startswith(_PREFIX) or field not in Settings.model_fields:
                raise ValueError(f"{name} is not a setting; docs/settings.md lists the SYNCLINE_* names")
            if field in STORE_SELECTING:
                raise ValueError(f"{name} is set by the stack itself; remove it here")
        _check_values(settings)
        return settings

    @property
    def fields(self) -> dict[str, JsonValue]:
        """The overrides under their field names in `Settings`."""
        return {name.removeprefix(_PREFIX).lower(): value for name, value in self.settings.items()}

    @property
    def environment(self) -> dict[str, str]:
        """The overrides as environment variables."""
        return {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in self.settings.items()
            if value is not None
        }


def _check_values(settings: dict[str, JsonValue]) -> None:
    """Raise ValueError for a value that `Settings` refuses."""
    fields = {name.removeprefix(_PREFIX).lower(): value for name, value in settings.items()}
    try:
        Settings.model_validate({"write_dsn": "postgresql://w", "graph_dsn": "postgresql://g", **fields})
    except ValidationError as error:
        problems = [
            f"{_PREFIX}{str(item['loc'][0]).upper()}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False)
            # What is wrong in the person's environment is not this file's fault, and is told elsewhere.
            if item["loc"][0] in fields
        ]
        if problems:
            raise ValueError("; ".join(problems)) from None


class GraphDeclaration(_Declared):
    """One graph that the stack creates. Slug and rules are those of the graph record."""

    name: str | None = None
    sample: Literal["world"] | None = None
    is_default: bool = False
    schema_name: str | None = None
    write_schema: str | None = None
    qdrant_prefix: str | None = None
    every_seconds: int = Field(default=60, ge=1)
    composition: dict[str, JsonValue] = Field(default_factory=dict)

    def draft(self, slug: str) -> GraphDraft:
        """Return the graph record to add, or raise GraphInvalid."""
        record = self.model_dump(exclude={"sample", "every_seconds"})
        return draft_graph({"slug": slug, "schedule": {"every_seconds": self.every_seconds}, **record})


class StackDeclaration(_Declared):
    """The whole stack. Paths are relative to `root`: the folder of `source`, the file that declares it.

    For the file that Syncline brings it is the folder that the command was given in.
    """

    root: Path = Field(exclude=True)
    source: Path = Field(exclude=True)
    state: Path = Path(".syncline")
    temporal: TemporalDeclaration = TemporalDeclaration()
    postgres: PostgresDeclaration = PostgresDeclaration()
    qdrant: QdrantDeclaration = QdrantDeclaration()
    worker: WorkerDeclaration = WorkerDeclaration()
    graphs: dict[str, GraphDeclaration] = Field(default_factory=dict)

    @field_validator("graphs")
    @classmethod
    def _one_default(cls, graphs: dict[str, GraphDeclaration]) -> dict[str, GraphDeclaration]:
        defaults = [slug for slug, graph in graphs.items() if graph.is_default]
        if len(defaults) > 1:
            raise ValueError(f"is_default is true for {' and '.join(defaults)}; keep it on one graph")
        return graphs

    @property
    def state_dir(self) -> Path:
        """The state folder, absolute."""
        return (self.root / self.state).resolve()

    def overridden(self, *, port: int | None, ui_port: int | None, state_dir: Path | None) -> Self:
        """Return this declaration with what the command line says instead.

        With `port` alone the UI moves along to port + 1000, as Temporal's own default does.
        """
        changes: dict[str, int] = {}
        if port is not None:
            changes = {"port": port, "ui_port": port + 1000}
        if ui_port is not None:
            changes["ui_port"] = ui_port
        try:
            temporal = TemporalDeclaration.model_validate({**self.temporal.model_dump(), **changes})
        except ValidationError as error:
            raise DevStackError(
                f"--port/--ui-port: {_problems(error)}. Ports are 1 to 65535; "
                "without --ui-port, --port N takes N+1000 for the Web UI."
            ) from None
        # The command line is relative to where the person stands, the file to itself.
        state = self.state if state_dir is None else state_dir.absolute()
        return self.model_copy(update={"temporal": temporal, "state": state})


def find_declaration(named: Path | None) -> StackDeclaration:
    """Return what the named file declares, else that of this folder, else the one that Syncline brings."""
    if named is not None or _IN_THIS_FOLDER.exists():
        return read_declaration(named or _IN_THIS_FOLDER)
    brought = read_declaration(own_application().stack)
    return brought.model_copy(update={"root": Path.cwd()})


def read_declaration(path: Path) -> StackDeclaration:
    """Return what the file declares, or raise DevStackError naming the file, the key and the fix."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DevStackError(
            f"There is no {path}. Name another file with --config; without, Syncline starts its own."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DevStackError(f"{path} cannot be read: {error}") from error
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DevStackError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise DevStackError(f"{path} must be a mapping with keys such as temporal, postgres and graphs.")
    reserved = {"root", "source"} & content.keys()
    if reserved:
        raise DevStackError(f"{path}: {min(reserved)}: this key is not known; remove it")
    absolute = path.resolve()
    try:
        declaration = StackDeclaration.model_validate(content | {"root": absolute.parent, "source": absolute})
        for slug, graph in declaration.graphs.items():
            draft = graph.draft(slug)
            parse_composition(draft.slug, draft.composition)
    except ValidationError as error:
        raise DevStackError(f"{path}: {_problems(error)}") from None
    except ConfigurationError as error:
        raise DevStackError(f"{path}: {error}") from None
    return declaration


def _problems(error: ValidationError) -> str:
    """Return each problem as `dotted.key: what is wrong; what to do`."""
    known = ", ".join(sorted(StackDeclaration.model_fields.keys() - {"root", "source"}))
    lines: list[str] = []
    for item in error.errors(include_url=False):
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            where = f"the top level knows {known}" if len(item["loc"]) == 1 else "check its spelling"
            problem = f"this key is not known; remove it ({where})"
        elif item["type"] == "value_error":
            problem = str(item["ctx"]["error"])
        elif item["type"] in ("model_type", "dict_type"):
            problem = "must be a mapping; give it keys or remove it"
        else:
            problem = f"{item['msg'][:1].lower()}{item['msg'][1:]}, not {item['input']!r}"
        lines.append(f"{key}: {problem}" if key else problem)
    return "; ".join(lines)
