"""Where the application is: in a checkout, or as files inside the wheel. Neither is on anybody's import path.

Other distributions have packages named `workflows` or `activities` too, so a wheel that installed ours would
overwrite theirs (decision 0001). A process that runs `worker.py` as a script finds the rest beside it.
"""

from dataclasses import dataclass
from pathlib import Path

from syncline.errors import ConfigurationError

__all__ = ["Application", "find_application", "own_application"]

_LIBRARY = Path(__file__).parent
_IN_WHEEL = _LIBRARY / "application"


@dataclass(frozen=True)
class Application:
    """A folder with `worker.py`, and with the packages and the `temporal-dev.yaml` that belong to it."""

    folder: Path

    @property
    def worker(self) -> Path:
        """The script of the worker."""
        return self.folder / "worker.py"

    @property
    def stack(self) -> Path:
        """What `syncline dev` starts unless another file is named."""
        return self.folder / "temporal-dev.yaml"

    @property
    def is_installed(self) -> bool:
        """Whether it came with the wheel."""
        return self.folder == _IN_WHEEL

    def __str__(self) -> str:
        """Return which one it is, for messages."""
        return f"the installed Syncline ({self.folder})" if self.is_installed else f"checkout {self.folder}"


def find_application(folder: Path) -> Application:
    """Return the application of the checkout in this folder, else `own_application()`."""
    found = Application(folder.absolute())
    return found if _is_complete(found) else own_application()


def own_application() -> Application:
    """Return the application that belongs to this library, or raise ConfigurationError if there is none."""
    for folder in (_IN_WHEEL, _LIBRARY.parent):
        if _is_complete(Application(folder)):
            return Application(folder)
    raise ConfigurationError(
        f"The worker's files are missing: there is no {_IN_WHEEL / 'worker.py'}. "
        "Install Syncline again, from a wheel that `python -m build` made."
    )


def _is_complete(application: Application) -> bool:
    # Others have a worker.py too, which is not ours to run.
    return application.worker.is_file() and (application.folder / "workflows" / "sync_graph.py").is_file()
