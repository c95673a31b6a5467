"""The times of cron expressions, compared with those that a real Temporal server computes."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleSpec,
    ScheduleState,
)
from temporalio.service import RPCError

from syncline.control.cron import next_times

CRONS = """
30 4 * * *
*/15 4 * * 1-5
@hourly
@daily
@midnight
@weekly
@monthly
@yearly
@annually
@every 1s
@every 1h30m
@every 1h/5m
@every 9000h
@every 200000h
0 0 30 2 *
0 0 31 4,6,9,11 *
0 0 29 2 *
0 0 29 2 1
0 0 13 * 5
0 0 1 1 * 2020
0 0 1 1 * 2099
0 0 29 2 * 2027
* * * * * 2050-2060
* * * * * * *
*/5 * * * * * *
0,1 0 0 * * * *
0 0 0 30 2 * *
0 0 30 2 * #comment
TZ=Europe/Berlin 30 2 * * *
CRON_TZ=America/New_York 30 2 29 3 * 2027
TZ=Europe/Berlin 30 2 28 3 * 2027
TZ=Europe/Berlin 30 1,2,3 31 10 * 2027
0 0 * feb MON
0 0 30 February *
0 0 30 FEB sun-sat
0 0 31/2 2 *
0 0 5/7 2 *
0 0 * * 0-7
0 0 * * */2
0 0 * * 5-7
0 0 * * mon-fri/2
0 0 * * 7
0 0 1 1 * */100
"""
REFUSED = """
@every 90
0 0 30 feb ?
0 0 L * *
0 0 31-30 * *
0 0 1 13 *
99 0 1 1 *
0 0 1 1 * 2101
0 0 1 1 8
a b c d e
@reboot
"""


async def server_times(client: Client, schedule_id: str, cron: str) -> list[datetime]:
    """Return the times at which a paused Schedule would come next, as the server says."""
    action = ScheduleActionStartWorkflow("Nothing", id=schedule_id, task_queue=schedule_id)
    schedule = Schedule(
        action=action, spec=ScheduleSpec(cron_expressions=[cron]), state=ScheduleState(paused=True)
    )
    handle = await client.create_schedule(schedule_id, schedule)
    try:
        return list((await handle.describe()).info.next_action_times)
    finally:
        await handle.delete()


@pytest.mark.long(after=12)
@pytest.mark.parametrize("cron", CRONS.strip().splitlines())
async def test_next_times_are_the_servers(
    temporal_client: Client, unique: Callable[[str], str], cron: str
) -> None:
    expected = await server_times(temporal_client, unique("times"), cron)
    after = expected[0] - timedelta(microseconds=1) if expected else datetime.now(UTC)
    assert next_times(cron, after=after) == expected


@pytest.mark.parametrize("cron", REFUSED.strip().splitlines())
async def test_next_times_knows_none_of_what_the_server_refuses(
    temporal_client: Client, unique: Callable[[str], str], cron: str
) -> None:
    with pytest.raises(RPCError):
        await server_times(temporal_client, unique("times"), cron)
    assert next_times(cron, after=datetime.now(UTC)) is None
