"""The aliases of an embedded vector store: one file in its folder, replaced as a whole. Blocks shortly."""

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

__all__ = ["EdgeAliases"]

_FILE: Final = ".aliases.json"
_NAMES: Final = TypeAdapter(dict[str, str])


class EdgeAliases:
    """The aliases in one folder, shared by the processes that use it. Raises OSError and ValidationError."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._file = folder, folder / _FILE
        self._known: tuple[tuple[int, int], Mapping[str, str]] | None = None

    def read(self) -> Mapping[str, str]:
        """Return alias -> collection."""
        try:
            found = self._file.stat()
        except FileNotFoundError:
            return {}
        # A replaced file is another file; it is read once.
        version = found.st_ino, found.st_mtime_ns
        if self._known is None or self._known[0] != version:
            self._known = version, _NAMES.validate_json(self._file.read_bytes())
        return self._known[1]

    def collection_of(self, name: str) -> str:
        """Return the collection that this alias leads to; the name itself if it is none."""
        return self.read().get(name, name)

    def change(self, change: Callable[[Mapping[str, str]], Mapping[str, str]]) -> None:
        """Replace the aliases by what `change` makes of them, unless those are the same."""
        with self._locked():
            present = self.read()
            changed = change(present)
            if changed == present:
                return
            aside = self._file.with_suffix(".new")
            with aside.open("w") as file:
                json.dump(dict(changed), file)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self._file)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # Beside the locks of collections, whose names never begin with a dot.
        locks = self._folder / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        with (locks / _FILE).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
