"""Which schemas are to be run, and when, by what was heard: without a clock or a database."""

from syncline.capture.listen.debounce import Snapshot, TriggerDebouncer


def quiet(xid: int) -> Snapshot:
    """A moment at which no transaction is open."""
    return Snapshot(xmin=xid, xmax=xid)


def test_the_first_change_is_due_at_once_and_the_others_once_at_the_end_of_the_second() -> None:
    debouncer = TriggerDebouncer(quiet(10), window=1)
    assert debouncer.note("a", 10, 10, now=0) == 0
    assert debouncer.due(0) == "a"
    debouncer.started("a", quiet(11), now=0)
    assert debouncer.following() is None
    # One is due then, so its writers need not say more until it is.
    assert round(debouncer.note("a", 11, 11, now=0.2), 3) == 0.8
    assert (debouncer.due(0.9), debouncer.following(), debouncer.due(1)) == (None, 1, "a")
    assert debouncer.note("a", 12, 12, now=0.96) == 0
    assert debouncer.note("b", 13, 13, now=0.5) == 0
    assert debouncer.due(0.5) == "b"


def test_who_has_been_due_for_longest_is_next() -> None:
    debouncer = TriggerDebouncer(quiet(10), window=1)
    for number, schema in enumerate(("c", "a", "b")):
        debouncer.note(schema, 10, 10, now=number)
    order = []
    for _ in range(3):
        schema = debouncer.due(10)
        assert schema is not None
        debouncer.started(schema, quiet(11), now=10)
        order.append(schema)
    assert order == ["c", "a", "b"]


def test_a_change_above_the_horizon_is_due_again_when_the_horizon_has_passed_it() -> None:
    debouncer = TriggerDebouncer(quiet(10), window=1)
    debouncer.note("a", 20, 20, now=0)
    debouncer.started("a", Snapshot(xmin=15, xmax=21), now=0)
    assert debouncer.held
    for xmin in (16, 20):
        debouncer.moved(Snapshot(xmin=xmin, xmax=30), now=5)
        assert debouncer.due(5) is None
    debouncer.moved(Snapshot(xmin=21, xmax=30), now=6)
    assert debouncer.due(6) == "a"
    debouncer.started("a", Snapshot(xmin=21, xmax=30), now=6)
    assert not debouncer.held


def test_who_may_have_written_in_silence_is_waited_for() -> None:
    debouncer = TriggerDebouncer(quiet(10), window=1)
    debouncer.note("a", 10, 10, now=0)
    debouncer.started("a", quiet(11), now=0)
    debouncer.note("a", 11, 11, now=0.1)
    debouncer.throttle("a", until=1)
    assert debouncer.note("a", 11, 11, now=0.2) == 0
    debouncer.throttle("a", until=1.01)
    # The run waits for the end of the silence.
    assert debouncer.following() == 1.01
    debouncer.started("a", Snapshot(xmin=14, xmax=17), now=1.01)
    assert debouncer.held
    debouncer.moved(quiet(17), now=2.5)
    assert debouncer.due(2.5) == "a"
    debouncer.started("a", quiet(17), now=2.5)
    assert not debouncer.held


def test_a_run_within_the_silence_is_followed_by_one_after_it() -> None:
    debouncer = TriggerDebouncer(quiet(10), window=1)
    debouncer.note("a", 10, 10, now=0)
    # Others come first: it is overdue, and its writers hushed for a second each time that they say so.
    assert debouncer.note("a", 11, 11, now=5) == 1
    debouncer.throttle("a", until=6)
    assert debouncer.due(5.5) == "a"
    debouncer.started("a", quiet(12), now=5.5)
    assert debouncer.following() == 6.5


def test_a_silence_that_begins_after_the_run_has_one_of_its_own() -> None:
    debouncer = TriggerDebouncer(quiet(10), window=1)
    debouncer.note("a", 10, 10, now=0)
    debouncer.started("a", quiet(11), now=0)
    debouncer.throttle("a", until=0.5)
    assert debouncer.following() == 1


def test_what_could_not_be_started_is_due_again() -> None:
    debouncer = TriggerDebouncer(quiet(10), window=1)
    debouncer.note("a", 10, 10, now=0)
    debouncer.postpone("a", until=5)
    assert (debouncer.due(4), debouncer.due(5)) == (None, "a")
    debouncer.drop("a")
    assert debouncer.due(5) is None


def test_writers_are_hushed_for_no_longer_than_their_trigger_believes() -> None:
    debouncer = TriggerDebouncer(quiet(10), window=1)
    debouncer.note("a", 10, 10, now=0)
    debouncer.postpone("a", until=60)
    assert debouncer.note("a", 11, 11, now=1) == 4
    debouncer.throttle("a", until=5)
    # The run is not brought forward by that.
    assert (debouncer.note("a", 12, 12, now=2), debouncer.following()) == (0, 60)


def test_what_was_found_late_is_to_be_heard_by_the_next_who_listens() -> None:
    debouncer = TriggerDebouncer(quiet(10), window=1)
    debouncer.note("a", 4, 9, now=0)
    assert debouncer.low_watermark(quiet(12)) == 4
    debouncer.started("a", quiet(12), now=0)
    assert debouncer.low_watermark(quiet(12)) == 12


def test_everything_below_what_waits_has_been_heard() -> None:
    debouncer = TriggerDebouncer(quiet(10), window=1)
    assert debouncer.low_watermark(quiet(12)) == 12
    debouncer.moved(quiet(12), now=0)
    debouncer.note("a", 12, 12, now=0)
    debouncer.moved(quiet(13), now=0)
    debouncer.note("b", 13, 13, now=0)
    assert debouncer.low_watermark(quiet(20)) == 12
    debouncer.started("a", quiet(20), now=0)
    assert debouncer.low_watermark(quiet(20)) == 13
    debouncer.started("b", Snapshot(xmin=13, xmax=20), now=0)
    assert debouncer.low_watermark(quiet(25)) == 13
    debouncer.moved(quiet(25), now=3)
    debouncer.started("b", quiet(25), now=3)
    debouncer.moved(quiet(25), now=5)
    assert (debouncer.low_watermark(quiet(25)), debouncer.held, debouncer.following()) == (25, False, None)
