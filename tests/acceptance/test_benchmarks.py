"""The benchmarks of a running stack still run: few changes each, and a report of their own (`make prove`)."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.proof
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("name", "options", "lines"),
    [
        ("waits", ("--singly", "3", "--together", "5"), 5),
        ("freshness", ("--changes", "3", "--seconds", "5", "--rounds", "1"), 3),
    ],
)
def test_benchmark_runs(name: str, options: tuple[str, ...], lines: int, tmp_path: Path) -> None:
    report = shutil.copy(ROOT / "docs/performance.md", tmp_path)
    ran = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *options, "--report", report],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    measured = [
        line
        for line in ran.stdout.splitlines()
        if line.startswith("| ") and ("ms |" in line or " s |" in line)
    ]
    assert len(measured) >= lines, ran.stdout
    assert all(line in Path(report).read_text() for line in measured)
