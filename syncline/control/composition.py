"""What a graph declares to be served by: which provider for which kind of work, with which options."""

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
    "parse_composition",
    "swapped",
]


class ProviderEntry(BaseModel):
    """Which provider serves one kind of work for a graph."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    provider: str = Field(min_length=1)
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Validated by the provider's own options model, where the provider runs."""
    on_missing: Literal["fallback", "hold", "fail"] | None = None
    """When no worker has it: use the built-in engine, sync nothing until one has it, or fail. None: `hold` if
    the provider has said that nothing can stand in for it, else `fallback`."""


class Composition(BaseModel):
    """Kind of provider -> what serves it; and what serves the graph's shadow, if it has one."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    sync: ProviderEntry | None = None
    fact_decomposition: ProviderEntry | None = None
    definition: ProviderEntry | None = None
    source_cache: ProviderEntry | None = None
    source_contribution: ProviderEntry | None = None
    dimensions: ProviderEntry | None = None
    relations: ProviderEntry | None = None
    shadow: ProviderEntry | None = None
    """A sync provider whose cycles go beside the live result; it is held when nobody has it, and never falls
    back: `on_missing` is for the time after a promotion."""

    def entry(self, kind: ProviderKind, *, shadow: bool = False) -> ProviderEntry | None:
        """Return what is declared for a kind; with `shadow`, for the shadow of that kind."""
        declared: ProviderEntry | None = getattr(self, "shadow" if shadow else kind)
        if shadow and declared is not None:
            return declared.model_copy(update={"on_missing": "hold"})
        return declared

    def declared(self) -> Iterator[tuple[ProviderKind, ProviderEntry, bool]]:
        """Yield each kind with the entry that is declared for it, and whether that is the shadow's."""
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
    """Return the id that the composition names for the kind; None without one, and if it is invalid."""
    try:
        entry = parse_composition(slug, raw).entry(kind)
    except CompositionInvalid:
        return None
    return None if entry is None else entry.provider


def swapped(raw: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the composition after a promotion: what served the shadow, serves the graph."""
    if not raw.get("shadow"):
        return dict(raw)
    # What an undeclared provider is, by its name.
    before: JsonValue = raw.get("sync") or {"provider": names.DEFAULT_PROVIDER}
    return {**raw, "sync": raw["shadow"], "shadow": before}


def composition_invalid(
    slug: str, under: str, error: ValidationError, *, by: str | None = None
) -> CompositionInvalid:
    """Return the first problem of a composition by its dotted key, without inputs: they may hold secrets."""
    first = error.errors(include_input=False, include_url=False)[0]
    path = [str(part) for part in first["loc"]]
    problem = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        problem = "unknown key"
        if not under and len(path) == 1:
            problem += f"; known are {', '.join(Composition.model_fields)}"
    if by is not None:
        problem += f" (so says {by})"
    return CompositionInvalid(slug, ".".join([under, *path] if under else path), problem)
