"""Distributions with providers of the zoo, installed for a test."""

import re
import shutil
from pathlib import Path

PLUGIN = Path(__file__).parent / "zoo_plugin.py"


def kinds() -> list[str]:
    """The names of the classes."""
    return re.findall(r"^class (\w+)\(Provider\)", PLUGIN.read_text(encoding="utf-8"), flags=re.MULTILINE)


def install(folder: Path, distribution: str, **points: str) -> None:
    """Install version 1.0 of a distribution with these entry points into a folder of sys.path."""
    shutil.copy(PLUGIN, folder)
    info = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    lines = ["[syncline.providers]", *(f"{name} = {value}" for name, value in points.items()), ""]
    (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
