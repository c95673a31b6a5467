"""Private folders (mode 700) for rows, logs and addresses of stores."""

from pathlib import Path

__all__ = ["make_private"]

_OWNER_ONLY = 0o700


def make_private(folder: Path) -> None:
    """Create the folder and its missing parents, accessible only to the user; raise OSError.

    An existing folder is not changed.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir(mode=_OWNER_ONLY, exist_ok=True)
