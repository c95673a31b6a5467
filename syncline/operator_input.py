"""What operators type as the input of a workflow."""

from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator

from syncline.errors import InputInvalid

__all__ = ["OperatorInput"]


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
            problems = "; ".join(
                " ".join([*(f"'{part}':" for part in item["loc"]), item["msg"]])
                for item in error.errors(include_input=False, include_url=False)
            )
            example = "" if "graph" not in cls.model_fields else '; for example {"graph": "world"}'
            raise InputInvalid(
                f"The input of {cls.workflow} is not usable: {problems}. "
                f"Known keys: {', '.join(cls.model_fields)}{example}."
            ) from None
