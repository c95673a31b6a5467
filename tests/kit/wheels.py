"""Wheels and virtual environments of a test's own: what is installed where, as on a deployed machine.

Nothing is downloaded but for a bare environment: what the wheels of others depend on is borrowed from the environment
that runs the test.
"""

import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from syncline.devstack.temporal_server import temporal_binary

__all__ = ["build_wheel", "install", "make_bare_environment", "make_environment", "uninstall"]

_ROOT = Path(__file__).parents[2]


def build_wheel(project: Path, into: Path) -> Path:
    """Build the wheel of the project in this folder, put it into another, and return it."""
    into.mkdir(parents=True, exist_ok=True)
    # As `pip wheel` does, and without its seconds: hatchling is what the projects here are built by.
    _run(Path(sys.executable), "hatchling", "build", "-t", "wheel", "-d", str(into.resolve()), cwd=project)
    return max(into.glob("*.whl"), key=lambda wheel: wheel.stat().st_mtime_ns)


def make_environment(folder: Path, *wheels: Path) -> Path:
    """Make a virtual environment with these wheels, and return its Python.

    It also sees whatever the present environment has, but nothing that is installed there as editable: what
    it has of Syncline is the wheel that was given.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    # Before anything is borrowed, or pip would find the wheels' names installed already.
    install(python, *wheels)
    [site] = folder.glob("lib/python*/site-packages")
    # Only this line is read: not the .pth files of the folder that it names.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    python.with_name("temporal").symlink_to(temporal_binary())
    return python


def make_bare_environment(folder: Path, requirement: str) -> Path:
    """Make a virtual environment with this and what it requires, in the pinned versions; return its Python."""
    venv.create(folder, with_pip=True, symlinks=True)
    python = folder / "bin" / "python"
    pins = folder / "pins.txt"
    # With their hashes, pip would want one of the wheel that was built here as well.
    hashed = (_ROOT / "constraints.txt").read_text(encoding="utf-8")
    pins.write_text(re.sub(r" *\\\n +--hash=\S+", "", hashed), encoding="utf-8")
    _run(python, "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(pins), requirement)
    return python


def install(python: Path, *wheels: Path) -> None:
    """Install wheels into an environment; another version of the same is replaced."""
    _pip(python, "install", "--no-index", "--no-deps", "--no-compile", "--force-reinstall", *map(str, wheels))


def uninstall(python: Path, *names: str) -> None:
    """Uninstall distributions from an environment."""
    _pip(python, "uninstall", "--yes", *names)


def _pip(python: Path, *arguments: str) -> None:
    quiet = ("--quiet", "--disable-pip-version-check", "--no-input", "--no-cache-dir")
    _run(Path(sys.executable), "pip", *quiet, "--python", str(python), *arguments)


def _run(python: Path, module: str, *arguments: str, cwd: Path | None = None) -> None:
    done = subprocess.run(
        [python, "-m", module, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise AssertionError(f"{module} {' '.join(arguments)}\n{done.stdout}{done.stderr}")
