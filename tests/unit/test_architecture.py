"""docs/architecture.md leads to code that exists: each hop of the road, each room, each place of a change."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
LAYERS = ["workflows", "activities", "providers", "syncline"]
"""From the top down."""


def section(heading: str) -> str:
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def hops(marker: str) -> list[tuple[str, str]]:
    """Return file and qualified name of every line of the road that begins with the marker."""
    found = re.findall(rf"^{marker} `([^`:]+):([^`]+)`", section("The one road of the data"), re.MULTILINE)
    return [(file, name) for file, name in found]


DOWN, BACK = hops(r"\d+\."), hops("-")


def table(heading: str) -> list[list[str]]:
    """Return the cells of each row of a section's table."""
    rows = re.findall(r"^\| (.*) \|$", section(heading), re.MULTILINE)[1:]
    return [row.split(" | ") for row in rows]


def defined(file: str) -> set[str]:
    """Return the qualified names of a module's functions and methods."""
    found = set()

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(prefix + node.name)
            elif isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}.")

    visit(ast.parse((ROOT / file).read_text(encoding="utf-8")).body, "")
    return found


@pytest.mark.parametrize(("file", "function"), [*DOWN, *BACK])
def test_road_hop_exists(file: str, function: str) -> None:
    assert function in defined(file)


def test_road_has_every_hop_on_one_numbered_line() -> None:
    numbers = re.findall(r"^(\d+)\. ", section("The one road of the data"), re.MULTILINE)
    assert numbers == [str(number) for number in range(1, len(DOWN) + 1)]
    assert len(DOWN) >= 15
    assert BACK


def test_road_never_climbs() -> None:
    """Within each part of the road a hop is in the layer of the one before it, or below."""
    parts = re.split(r"^\*\*", section("The one road of the data"), flags=re.MULTILINE)
    for part in parts:
        layers = [LAYERS.index(layer) for layer in re.findall(r"^\d+\. `(\w+)/", part, re.MULTILINE)]
        assert layers == sorted(layers), part


def test_rooms_exist() -> None:
    named = [place for row in table("Rooms") for place in re.findall(r"`([^`]+)`", row[0])]
    assert len(named) > 15
    assert [place for place in named if not (ROOT / place).exists()] == []


def test_rooms_have_every_folder_of_the_library() -> None:
    named = {place.rstrip("/") for row in table("Rooms") for place in re.findall(r"`([^`]+)`", row[0])}
    folders = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "syncline").glob("*/__init__.py")}
    assert folders - named == set()


def test_each_change_leads_to_one_file() -> None:
    changes = table("Where a change belongs")
    assert len(changes) == 10
    places = [re.findall(r"`((?:syncline|workflows|activities)/[^`]+)`", row[1]) for row in changes]
    assert [place for place in places if len(place) != 1] == []
    assert [place for [place] in places if not (ROOT / place).is_file()] == []
