"""Folders that are their user's alone: rows, logs and addresses of stores are nobody else's to read."""

from pathlib import Path

__all__ = ["make_private"]

_OWNER_ONLY = 0o700


def make_private(folder: Path) -> None:
    """Make the folder, and those above it that are missing, for their user alone; raise OSError.

    One that is there stays as it is.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir(mode=_OWNER_ONLY, exist_ok=True)
