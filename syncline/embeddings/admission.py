"""Admission of requests to one service: after the pause that it asked for, and within its quota."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from syncline.embeddings.pace import Held, Pace
from syncline.embeddings.pauses import pause_asked
from syncline.embeddings.quota import Quota
from syncline.errors import EmbeddingUnavailable
from syncline.logs import get_log

__all__ = ["Admission"]

_WAITED_FOR: Final = 10.0
"""A request waits that long for its turn; if more is needed the texts are tried again in a later cycle."""
_CHARACTERS_PER_TOKEN: Final = 4.0
_DENSEST: Final = 0.1


class Admission:
    """The requests of one client, one after the other; pace and quota are those of the whole process."""

    def __init__(self, service: str, place: str, pace: Pace, quota: Quota) -> None:
        self._service, self._place, self._pace, self._quota = service, place, pace, quota
        self._line = asyncio.Lock()
        self._characters_per_token = _CHARACTERS_PER_TOKEN

    def tokens_of(self, characters: int) -> float:
        """Return about how many tokens a text has, by what the service has counted so far."""
        return characters / self._characters_per_token

    def counted(self, characters: int, tokens: int | None, *, expected: float) -> None:
        """Note how many tokens the service counted for a request that was expected to have others."""
        if tokens is not None:
            self._quota.correct(tokens - expected)
            self._characters_per_token = max(characters / tokens, _DENSEST)

    async def enter(self, tokens: float) -> None:
        """Return when a request of about so many tokens may be sent; raise if that is not soon."""
        async with self._line:
            limit = ""
            try:
                await self._pace.turn()
                while (wait := self._quota.book(tokens)) > 0:
                    if wait > _WAITED_FOR:
                        limit = f"{self._quota.because} is used up"
                        self._pace.hold_until(datetime.now(UTC) + timedelta(seconds=wait))
                    else:
                        await asyncio.sleep(wait)
                    await self._pace.turn()
            except Held as held:
                until, because = held.until, limit or str(held)
            else:
                return
        raise EmbeddingUnavailable(
            self._service,
            f"no request is sent to {self._place} before {until.astimezone(UTC):%H:%M:%S} UTC: {because}; "
            "it will be retried.",
            until=until,
        )

    def obey(self, headers: Mapping[str, str], *, failed: bool) -> None:
        """Hold all requests to the service as long as its answer asks for."""
        pause = pause_asked(headers, refused=failed)
        if pause is None or pause[0] <= 0:
            return
        seconds, header = pause
        before, until = self._pace.held_until, datetime.now(UTC) + timedelta(seconds=seconds)
        if before is None or before + timedelta(seconds=1) < until:
            log = get_log().warning if failed and seconds >= _WAITED_FOR else get_log().debug
            log("embedding service asks for a pause", service=self._service, seconds=seconds, header=header)
        self._pace.hold_until(until)
