"""What a stack prints once nobody can read it."""

import os
import pty
from collections.abc import Callable

import pytest
from rich.console import Console

from syncline.devstack.output import EndingOutput


@pytest.mark.parametrize("opened", [os.pipe, pty.openpty])
def test_output_that_ends_is_told_once_and_no_error(opened: Callable[[], tuple[int, int]]) -> None:
    reader, writer = opened()
    told: list[str] = []
    with os.fdopen(writer, "w") as stream:
        console = Console(file=EndingOutput(stream, lambda: told.append("ended")))  # type: ignore[arg-type] # it is text
        console.print("read")
        assert os.read(reader, 100).strip() == b"read"
        assert told == []
        os.close(reader)
        for _ in range(3):
            console.print("not read")
        assert told == ["ended"]
