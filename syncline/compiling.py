"""What a sandbox imports in every run is compiled once, wherever Python keeps no bytecode."""

import sys
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import ClassVar

__all__ = ["compile_once"]


def compile_once(package: ModuleType) -> None:
    """Keep the code of the package's modules in memory, from their next import on.

    Images often set PYTHONDONTWRITEBYTECODE, or have their code where it cannot be written to. Each run of a
    workflow imports the workflow's module anew, and would compile it then. Why not `sys.pycache_prefix`:
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
