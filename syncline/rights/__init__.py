"""The rights that roles need: one list, which `syncline grants` prints and `syncline doctor` checks."""

from syncline.rights.databases import Database, Places, Roles, grants
from syncline.rights.graphs import places_of, read_place
from syncline.rights.missing import Missing, missing_rights
from syncline.rights.needed import (
    Place,
    Right,
    worker_control_rights,
    worker_graph_rights,
    worker_write_rights,
)
from syncline.rights.taking import take_rights

__all__ = [
    "Database",
    "Missing",
    "Place",
    "Places",
    "Right",
    "Roles",
    "grants",
    "missing_rights",
    "places_of",
    "read_place",
    "take_rights",
    "worker_control_rights",
    "worker_graph_rights",
    "worker_write_rights",
]
