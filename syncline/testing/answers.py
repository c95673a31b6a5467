"""Whether a command's JSON is what its documented schema says."""

import json
from functools import cache

from jsonschema import Draft202012Validator
from pydantic import JsonValue

from syncline.cli.answers import schema_of

__all__ = ["validated"]


def validated(command: str, stdout: str) -> JsonValue:
    """Return what a command printed, or raise jsonschema's ValidationError if its schema says otherwise.

    `command` is as in `syncline.cli.answers.ANSWERS`, such as `graph list`.
    """
    answer: JsonValue = json.loads(stdout)
    _validator(command).validate(answer)
    return answer


@cache
def _validator(command: str) -> Draft202012Validator:
    return Draft202012Validator(schema_of(command), format_checker=Draft202012Validator.FORMAT_CHECKER)
