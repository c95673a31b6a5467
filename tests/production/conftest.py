"""The image, built as `make image` does, over a root file system of Debian's packages.

`make test-production` runs what is here; `make test` does not (hence the name of the files, `check_*.py`).
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kit.wheels import build_wheel

ROOT = Path(__file__).parents[2]
CONTAINERFILE = ROOT / "Containerfile"
_CERTIFICATES = Path("/usr/local/share/ca-certificates")
# As a container is run by compose.yaml and by the chart: its root cannot be written to, /tmp can, and there are
# neither capabilities nor ways to gain any.
_CONTAIN = """
mount --bind "$0" "$0" && mount -o remount,bind,ro "$0"
mount -t tmpfs tmpfs "$0/tmp" && mount --rbind /dev "$0/dev" && mount -t proc proc "$0/proc"
exec chroot "$0" setpriv --reuid "$1" --regid "$1" --clear-groups --no-new-privs --bounding-set -all "${@:2}"
"""


@dataclass(frozen=True)
class Image:
    """A built image: its configuration, and its root file system."""

    config: dict[str, object]
    root: Path

    @property
    def environment(self) -> dict[str, str]:
        """What the image puts into the environment."""
        variables = self.config["Env"]
        assert isinstance(variables, list)
        return dict(variable.split("=", 1) for variable in variables)

    def start(self, *arguments: str, environment: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
        """Start its entry point with these arguments, as its user, as in a container."""
        entry = self.config["Entrypoint"]
        assert isinstance(entry, list)
        return self._start([*entry, *arguments], environment or {})

    def sh(self, script: str) -> str:
        """Run a script in a shell in there, as its user; return what it printed."""
        process = self._start(["/bin/sh", "-euc", script], {})
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, f"{script}\n{said}"
        return said

    def _start(self, command: list[str], environment: Mapping[str, str]) -> "subprocess.Popen[str]":
        user, _, _ = str(self.config["User"]).partition(":")
        return subprocess.Popen(
            ["unshare", "--mount", "bash", "-euc", _CONTAIN, str(self.root), user, *command],
            env={**self.environment, "PATH": f"{self.environment['PATH']}:/usr/sbin:/sbin", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    """The image of this tree. Not in memory: it takes a gigabyte while it is built."""
    if missing := [
        tool for tool in ("buildah", "mmdebstrap", "unshare", "setpriv") if not shutil.which(tool)
    ]:
        pytest.fail(f"{', '.join(missing)}: not installed. On Debian: apt-get install buildah mmdebstrap")
    with tempfile.TemporaryDirectory(prefix="syncline-image-", dir="/var/tmp") as name:
        folder = Path(name)
        buildah = [
            "buildah",
            "--root",
            f"{name}/images",
            "--runroot",
            f"{name}/run",
            "--storage-driver",
            "vfs",
        ]

        def run(*arguments: str | Path) -> str:
            command = [*buildah, *map(str, arguments)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
            return done.stdout.strip()

        base = "localhost/base:of-packages"
        [suite] = re.findall(r"^ARG BASE=\S+debian:(\w+)-slim$", CONTAINERFILE.read_text(), re.MULTILINE)
        _import_base(run, folder / "base.tar", suite, base)
        context = folder / "context"
        build_wheel(ROOT, context / "dist")
        for file in ("constraints-runtime.txt", ".dockerignore"):
            shutil.copy(ROOT / file, context)
        run(
            "build", "--isolation", "chroot", "--network", "host", "--build-arg", f"BASE={base}",
            "--file", CONTAINERFILE, "--tag", "syncline", context,
        )  # fmt: skip
        config = json.loads(run("inspect", "--type", "image", "syncline"))["OCIv1"]["config"]
        # This store of images keeps folders, so that nothing stays mounted and all goes with the folder.
        yield Image(config, Path(run("mount", run("from", "--pull-never", "syncline"))))


def _import_base(run: object, archive: Path, suite: str, name: str) -> None:
    """Make the base that the Containerfile names, of the packages that it is made of, as an image."""
    assert callable(run)
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=minbase", suite, str(archive)], check=True, env=os.environ
    )
    container = run("from", "scratch")
    root = Path(run("mount", container))
    subprocess.run(["tar", "--extract", "--file", str(archive), "--directory", str(root)], check=True)
    archive.unlink()
    # Where a proxy with an authority of its own is in the way, the build has to know it as this machine does.
    for certificate in _CERTIFICATES.glob("*.crt"):
        (root / _CERTIFICATES.relative_to("/")).mkdir(parents=True, exist_ok=True)
        shutil.copy(certificate, root / _CERTIFICATES.relative_to("/"))
    run("umount", container)
    run("commit", "--rm", container, name)
