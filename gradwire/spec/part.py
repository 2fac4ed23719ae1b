"""What all parts of a specification have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

ONLY = ""
"""The key that stands for a model's only input or output."""


class Part(BaseModel):
    """Base of all parts of a specification."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, allow_inf_nan=False
    )
