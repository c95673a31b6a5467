"""Passwords for logins: from the connection string, a command, PGPASSWORD or a password file.

Read for each new connection, so that a changed password needs no restart.
"""

import asyncio
import os
import re
import stat
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from syncline.errors import StoreUnavailable, StoreUnusable
from syncline.stores.dsn import Dsn, Host

__all__ = ["PasswordCommand", "Passwords"]

_SECONDS: Final = 15.0
_KEPT_SECONDS: Final = 60.0
"""A cloud identity token is valid for about 15 minutes, and connections are opened in bursts."""
_LONGEST: Final = 100_000
_FIELD: Final = re.compile(r"((?:[^:\\]|\\.)*)(?::|$)")
_ESCAPED: Final = re.compile(r"\\(.)")


class PasswordCommand:
    """A program that prints the password of one store. Run without a shell."""

    def __init__(self, store: str, words: Sequence[str], dsn: Dsn) -> None:
        self._store, self._words = store, tuple(words)
        self._environment = {
            "PGHOST": dsn.hosts[0].name,
            "PGPORT": str(dsn.hosts[0].port),
            "PGUSER": dsn.user,
            "PGDATABASE": dsn.database,
        }
        self._kept: tuple[float, SecretStr] | None = None
        self._turn = asyncio.Lock()

    async def password(self) -> SecretStr:
        """Return the password, cached for at most a minute.

        Raises StoreUnusable when the program is missing, StoreUnavailable when it fails: a service that it
        needs may be down. Neither quotes its output.
        """
        async with self._turn:
            if self._kept is None or time.monotonic() - self._kept[0] > _KEPT_SECONDS:
                self._kept = time.monotonic(), await self._run()
            return self._kept[1]

    def discard(self) -> bool:
        """Clear the cached password; return whether there was one."""
        kept, self._kept = self._kept, None
        return kept is not None and time.monotonic() - kept[0] > 1

    async def _run(self) -> SecretStr:
        problem = None
        try:
            process = await asyncio.create_subprocess_exec(
                *self._words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={**os.environ, **self._environment},
            )
        except (OSError, ValueError) as error:
            problem = (getattr(error, "strerror", None) or type(error).__name__).lower()
        if problem is not None:
            raise StoreUnusable(self._store, f"its password command cannot be run ({problem}).")
        try:
            async with asyncio.timeout(_SECONDS):
                said, _ = await process.communicate()
        except TimeoutError:
            said = b""
            problem = f"gave no password within {_SECONDS:g} s"
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if problem is None and process.returncode:
            problem = f"ended with status {process.returncode}"
        password = said.decode(errors="replace").rstrip("\r\n")
        if problem is None and not (0 < len(password) < _LONGEST and password.isprintable()):
            problem = "wrote no password: one line is expected on its standard output"
        if problem is not None:
            raise StoreUnavailable(self._store, f"its password command {problem}")
        return SecretStr(password)


class Passwords:
    """The passwords of one store."""

    def __init__(self, store: str, dsn: Dsn, command: PasswordCommand | None) -> None:
        self._store, self._dsn, self._command = store, dsn, command

    async def of(self, host: Host) -> SecretStr | None:
        """Return the login password, None if there is none."""
        if self._dsn.password is not None:
            return self._dsn.password
        if self._command is not None:
            return await self._command.password()
        given = os.environ.get("PGPASSWORD")
        return SecretStr(given) if given else self._filed(host, os.environ)

    def may_have_changed(self) -> bool:
        """Return whether another read may give a password other than the rejected one."""
        return self._command is not None and self._command.discard()

    def _filed(self, host: Host, environment: Mapping[str, str]) -> SecretStr | None:
        """Return the password file's entry for the host, as libpq reads it."""
        named = self._dsn.passfile or (Path(found) if (found := environment.get("PGPASSFILE")) else None)
        problem = None
        try:
            path = named or Path.home() / ".pgpass"
            if not path.is_file():
                problem = "is not there" if named is not None else None
                lines: list[str] = []
            elif path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                problem, lines = "may be read by others: `chmod 600` makes it count", []
            else:
                lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, RuntimeError, UnicodeDecodeError):
            problem, lines = "cannot be read", []
        if problem is not None and named is not None:
            raise StoreUnusable(self._store, f"its password file {problem}.")
        wanted = (host.name, str(host.port), self._dsn.database, self._dsn.user)
        for line in lines:
            if not line or line.startswith("#"):
                continue
            fields = [_ESCAPED.sub(r"\1", field) for field in _FIELD.findall(line)[:5]]
            if len(fields) == 5 and all(
                field in ("*", value) or (place == 0 and field == "localhost" and value.startswith("/"))
                for place, (field, value) in enumerate(zip(fields, wanted, strict=False))
            ):
                return SecretStr(fields[4])
        return None
