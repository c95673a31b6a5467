"""Rules of a graph's vectors, part of its record: the budget of tokens, and how collections are kept."""

from pydantic import BaseModel, ConfigDict, Field

from syncline.stores.collection_options import CollectionOptions

__all__ = ["VectorRules"]


class VectorRules(BaseModel):
    """How a graph's vectors are made and kept."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_serialization_defaults_required=True,
    )

    tokens_per_day: int | None = Field(default=None, ge=1, le=10**15)
    """Tokens that its cycles, and its shadow's, may have embedded a day (UTC); null: no limit."""
    collections: CollectionOptions = CollectionOptions()
