"""Bisection: sends many items at once and finds the few that make the service reject the whole."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

from syncline.engine.dead_letters import DeadLetter
from syncline.errors import StoreError

__all__ = ["BisectingSender", "NoNeighbour", "Suspects", "TableStands", "Verdicts"]

ItemT = TypeVar("ItemT")
ErrorT = TypeVar("ErrorT", bound=Exception)

_IN_VAIN = 8
"""This many items refused one by one, with none accepted, are the service's fault."""


class BisectingSender(Generic[ErrorT]):
    """Halves rejected ranges until each offending item is sent alone.

    Items are positions. An item that failed only because of another one is sent again about log2(n) times.
    Items that are neither accepted nor rejected in the end were cut off by time or by an error of another
    kind.
    """

    def __init__(
        self,
        send: Callable[[range], Awaitable[Mapping[int, ErrorT] | None]],
        *,
        refusal: type[ErrorT],
        diagnose: Callable[[ErrorT], Awaitable[bool]],
        out_of_time: Callable[[], bool],
    ) -> None:
        """Store the callbacks.

        `send` may return the items that were rejected while all others were accepted. `diagnose` is called
        when a range is rejected, before halving: it raises the error if the service would reject everything,
        and returns whether to send the whole range once more.
        """
        self._send, self._refusal, self._diagnose = send, refusal, diagnose
        self._out_of_time = out_of_time
        self.accepted: set[int] = set()
        self.refused: dict[int, ErrorT] = {}

    async def take(self, items: range) -> None:
        """Send these items, all at once if the service accepts them."""
        error = await self._sent(items)
        if error is not None and await self._diagnose(error):
            error = await self._sent(items)
        if error is not None:
            await self._halve(items, error)

    async def _sent(self, items: range) -> ErrorT | None:
        try:
            refused = await self._send(items) or {}
        except self._refusal as error:
            return error
        self.accepted.update(item for item in items if item not in refused)
        self.refused.update(refused)
        return None

    async def _halve(self, items: range, error: ErrorT) -> None:
        if len(items) == 1:
            self.refused[items[0]] = error
            if len(self.refused) >= _IN_VAIN and not self.accepted:
                raise error
            return
        middle = len(items) // 2
        for half in (items[:middle], items[middle:]):
            if self._out_of_time():
                return
            again = await self._sent(half)
            if again is not None:
                await self._halve(half, again)


class Verdicts(Generic[ItemT, ErrorT]):
    """Decides over several bisecting senders of one kind whether the item or the service is at fault.

    Once something is accepted, rejected items are themselves at fault. While everything is rejected, the
    decision waits until something is accepted.
    """

    def __init__(self) -> None:
        self.unclear: list[tuple[ItemT, ErrorT]] = []
        """Rejections that may be the service's fault."""
        self.hopeless = False
        """Whether everything was rejected twice in a row, so that trying further is pointless."""
        self._worked = False

    def offenders(self, items: Sequence[ItemT], sent: BisectingSender[ErrorT]) -> list[tuple[ItemT, ErrorT]]:
        """Return the items now known to be at fault, of this sender and of earlier ones."""
        refused = [(items[position], error) for position, error in sent.refused.items()]
        if sent.accepted:
            self._worked = True
            refused, self.unclear = [*self.unclear, *refused], []
            return refused
        if len(refused) == 1 and self._worked and not self.unclear:
            return refused
        if refused:
            self.hopeless = bool(self.unclear)
            self.unclear += refused
        return []


_SUSPECTS = 8
"""This many consecutive rows that each fail alone are the table's fault."""
_BATCHES_IN_VAIN = 20
"""Batches after such rows that are read in search of one that commits."""


class NoNeighbour(Exception):
    """The batches after the suspects contain no row that shows whether the rows or the table are at fault."""


class TableStands(Exception):
    """Rows that failed alone, as far as known because of the table."""

    def __init__(self, error: StoreError) -> None:
        self.error = error


class Suspects:
    """Rows of a table that failed alone for a reason that may be the table's, until another row commits."""

    def __init__(self, *, convicted: bool = False) -> None:
        self.letters: list[DeadLetter] = []
        self.convicted = convicted
        """Whether a row of the table committed in this cycle: then a row failing alone is at fault itself."""
        self._errors: list[StoreError] = []
        self._waited = 0

    def add(self, error: StoreError) -> None:
        """Add the error of one more row; raise TableStands if too many rows in a row failed."""
        self._errors.append(error)
        if len(self._errors) >= _SUSPECTS:
            raise self.verdict()

    def verdict(self) -> TableStands:
        """Return the error to raise if no other row commits."""
        return TableStands(self._errors[0])

    def waited_long(self) -> bool:
        """Count one more inconclusive batch; return whether to stop searching."""
        self._waited += 1
        return self._waited >= _BATCHES_IN_VAIN

    def landed(self, rows: int) -> None:
        """Note a committed batch; its dead letters include the suspects."""
        self.convicted |= rows > 0
        self.letters, self._errors, self._waited = [], [], 0
