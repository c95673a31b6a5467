"""Freshness: hearing of changes in the write-dbs, and having their graphs' runs started at once.

One worker of the fleet listens to a write-db at a time. Schedules do their work in any case; who listens only
makes it sooner.
"""

from syncline.freshness.hearing import Hearing
from syncline.freshness.listening import Listening, Runs

__all__ = ["Hearing", "Listening", "Runs"]
