"""A newcomer's walk: the commands of docs/tutorial.md, typed in order, print what the page promises.

`make test-ui` runs this; `make test` does not, since it takes a stack of its own (hence the name of the file).
"""

import re
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import RunningStack

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text()
IN_THE_FIRST_TERMINAL = "\n```\nmake run\n```\n"
STEP = re.compile(r"^```sh\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)

# A run that begins while another is at it does nothing, and says so by its status. A person would say it again.
PATIENCE = """
syncline() {
    while true; do
        local status=0
        command syncline "$@" || status=$?
        [ "$status" = 3 ] || return "$status"
        sleep 1
    done
}
"""

pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True)
class Terminal:
    """A person's second terminal: what is defined in it stays."""

    shell: "subprocess.Popen[str]"

    def type(self, commands: str) -> str:
        """Return what the commands print; fail where one of them does."""
        assert self.shell.stdin is not None
        assert self.shell.stdout is not None
        self.shell.stdin.write(f"{commands}\necho '<end>'\n")
        self.shell.stdin.flush()
        printed = []
        for line in self.shell.stdout:
            if line == "<end>\n":
                return "".join(printed)
            printed.append(line)
        pytest.fail(f"{commands}\nended the shell:\n{''.join(printed)}")

    def walk(self, part: str) -> None:
        """Type each block of this part of the page, and look for what it promises."""
        for commands, promised in STEP.findall(part):
            printed = self.type(commands)
            assert missing(promised, printed) == [], f"{commands}\nprinted:\n{printed}"
            if "activate" in commands:
                self.type(PATIENCE)


def missing(promised: str, printed: str) -> list[str]:
    """Return the promised lines that were not printed, in that order; `…` stands for anything."""
    rest, absent = iter([" ".join(line.split()) for line in printed.splitlines()]), []
    for line in promised.splitlines():
        pattern = ".*".join(re.escape(" ".join(words.split())) for words in line.split("…"))
        if not any(re.search(pattern, shown) for shown in rest):
            absent.append(line)
    return absent


def test_from_a_clone_to_tables_of_ones_own(
    newcomer: 'Callable[[], AbstractContextManager["RunningStack"]]',
) -> None:
    _, page = PAGE.split(IN_THE_FIRST_TERMINAL)
    with newcomer() as stack:
        shell = subprocess.Popen(
            ["bash", "-e"],
            cwd=stack.folder,
            env=stack.environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        with shell:
            Terminal(shell).walk(page)
            shell.communicate("exit\n")


def test_every_step_of_the_page_is_typed() -> None:
    assert len(STEP.findall(PAGE)) == PAGE.count("```sh")
    assert len([promised for _, promised in STEP.findall(PAGE) if promised]) == PAGE.count("```text")


def test_a_promise_that_is_not_kept_is_seen() -> None:
    assert missing("a … c\nd", "x\na b c\nd\n") == []
    assert missing("d\na", "a\nd\n") == ["a"]
