"""Pages of which a part is written by a benchmark or a proof: what stands between two marks."""

from collections.abc import Iterable, Mapping
from pathlib import Path

__all__ = ["marked_lines", "one_row", "replace_between", "replace_lines"]


def replace_between(page: Path, begin: str, end: str, text: str) -> None:
    """Replace what stands between two marks of a page."""
    before, _, rest = page.read_text("utf-8").partition(begin)
    _, _, after = rest.partition(end)
    page.write_text(f"{before}{begin}{text}{end}{after}", "utf-8")


def replace_lines(page: Path, mark: str, lines: Iterable[str]) -> None:
    """Replace the lines between `<!-- MARK -->` and `<!-- /MARK -->`."""
    text = "".join(f"{line}\n" for line in lines)
    replace_between(page, f"<!-- {mark} -->\n", f"<!-- /{mark} -->", text)


def marked_lines(page: Path, mark: str) -> list[str]:
    """Return the lines between `<!-- MARK -->` and `<!-- /MARK -->`."""
    _, _, rest = page.read_text("utf-8").partition(f"<!-- {mark} -->\n")
    return rest.partition(f"<!-- /{mark} -->")[0].splitlines()


def one_row(cells: Mapping[str, str]) -> list[str]:
    """Return the lines of a table of numbers with one row."""
    return [
        "| " + " | ".join(cells) + " |",
        "|" + "--:|" * len(cells),
        "| " + " | ".join(cells.values()) + " |",
    ]
