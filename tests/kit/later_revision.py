"""A copy of the library's revisions with one more on a side: what the next release brings."""

from pathlib import Path
from shutil import copytree

from syncline import migrations
from syncline.migrations.revisions import head_of

__all__ = ["with_later_revision"]

_MODULE = """
from pathlib import Path
from syncline.migrations.revisions import run_script
revision, down_revision = "{side}_later", "{head}"
def upgrade(connection):
    run_script(connection, Path(__file__).with_name("later.sql"))
"""


def with_later_revision(folder: Path, side: str, script: str) -> Path:
    """Return a folder with the revisions of all sides, and on `side` another one of `script`."""
    revisions = Path(migrations.__file__).parent
    for each in ("engine", "control", "graph", "write"):
        copytree(revisions / each, folder / each)
    (folder / side / "later.sql").write_text(script, encoding="utf-8")
    module = _MODULE.format(side=side, head=head_of(side))
    (folder / side / "revision_later.py").write_text(module, encoding="utf-8")
    return folder
