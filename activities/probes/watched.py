"""What the probes look at inside the worker: its event loops, its pollers, its listener, its phase."""

from collections.abc import Sequence

from temporalio.worker import Worker

from activities.isolation.thread import ProviderThread
from syncline.capture.listen.listener import Listening
from syncline.control.services import Services

__all__ = ["Watched"]


class Watched:
    """The parts of a running worker. They enter themselves in the main event loop; the probes only read."""

    def __init__(self) -> None:
        self.services: Services | None = None
        self.listening: Listening | None = None
        """None with SYNCLINE_NOTIFY=false, and before the worker serves."""
        self.workers: Sequence[Worker] = ()
        self.rooms: Sequence[ProviderThread] = ()
        self.serving = False
        self.draining = False

    def phase_problem(self) -> tuple[str, str] | None:
        """Return why the worker takes no tasks by its own will, and the fix; None while it serves."""
        if self.draining:
            return "the worker drains: it takes no new tasks", "Nothing: it ends once its cycles have."
        if not self.serving:
            return (
                "the worker starts: it polls once its stores have accepted its logins",
                "If it lasts, see the other checks, and `waiting for a store before polling` in its log.",
            )
        return None

    def polling_problem(self) -> str | None:
        """Return which of its pollers do not poll, or why none does."""
        services = self.services
        if services is not None and services.usability.barred:
            return "it does not poll: " + " ".join(services.usability.problems())
        stopped = [worker.task_queue for worker in self.workers if not worker.is_running]
        stopped += [f"cycles of provider {room.provider.id}" for room in self.rooms if not room.polls]
        return f"nothing polls for {', '.join(stopped)}" if stopped else None
