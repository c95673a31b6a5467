"""Whether a command's JSON is what its documented schema says."""

import json
from functools import cache

from jsonschema import Draft202012Validator
from pydantic import JsonValue

from syncline.cli.answers import schema_of

__all__ = ["validated"]


def validated(command: str, stdout: str) -> JsonValue:
    """Return what a command printed, or raise jsonschema's ValidationError if its schema says otherwise.

    The schema lets a later release add properties; here there may be none that it does not name.
    `command` is as in `syncline.cli.answers.ANSWERS`, such as `graph list`.
    """
    answer: JsonValue = json.loads(stdout)
    _validator(command).validate(answer)
    return answer


@cache
def _validator(command: str) -> Draft202012Validator:
    schema = _closed(schema_of(command))
    if not isinstance(schema, dict):
        raise TypeError(f"the schema of '{command}' is no object")
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


def _closed(schema: JsonValue) -> JsonValue:
    """Return the schema with no room for properties that it does not name."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    return {"additionalProperties": False, **closed} if "properties" in closed else closed
