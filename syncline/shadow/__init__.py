"""Shadows: a second provider's result of a graph, beside the live one."""

from syncline.shadow.comparison import compare_with_shadow
from syncline.shadow.promotion import promote
from syncline.shadow.scratch import drop_shadow, prepare_shadow

__all__ = ["compare_with_shadow", "drop_shadow", "prepare_shadow", "promote"]
