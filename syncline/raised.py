"""What a plugin's code has raised, in words for its author: type, message without values, file and line."""

from pathlib import Path
from traceback import walk_tb
from typing import Final

from syncline.masking import error_text

__all__ = ["PROGRAMMING_ERRORS", "described", "place"]

PROGRAMMING_ERRORS: Final = (
    TypeError,
    AttributeError,
    NameError,
    ImportError,
    NotImplementedError,
    SyntaxError,
)
"""What says that code is wrong rather than that something is away: another attempt raises it again."""

_NO_FILE: Final = "<"
"""Begins the file name of code without a file, such as `<frozen importlib._bootstrap>`."""


def described(error: BaseException, package: str = "") -> str:
    """Return `TypeError: message (at acme_sync/engine.py:41 in merge)`, without row values and credentials.

    `package` is the plugin's: its innermost frame is named rather than that of a library it calls.
    """
    said, where = error_text(error), place(error, package)
    return type(error).__name__ + (f": {said}" if said else "") + (f" (at {where})" if where else "")


def place(error: BaseException, package: str = "") -> str:
    """Return `acme_sync/engine.py:41 in merge`, the innermost frame of the package, else of all, or ""."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}:{error.lineno}"
    found = ""
    for frame, line in walk_tb(error.__traceback__):
        file, module = frame.f_code.co_filename, str(frame.f_globals.get("__name__", ""))
        if file.startswith(_NO_FILE) or (package and module.partition(".")[0] != package):
            continue
        folders = module.count(".") + (Path(file).stem == "__init__")
        shown = "/".join(Path(file).parts[-1 - folders :])
        found = f"{shown}:{line}" + (
            f" in {frame.f_code.co_name}" if frame.f_code.co_name != "<module>" else ""
        )
    return found or (place(error) if package else "")
