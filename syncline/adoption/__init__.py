"""Adoption: preparing the write-db tables of a table map for capture, online, and undoing it.

It gives capture to tables that are there already, and to those that a migration has just made.
"""

from syncline.adoption.adopting import adopt, plan_adoption, plan_undo, undo
from syncline.adoption.catalog import Catalog, read_catalog
from syncline.adoption.checks import check_source, check_target, uncaptured
from syncline.adoption.locks import Patience
from syncline.adoption.needs import types_of
from syncline.adoption.policies import filtered_books
from syncline.adoption.steps import AdoptionPlan, Step

__all__ = [
    "AdoptionPlan",
    "Catalog",
    "Patience",
    "Step",
    "adopt",
    "check_source",
    "check_target",
    "filtered_books",
    "plan_adoption",
    "plan_undo",
    "read_catalog",
    "types_of",
    "uncaptured",
    "undo",
]
