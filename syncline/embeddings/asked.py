"""The fields of a request that not every service takes, and what is left out after a refusal."""

from dataclasses import dataclass, replace
from typing import Final

__all__ = ["Asked"]

_UNNAMED: Final = {400, 422}
"""Statuses with which services refuse a field that they do not know, also without naming it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The fields of a request that not every service takes."""

    base64: bool
    dimensions: bool

    def less(self, status: int, body: bytes) -> "Asked | None":
        """Return what to ask instead after a refusal; None if it is about something else."""
        said = body[:100_000].decode(errors="replace").lower()
        if self.base64 and ("encoding_format" in said or "base64" in said):
            return replace(self, base64=False)
        if self.dimensions and ("dimension" in said or "matryoshka" in said):
            return replace(self, dimensions=False)
        if status not in _UNNAMED:
            return None
        if self.base64:
            return replace(self, base64=False)
        return replace(self, dimensions=False) if self.dimensions else None
