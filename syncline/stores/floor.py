"""Floor: which transactions a server must have before it is read: one address may lead to several servers.

Of these a primary has everything. A standby has what it has replayed, so it may lack what another one showed.
"""

from dataclasses import dataclass
from typing import Final

from syncline.sql import Statements, statements_of

__all__ = ["BEHIND", "Floor", "ServerBehind", "is_behind"]

_sql: Statements = statements_of("syncline.stores")

BEHIND: Final = (
    "the connection went to a standby that has yet to replay what another server of the same address had, so "
    "changes would be missed there. Name one server in the connection string, or add "
    "target_session_attrs=primary to it"
)
_PARAMETER: Final = "syncline.behind"


class ServerBehind(Exception):
    """A standby may lack transactions that have been read before; a store's `errors_mapped` translates it."""


@dataclass
class Floor:
    """The transaction below which a server must have everything to be read. It only rises.

    Each connection of a store has it, and `syncline.stores.tenants.reading` requires it.
    """

    below: int = 0

    def rise(self, below: int) -> None:
        """Require everything below this transaction too."""
        self.below = max(self.below, below)

    @property
    def required(self) -> str:
        """The statement, with its semicolon, that raises on a standby that lacks any of it."""
        return f"{_sql('read_floor', below=str(self.below), parameter=_PARAMETER)};" if self.below else ""


def is_behind(error: BaseException) -> bool:
    """Return whether a driver's error is that of a standby below the floor."""
    # The parameter's name is in the server's message, whatever its language.
    unknown = getattr(error, "sqlstate", None) == "42704" and _PARAMETER in str(error)
    return unknown or isinstance(error, ServerBehind)
