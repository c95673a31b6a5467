"""What a failure says besides its message: of the runs before, and of what was committed."""

from temporalio.exceptions import ApplicationError, TimeoutType
from temporalio.exceptions import TimeoutError as ActivityTimeout

from syncline.messages.sync import (
    CarriedState,
    Committed,
    CycleProgress,
    CycleStatus,
    HandedOn,
    SyncResult,
    TableProgress,
    Totals,
)
from syncline.temporal.handed_on import CYCLE_FAILED, committed_before, failed_result, fitting, handed_on

FAILED = SyncResult(
    status=CycleStatus.FAILED,
    failures=1,
    tables=(TableProgress(table="nodes", rows=3), TableProgress(table="edges", error="column gone")),
)
HANDED = HandedOn(carried=CarriedState(of_run="r", totals=Totals(runs=3, failed=1)))


def failure(*details: object, kind: str = CYCLE_FAILED) -> ApplicationError:
    """A failure as the next run reads it: its details are what JSON has."""
    told = [detail.model_dump(mode="json") if hasattr(detail, "model_dump") else detail for detail in details]
    return ApplicationError("it failed", *told, type=kind)


def test_the_result_comes_first_and_what_is_handed_on_last() -> None:
    told = failure(FAILED, HANDED)
    assert (failed_result(told), handed_on(told)) == (FAILED, HANDED)
    assert handed_on(failure(HANDED, kind="StoreRejected")) == HANDED
    assert failed_result(failure(HANDED, kind="StoreRejected")) is None


def test_what_an_earlier_release_or_a_plugin_has_failed_with_hands_nothing_on() -> None:
    for told in (
        failure(),
        failure(FAILED),
        failure("a", 3),
        failure({"carried": 3}),
        RuntimeError("no"),
        None,
    ):
        assert handed_on(told) is None
    assert failed_result(failure(FAILED)) == FAILED
    assert failed_result(failure("words")) is None


def test_what_a_cycle_had_committed_is_in_its_error_or_in_its_last_heartbeat() -> None:
    progress = CycleProgress(
        phase="capture", tables=(TableProgress(table="nodes", rows=5, deletes=1),), vectors=2
    )
    done = Committed(rows=6, links=0, vectors=2, failures=0)
    assert progress.committed == done
    raised = failure(done, kind="StoreRejected")
    wrapped = RuntimeError()
    wrapped.__cause__ = raised
    assert committed_before(wrapped) == done
    silent = ActivityTimeout(
        "activity Heartbeat timeout",
        type=TimeoutType.HEARTBEAT,
        last_heartbeat_details=[progress.model_dump(mode="json")],
    )
    assert committed_before(silent) == done
    # What it told first is the less of both.
    silent.__cause__ = failure(Committed(rows=1, links=0, vectors=0, failures=0), kind="StoreUnavailable")
    assert committed_before(silent) == done
    for nothing in (None, failure("words"), RuntimeError("no")):
        assert committed_before(nothing) is None


def test_what_is_too_large_for_a_failure_is_cut_and_the_tables_that_failed_stay() -> None:
    idle = tuple(TableProgress(table=f"idle_{number}") for number in range(3_000))
    broken = tuple(TableProgress(table=f"broken_{number}", error="x" * 5_000) for number in range(50))
    cut = fitting(FAILED.model_copy(update={"tables": (*idle, *broken)}))
    assert len(cut.model_dump_json()) < 256 * 1024
    assert {table.table for table in broken} <= {table.table for table in cut.tables}
    assert cut.failures == FAILED.failures
    assert fitting(FAILED) is FAILED
