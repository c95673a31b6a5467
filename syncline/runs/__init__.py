"""Runs of `SyncGraph` as operators look for them: of one graph, and the newest of every graph, cheaply."""

from syncline.pending import Pending, Trying, pending_of
from syncline.runs.listing import ListedRun, RunStatus, StartedBy, run_at_work, run_of, runs_of
from syncline.runs.outcome import Outcome, RunEntry, outcome_of, run_entries
from syncline.runs.overview import GraphOverview, GraphSchedule, Standing, overview
from syncline.runs.progress import progress_of
from syncline.runs.report import GraphReport, report_of
from syncline.runs.state import state_of
from syncline.stalls import Stall, StallKind

__all__ = [
    "GraphOverview",
    "GraphReport",
    "GraphSchedule",
    "ListedRun",
    "Outcome",
    "Pending",
    "RunEntry",
    "RunStatus",
    "Stall",
    "StallKind",
    "Standing",
    "StartedBy",
    "Trying",
    "outcome_of",
    "overview",
    "pending_of",
    "progress_of",
    "report_of",
    "run_at_work",
    "run_entries",
    "run_of",
    "runs_of",
    "state_of",
]
