"""Settings of a graph's collections, as its record has them; what is None is left to the vector store."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["CollectionOptions"]

_Factor = Annotated[int, Field(ge=1, le=1_000)]


class CollectionOptions(BaseModel):
    """Storage, index and replicas of each collection of a graph on a Qdrant server."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_serialization_defaults_required=True,
    )

    vectors_on_disk: bool | None = None
    payload_on_disk: bool | None = None
    hnsw_m: int | None = Field(default=None, ge=0, le=10_000)
    """Edges of a point in the index; 0: no index."""
    hnsw_ef_construct: int | None = Field(default=None, ge=4, le=100_000)
    hnsw_on_disk: bool | None = None
    quantization: Literal["scalar", "binary", "none"] | None = None
    """`scalar` keeps a byte, `binary` a bit of each component for the search; `none` ends it."""
    shards: _Factor | None = None
    """Fixed when a collection is made."""
    replication_factor: _Factor | None = None
    write_consistency_factor: _Factor | None = None

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the settings that are not left to the store."""
        return tuple(name for name, value in self if value is not None)
