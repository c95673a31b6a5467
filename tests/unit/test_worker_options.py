"""The code of modules that are imported again and again."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncline.temporal.worker_options import compile_once


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package `again` that is compiled once, and whose bytecode is kept nowhere."""
    folder = tmp_path / "again"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "module.py").write_text("things = []\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "path_importer_cache", dict(sys.path_importer_cache))
    compile_once(importlib.import_module("again"))
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "again"]:
        del sys.modules[name]


def test_a_module_is_made_anew_from_code_that_is_not_compiled_again(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = importlib.import_module("again.module")
    del sys.modules["again.module"]
    monkeypatch.setattr(
        "importlib.machinery.SourceFileLoader.source_to_code", lambda *_, **__: pytest.fail("compiled")
    )
    second = importlib.import_module("again.module")
    assert second is not first
    assert second.things is not first.things
    assert second.__file__ == str(package / "module.py")


def test_what_is_not_there_is_still_not_there(package: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"again\.nothing"):
        importlib.import_module("again.nothing")
