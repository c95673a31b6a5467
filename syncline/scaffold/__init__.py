"""A new plugin's project: what `syncline provider new` writes."""

import keyword
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Final

__all__ = ["PluginName", "write_project"]

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
# Where each template goes; in a path, too, $package is the plugin's.
_PLACES: Final = {
    "pyproject": "pyproject.toml",
    "readme": "README.md",
    "ci": ".github/workflows/test.yml",
    "provider": "src/$package/__init__.py",
    "tests": "tests/test_$package.py",
}


@dataclass(frozen=True)
class PluginName:
    """The id of a provider, and the names that follow from it. Raise ValueError for one that cannot be."""

    id: str

    def __post_init__(self) -> None:
        """Refuse what is no id of a provider, or no name of a package of its own."""
        if not _NAME.fullmatch(self.id):
            raise ValueError(
                f"'{self.id}' is no id of a provider: it is lower-case letters and digits, in words with '-' "
                "between them, and begins with a letter, such as 'acme-sync'"
            )
        if self.id == "default":
            raise ValueError("'default' is the provider that ships with Syncline; take another id")
        taken = {*sys.stdlib_module_names, "syncline", "tests"}
        if self.package in taken or keyword.iskeyword(self.package):
            raise ValueError(f"'{self.package}' cannot be the name of its package; take another id")

    @property
    def package(self) -> str:
        """The import name."""
        return self.id.replace("-", "_")

    @property
    def words(self) -> str:
        """The beginning of the names of its classes."""
        return "".join(word.capitalize() for word in self.id.split("-"))


def write_project(name: PluginName, folder: Path) -> Sequence[Path]:
    """Write the project into a folder that is new or empty; return its files.

    Raise FileExistsError if the folder has something in it, or is a file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is there and is not an empty folder")
    fields = {"name": name.id, "package": name.package, "words": name.words}
    templates = files("syncline.scaffold") / "templates"
    texts = {"src/$package/py.typed": ""} | {
        place: templates.joinpath(f"{template}.txt").read_text(encoding="utf-8")
        for template, place in _PLACES.items()
    }
    written = []
    for place, text in texts.items():
        path = folder / Template(place).substitute(fields)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(Template(text).substitute(fields), encoding="utf-8")
        written.append(path)
    return sorted(written)
