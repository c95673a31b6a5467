"""The `.sql` templates of shadows."""

from syncline.sqltext import templates_of

__all__ = ["sql"]

_template = templates_of("syncline.shadow")


def sql(name: str, /, **fragments: str) -> str:
    """Return template `name` with its fragments filled in; KeyError if one is missing."""
    return _template(name).substitute(fragments)
