"""In-memory bytecode cache for modules that the workflow sandbox imports in every run."""

import sys
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import ClassVar

__all__ = ["compile_once"]


def compile_once(package: ModuleType) -> None:
    """Cache the code objects of the package's modules in memory, from their next import on.

    Images often set PYTHONDONTWRITEBYTECODE, or have a read-only file system. The sandbox imports the
    workflow's module again in each run, and would compile it each time. Why not `sys.pycache_prefix`:
    docs/decisions/0012-workflow-sandbox.md.
    """
    for folder in package.__path__:
        sys.path_importer_cache[folder] = FileFinder(folder, (_Loader, SOURCE_SUFFIXES))


class _Loader(SourceFileLoader):
    _codes: ClassVar[dict[str, CodeType | None]] = {}

    def get_code(self, fullname: str) -> CodeType | None:
        if fullname not in self._codes:
            self._codes[fullname] = super().get_code(fullname)
        return self._codes[fullname]
