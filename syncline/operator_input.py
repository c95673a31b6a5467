"""What operators type as the input of a workflow."""

from typing import Annotated, ClassVar, Final, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from syncline.errors import InputInvalid
from syncline.quoting import path_shown, shown

__all__ = ["GraphName", "OperatorInput", "TableName", "Who", "Why"]

_MOST_TOLD: Final = 5


def _can_be_a_name(name: str) -> str:
    # A run is found by it: Temporal ends one whose search attribute is too long.
    if not name or shown(name) != f"'{name}'":
        raise ValueError("it cannot be the name of anything here")
    return name


GraphName = Annotated[str, AfterValidator(_can_be_a_name)]
"""Slug or id of a graph."""
TableName = Annotated[str, AfterValidator(_can_be_a_name)]
Who = Annotated[str, Field(max_length=500)]
Why = Annotated[str, Field(max_length=5_000)]


class OperatorInput(BaseModel):
    """Base of what operators type as the input of a workflow.

    Unknown keys are refused, because a mistyped key would otherwise be silently ignored. What is refused
    raises InputInvalid, which says so in the words of someone who typed it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    workflow: ClassVar[str]
    """The workflow type that it is the input of."""

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_plainly(cls, value: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(value)
        except ValidationError as error:
            found = error.errors(include_input=False, include_url=False)
            problems = "; ".join(
                " ".join(
                    [*(f"{_key(part)}:" for part in item["loc"]), item["msg"].removeprefix("Value error, ")]
                )
                for item in found[:_MOST_TOLD]
            )
            if len(found) > _MOST_TOLD:
                problems += f"; and {len(found) - _MOST_TOLD:,} more"
            example = "" if "graph" not in cls.model_fields else '; for example {"graph": "world"}'
            raise InputInvalid(
                f"The input of {cls.workflow} is not usable: {problems}. "
                f"Known keys: {', '.join(cls.model_fields)}{example}."
            ) from None


def _key(part: int | str) -> str:
    """Return a key in quotes; whoever mistook a value for one is not quoted."""
    key = path_shown(str(part))
    return f"'{key}'" if key == str(part) else key
