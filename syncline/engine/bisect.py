"""The sieve: sends many items at once, and finds the few for which a service refuses them all."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from syncline.engine.dead_letters import DeadLetter
from syncline.errors import StoreError

__all__ = ["BisectingSender", "NoNeighbour", "Suspects", "TableStands", "Verdicts"]

ItemT = TypeVar("ItemT")
ErrorT = TypeVar("ErrorT", bound=Exception)


class BisectingSender(Generic[ErrorT]):
    """Halves what is refused until the offenders stand alone.

    Items are positions. An item that was sent in vain, because another one was refused, is sent again about
    log2 of the items' number times. What is neither accepted nor refused in the end was cut off by time or by
    an error of another kind.
    """

    def __init__(
        self,
        send: Callable[[range], Awaitable[None]],
        *,
        refusal: type[ErrorT],
        diagnose: Callable[[ErrorT], Awaitable[bool]],
        out_of_time: Callable[[], bool],
    ) -> None:
        """Keep what it takes to send.

        `diagnose` is asked when a whole is refused, before it is halved: it raises the error if the service
        would refuse anything, and returns whether the whole should be sent once more.
        """
        self._send, self._refusal, self._diagnose = send, refusal, diagnose
        self._out_of_time = out_of_time
        self.accepted: set[int] = set()
        self.refused: dict[int, ErrorT] = {}

    async def take(self, items: range) -> None:
        """Send these items, all at once if the service lets them."""
        error = await self._sent(items)
        if error is not None and await self._diagnose(error):
            error = await self._sent(items)
        if error is not None:
            await self._halve(items, error)

    async def _sent(self, items: range) -> ErrorT | None:
        try:
            await self._send(items)
        except self._refusal as error:
            return error
        self.accepted.update(items)
        return None

    async def _halve(self, items: range, error: ErrorT) -> None:
        if len(items) == 1:
            self.refused[items[0]] = error
            return
        middle = len(items) // 2
        for half in (items[:middle], items[middle:]):
            if self._out_of_time():
                return
            again = await self._sent(half)
            if again is not None:
                await self._halve(half, again)


class Verdicts(Generic[ItemT, ErrorT]):
    """Tells over several sieves of one kind whose trouble a refusal is: the item's own, or the service's.

    Where something is accepted, what is refused has itself to blame. Where everything is refused, nobody can
    tell until something is accepted later.
    """

    def __init__(self) -> None:
        self.unclear: list[tuple[ItemT, ErrorT]] = []
        """What may be the service's trouble."""
        self.hopeless = False
        """Whether everything was refused twice running: there is no sense in going on."""
        self._worked = False

    def offenders(self, items: Sequence[ItemT], sent: BisectingSender[ErrorT]) -> list[tuple[ItemT, ErrorT]]:
        """Return what is now known to be refused by itself, of this sender and of those before."""
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
"""So many rows, one behind the other, that each fail alone are the table's trouble."""
_BATCHES_IN_VAIN = 20
"""Batches behind such rows that are read in search of one which lands."""


class NoNeighbour(Exception):
    """A batch behind suspects holds nothing that tells their trouble from the table's."""


class TableStands(Exception):
    """Rows that failed alone are for all that is known the table's trouble."""

    def __init__(self, error: StoreError) -> None:
        self.error = error


class Suspects:
    """Rows of a table that failed alone with what may be the table's trouble, until one beside them lands."""

    def __init__(self) -> None:
        self.letters: list[DeadLetter] = []
        self.convicted = False
        """Whether a row of the table landed in this cycle: what fails alone is to blame itself."""
        self._errors: list[StoreError] = []
        self._waited = 0

    def add(self, error: StoreError) -> None:
        """Add why one more failed; raise TableStands if so many in a row cannot be the rows' trouble."""
        self._errors.append(error)
        if len(self._errors) >= _SUSPECTS:
            raise self.verdict()

    def verdict(self) -> TableStands:
        """Return what to raise if no row beside them lands."""
        return TableStands(self._errors[0])

    def waited_long(self) -> bool:
        """Count one more batch that said nothing, and return whether there is no sense in going on."""
        self._waited += 1
        return self._waited >= _BATCHES_IN_VAIN

    def landed(self, rows: int) -> None:
        """A batch was committed, and the suspects are among the dead letters with it."""
        self.convicted |= rows > 0
        self.letters, self._errors, self._waited = [], [], 0
