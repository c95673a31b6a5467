"""What `syncline provider new` writes, and what it refuses."""

import tomllib
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from syncline.cli import app


def new(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["provider", "new", *arguments], env={"COLUMNS": "300"})


def test_a_project_is_written_and_named_file_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = new("acme-sync")
    assert said.exit_code == 0
    written = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert {Path(line) for line in said.stdout.split("\n\n")[0].splitlines()} == written
    assert "cd acme-sync" in said.stdout
    project = tomllib.loads((tmp_path / "acme-sync" / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["syncline.providers"] == {"acme-sync": "acme_sync:AcmeSyncProvider"}
    assert "$" not in "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("Acme", "is no id of a provider"),
        ("acme--sync", "is no id of a provider"),
        ("acme-", "is no id of a provider"),
        ("default", "ships with Syncline"),
        ("json", "cannot be the name of its package"),
        ("syncline", "cannot be the name of its package"),
        ("class", "cannot be the name of its package"),
    ],
)
def test_a_name_that_cannot_be_is_refused(name: str, problem: str, tmp_path: Path) -> None:
    said = new(name, "--into", str(tmp_path / "there"))
    assert said.exit_code == 2
    assert problem in said.stderr
    assert not (tmp_path / "there").exists()


def test_a_folder_that_has_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("do not touch")
    for folder in (tmp_path, tmp_path / "mine.txt"):
        said = new("acme", "--into", str(folder))
        assert said.exit_code == 2
        assert "is not an empty folder" in said.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    assert new("acme", "--into", str(tmp_path / "empty")).exit_code == 0
