"""Composition of a graph: the provider of each kind of work, with its options."""

from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from syncline import names
from syncline.errors import CompositionInvalid
from syncline.provider import KINDS, ProviderKind

__all__ = [
    "Composition",
    "ProviderEntry",
    "composition_invalid",
    "declared_provider",
    "own_provider",
    "parse_composition",
    "swapped",
]


class ProviderEntry(BaseModel):
    """The provider of one kind of work for a graph."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    provider: str = Field(min_length=1)
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Options, validated by the provider's options model where the provider runs."""
    on_missing: Literal["fallback", "hold", "fail"] | None = None
    """If no worker has it: use the built-in engine (`fallback`), sync nothing until a worker has it (`hold`),
    or `fail`. Null: `hold` if the provider declares itself required, otherwise `fallback`."""


class Composition(BaseModel):
    """The provider entry of each kind, and that of the graph's shadow, if it has one."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    sync: ProviderEntry | None = None
    fact_decomposition: ProviderEntry | None = None
    definition: ProviderEntry | None = None
    source_cache: ProviderEntry | None = None
    source_contribution: ProviderEntry | None = None
    dimensions: ProviderEntry | None = None
    relations: ProviderEntry | None = None
    shadow: ProviderEntry | None = None
    """Sync provider of the shadow, whose cycles do not touch the live graph. Held if no worker has it, never
    in fallback: its `on_missing` applies after a promotion."""

    def entry(self, kind: ProviderKind, *, shadow: bool = False) -> ProviderEntry | None:
        """Return the entry of a kind; with `shadow`, that of the shadow."""
        declared: ProviderEntry | None = getattr(self, "shadow" if shadow else kind)
        if shadow and declared is not None:
            return declared.model_copy(update={"on_missing": "hold"})
        return declared

    def declared(self) -> Iterator[tuple[ProviderKind, ProviderEntry, bool]]:
        """Yield each kind with its entry, and whether the entry is the shadow's."""
        for kind in KINDS:
            entry = self.entry(kind)
            if entry is not None:
                yield kind, entry, False
        if self.shadow is not None:
            yield "sync", self.shadow, True


def parse_composition(slug: str, raw: Mapping[str, JsonValue]) -> Composition:
    """Return the composition of graph `slug`, or raise CompositionInvalid naming the graph and the key."""
    try:
        return Composition.model_validate(dict(raw))
    except ValidationError as error:
        raise composition_invalid(slug, "", error) from None


def declared_provider(slug: str, raw: Mapping[str, JsonValue], kind: ProviderKind) -> str | None:
    """Return the provider id of the kind; None if there is none, or if the composition is invalid."""
    try:
        entry = parse_composition(slug, raw).entry(kind)
    except CompositionInvalid:
        return None
    return None if entry is None else entry.provider


def own_provider(raw: Mapping[str, JsonValue]) -> JsonValue:
    """Return the composition's entry of the sync provider: an undeclared one is the built-in engine."""
    return raw.get("sync") or {"provider": names.DEFAULT_PROVIDER}


def swapped(raw: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the composition after a promotion: the shadow's provider serves the graph, and vice versa."""
    if not raw.get("shadow"):
        return dict(raw)
    return {**raw, "sync": raw["shadow"], "shadow": own_provider(raw)}


def composition_invalid(
    slug: str, under: str, error: ValidationError, *, by: str | None = None
) -> CompositionInvalid:
    """Return the first problem of a composition by its dotted key, without values: they may be secrets."""
    first = error.errors(include_input=False, include_url=False)[0]
    path = [str(part) for part in first["loc"]]
    problem = first["msg"].removeprefix("Value error, ")
    if (
        path[-1:] == ["str"] and first["type"] == "string_type"
    ):  # the first branch of a union, which is no key
        path, problem = path[:-1], "a text or a whole number is wanted"
    if first["type"] == "extra_forbidden":
        problem = "unknown key"
        if not under and len(path) == 1:
            problem += f"; known are {', '.join(Composition.model_fields)}"
    if by is not None:
        problem += f" (from {by})"
    return CompositionInvalid(slug, ".".join([under, *path] if under else path), problem)
