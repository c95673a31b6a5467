"""Bisecting finds the offenders in few sends, and does not blame items for the service."""

import pytest

from syncline.engine.bisect import BisectingSender, Verdicts


class RefusalError(Exception):
    pass


class Service:
    """Refuses any items of which one is an offender."""

    def __init__(self, offenders: set[int], *, patience: int = 10_000) -> None:
        self.offenders, self.patience = offenders, patience
        self.sent: list[range] = []
        self.sender: BisectingSender[RefusalError] = BisectingSender(
            self._send,
            refusal=RefusalError,
            diagnose=self.diagnose,
            out_of_time=lambda: len(self.sent) >= self.patience,
        )

    async def _send(self, items: range) -> None:
        self.sent.append(items)
        if self.offenders & set(items):
            raise RefusalError(str(items))

    async def diagnose(self, error: RefusalError) -> bool:
        return False


@pytest.mark.parametrize("offender", [0, 1, 499, 500, 998, 999])
async def test_one_offender_in_a_thousand_stands_alone_after_few_sends(offender: int) -> None:
    service = Service({offender})
    await service.sender.take(range(1000))
    assert service.sender.refused.keys() == {offender}
    assert service.sender.accepted == set(range(1000)) - {offender}
    assert len(service.sent) <= 1 + 2 * 10


async def test_what_is_accepted_was_accepted_once() -> None:
    service = Service({3, 4, 90})
    await service.sender.take(range(100))
    accepted = [item for items in service.sent if not service.offenders & set(items) for item in items]
    assert sorted(accepted) == sorted(service.sender.accepted) == sorted(set(range(100)) - {3, 4, 90})


async def test_time_ends_the_search_and_blames_nobody_who_was_not_alone() -> None:
    service = Service({7}, patience=4)
    await service.sender.take(range(64))
    assert len(service.sent) == 4
    assert service.sender.refused == {}
    assert 7 not in service.sender.accepted


async def test_a_service_that_is_suspected_is_not_asked_for_each_item() -> None:
    service = Service(set(range(64)))

    async def it_is_the_service(error: RefusalError) -> bool:
        raise error

    service.sender = BisectingSender(
        service._send, refusal=RefusalError, diagnose=it_is_the_service, out_of_time=lambda: False
    )
    with pytest.raises(RefusalError):
        await service.sender.take(range(64))
    assert len(service.sent) == 1


async def test_a_whole_is_sent_once_more_when_its_trouble_was_mended() -> None:
    service = Service({1})

    async def mended(error: RefusalError) -> bool:
        service.offenders.clear()
        return True

    service.sender = BisectingSender(
        service._send, refusal=RefusalError, diagnose=mended, out_of_time=lambda: False
    )
    await service.sender.take(range(8))
    assert (service.sender.accepted, service.sent) == (set(range(8)), [range(8), range(8)])


def sent_by(*, accepted: int = 0, refused: int = 0) -> BisectingSender[RefusalError]:
    made = Service(set()).sender
    made.accepted = set(range(refused, refused + accepted))
    made.refused = {position: RefusalError() for position in range(refused)}
    return made


def verdict(verdicts: Verdicts[str, RefusalError], items: str, *, refused: int) -> str:
    judged = sent_by(accepted=len(items) - refused, refused=refused)
    return "".join(item for item, _ in verdicts.offenders(items, judged))


def test_what_is_refused_beside_what_is_accepted_has_itself_to_blame() -> None:
    assert verdict(Verdicts(), "abc", refused=2) == "ab"


def test_where_all_is_refused_nobody_is_blamed_until_something_is_accepted() -> None:
    verdicts: Verdicts[str, RefusalError] = Verdicts()
    assert verdict(verdicts, "ab", refused=2) == ""
    assert [item for item, _ in verdicts.unclear] == ["a", "b"]
    assert verdict(verdicts, "cde", refused=1) == "abc"
    assert (verdicts.unclear, verdicts.hopeless) == ([], False)


def test_where_all_is_refused_twice_there_is_no_hope() -> None:
    verdicts: Verdicts[str, RefusalError] = Verdicts()
    for items in ("ab", "c"):
        assert verdict(verdicts, items, refused=len(items)) == ""
    assert verdicts.hopeless


def test_one_item_alone_is_blamed_only_by_a_service_that_has_just_worked() -> None:
    fresh: Verdicts[str, RefusalError] = Verdicts()
    assert verdict(fresh, "a", refused=1) == ""
    worked: Verdicts[str, RefusalError] = Verdicts()
    assert verdict(worked, "abc", refused=0) == ""
    assert verdict(worked, "d", refused=1) == "d"


def test_nothing_to_send_says_nothing() -> None:
    verdicts: Verdicts[str, RefusalError] = Verdicts()
    assert verdict(verdicts, "ab", refused=2) == ""
    assert verdict(verdicts, "", refused=0) == ""
    assert not verdicts.hopeless
