"""Which named statements read tables that grow, and why some of them are in no test of what they read."""

import re
from collections.abc import Mapping
from typing import Final

from syncline.sql import named_statements

__all__ = ["UNMEASURED", "growing"]

_ROOMS: Final = ("engine", "verify", "shadow", "visibility", "capture.listen", "capture.install")
_STATEMENT: Final = re.compile(r"\(?(WITH|SELECT|INSERT|UPDATE|DELETE|LOCK)\b")
_BOOKS: Final = re.compile(
    r"\bsync_(parked_row|parked_reference|dead_letter|outbox|vector|row|link|kept|requeue|tombstone|absent|recent|run"
    r"|audit|visible|checkpoint|second|comparison)\b(?!_)"
)
_OF_A_MAP: Final = re.compile(
    r"\b(FROM|JOIN|UPDATE|INTO|USING|TABLE)\s+(ONLY\s+)?(@\{[a-z_]+\}\.)?@\{[a-z_]+\}"
)
"""A fragment for a table's name: a source, a target, a link table, or the books of a schema."""

UNMEASURED: Final[Mapping[str, str]] = {
    "are parts of others, which are measured": """
        engine/attempt_range engine/before engine/id_holder engine/list_holder engine/links_named
        engine/links_named_by engine/links_parked engine/links_wanted engine/listed engine/listed_holder engine/listed_id
        engine/of_id engine/ours engine/recent_rows engine/visible_rows engine/with_source engine/moved
        engine/gone_counted_listed engine/release_to_requeue engine/comparison_listed engine/comparison_absent_rows
        engine/stats_whole engine/counters_whole engine/count_of_none engine/next_retry engine/tenant_rows
    """,
    "read a temporary table of the session, which has a batch, or nothing": """
        engine/load_lock engine/deletes_last engine/stage_last engine/list_nameless engine/list_any engine/list_first
        engine/list_shared engine/list_keys
    """,
    "merge by key what a batch has, as the measured ones do": """
        engine/list_new engine/list_reference engine/list_references engine/list_rejected engine/list_points engine/merge_into
        engine/merge_full_links engine/remove_columns engine/claims_free engine/claims_touched engine/claims_replace
        engine/list_many
    """,
    "look up the keys that they are given": """
        engine/refused_before engine/forget engine/visible_request verify/requeue verify/requeue_points verify/still_there
        verify/points_now verify/present_keys verify/keep_vectors verify/stubs_enter verify/stubs_standing
        verify/foreseen_enter verify/foreseen_known verify/foreseen_entered
    """,
    "read one entry, or a fixed number, in the order of an index, as `integration/test_plans.py` shows of the idle cycle": """
        engine/next_delete engine/requeue_due engine/partition_first engine/load_rows engine/load_pays engine/row_sample
        engine/mapped_probe engine/mapped_touch engine/page_end engine/ledger_shadow engine/checkpoint_common
        engine/outbox_refuse engine/outbox_retry capture.listen/probe capture.listen/tenant_probe capture.listen/retry_due
        verify/points
    """,
    "count what is after a cursor, by its index, where one batch did not take it": "engine/behind",
    "read one row, or one of each table, collection, reader, checkpoint or run": """
        engine/position_tokens engine/visible_forget engine/owed engine/second engine/comparison_moved engine/comparison_seen
        engine/comparison_state engine/comparisons_withheld capture.listen/throttle capture.listen/mute
        capture.listen/unmute capture.listen/muted capture.listen/want capture.listen/wanted capture.listen/visible_below
        capture.listen/notifies visibility/clean visibility/advanced shadow/fences shadow/owed shadow/granted shadow/claim
        shadow/model shadow/second shadow/state shadow/filled engine/lane_holder verify/audited verify/audit verify/audit_more verify/withheld_there
    """,
    "release, at the end of a load in ranges, what rows wait for that came beside them": """
        engine/ranges_awaited engine/ranges_missing
    """,
    "go back to a checkpoint, once, and read what was noted since": """
        engine/checkpoints_forget engine/recent_keys engine/recent_numbers engine/rewind_checkpoints engine/rewind_keys
        engine/rewind_letters engine/target_rows
    """,
    "compare all rows with the write-db after a gap in capture, by pages": """
        engine/comparison_absent engine/comparison_ask engine/comparison_keyed_rows engine/comparison_release
        engine/comparison_restart engine/comparison_rows engine/comparison_state_entries engine/comparison_withhold
    """,
    "do once what a changed map, embedding, collection or generation asks for of all rows": """
        engine/kept_left engine/links_all_recorded engine/links_none_recorded engine/links_of_others engine/links_placed
        engine/list_marked engine/list_standing engine/standing_any engine/mapped_left engine/mapped_queue
        engine/mapped_relist engine/mapped_unlink engine/mapped_unpark engine/mapped_unqueue engine/outbox_lost
        engine/outbox_other engine/outbox_resolve engine/second_filled engine/second_orphans engine/counts_of_none
    """,
    "look once for rows that a first sync would double": """
        engine/strangers_any engine/strangers_leave engine/strangers_referring_leave engine/strangers_unrefer
        verify/strange_counted verify/strange_listed verify/unlisted_counted
    """,
    "verify: all rows are compared": """
        verify/sums verify/counts_found verify/counts_lock verify/link_sums_source verify/link_sums_target
        verify/listed_links_source verify/listed_links_target verify/listed_source verify/listed_target
        verify/state_entries verify/beyond verify/refused verify/release_withheld verify/stats_count verify/stats_mend
        verify/stats_mend_rows verify/deleted verify/passed verify/coming verify/links_by_row verify/named_by
        verify/named_in_order verify/named_texts verify/named_texts_in_order verify/source_with_values
        verify/target_where verify/target_with_id
    """,
    "compare a shadow with its graph, or swap the two, once": """
        shadow/differing shadow/pairs shadow/audit shadow/marked_here shadow/marked_only_here shadow/promoted
        shadow/rows_of_others shadow/swap
    """,
    "are prepared, not run": "capture.install/condition",
}
"""Why a statement needs no measuring -> those of which it holds, as room and name."""


def growing() -> frozenset[str]:
    """Return room and name of each statement, or part of one, that reads a table which grows with rows or entries."""
    return frozenset(
        f"{room}/{name}"
        for room in _ROOMS
        for name, lines in named_statements(f"syncline.{room}").items()
        for text in ["\n".join(line for line in lines if not line.startswith("--")).strip()]
        if _STATEMENT.match(text) and (_BOOKS.search(text) or _OF_A_MAP.search(text))
    )
