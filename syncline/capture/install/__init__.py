"""Install capture online: triggers, columns, indexes and tombstones of source tables; and undo it."""

from syncline.capture.install.install import adopt, plan_adoption, plan_undo, undo
from syncline.capture.install.locks import Patience

__all__ = ["Patience", "adopt", "plan_adoption", "plan_undo", "undo"]
