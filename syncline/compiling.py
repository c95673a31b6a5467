"""What a sandbox imports in every run is compiled once, wherever Python keeps no bytecode."""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import ClassVar

__all__ = ["compile_once"]


def compile_once(package: str) -> None:
    """Keep the code of the package's modules in memory, from their next import on.

    Images often set PYTHONDONTWRITEBYTECODE, or have their code where it cannot be written to. Each run of a
    workflow imports the workflow's module anew, and would compile it then.
    """
    sys.meta_path.insert(0, _Finder(package))


class _Finder:
    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] != self._package:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    _codes: ClassVar[dict[str, CodeType | None]] = {}

    def get_code(self, fullname: str) -> CodeType | None:
        if fullname not in self._codes:
            self._codes[fullname] = super().get_code(fullname)
        return self._codes[fullname]
