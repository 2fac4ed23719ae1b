"""How rows of several lengths become arrays: the lengths that batches are padded to."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from gradwire.spec.part import Part

MAX_LENGTHS = 64
"""Lengths that one rule allows: each is a trace in every worker."""

MAX_SHAPES = 256
"""Lengths that all rules together allow."""

Length = Annotated[int, Field(ge=1, le=2**24)]


class PaddingSpec(Part):
    """A batch is padded to the first of these lengths that holds its longest row. Give `buckets` or `multiple`."""

    value: float = 0.0
    """What shorter rows are filled up with."""
    buckets: Annotated[list[Length], Field(min_length=1, max_length=MAX_LENGTHS)] | None = None
    """The lengths, ascending."""
    multiple: Length | None = None
    """The lengths are the multiples of this number."""
    max: Length | None = None
    """The longest multiple; without it as long as the data's longest row needs."""
    truncate: bool = False
    """Whether rows beyond the longest length lose their end; otherwise they fail the job."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.buckets is None) == (self.multiple is None):
            raise ValueError("give exactly one of buckets, multiple")
        if self.buckets is not None:
            if self.max is not None:
                raise ValueError("max goes with multiple; the last of buckets is the longest length")
            if self.buckets != sorted(set(self.buckets)):
                raise ValueError(f"buckets must ascend, as {sorted(set(self.buckets))}")
        elif self.multiple is not None and self.max is not None:
            if self.max % self.multiple:
                above = self.max + self.multiple - self.max % self.multiple
                raise ValueError(f"max {self.max} is no multiple of {self.multiple}; take {above}")
            if self.max // self.multiple > MAX_LENGTHS:
                raise ValueError(
                    f"multiple {self.multiple} up to {self.max} allows {self.max // self.multiple} lengths, of which "
                    f"each is traced; take {-(-self.max // MAX_LENGTHS)} or more"
                )
        if self.truncate and self.longest is None:
            raise ValueError("truncate needs max, or buckets")
        return self

    @property
    def longest(self) -> int | None:
        """The longest length that the rule itself allows."""
        return self.buckets[-1] if self.buckets is not None else self.max

    def lengths(self, longest_row: int | None) -> list[int] | None:
        """Every length that batches may have, ascending; None if that depends on rows that nobody has seen.

        Args:
            longest_row: of the data, where it is known.
        """
        if self.buckets is not None:
            return self.buckets
        step, end = self.multiple or 1, self.max or longest_row
        return None if end is None else list(range(step, max(end, 1) + step, step))

    def length(self, longest_row: int) -> int:
        """The length of a batch with this longest row; the longest one if the row is too long."""
        if self.buckets is not None:
            return next((length for length in self.buckets if length >= longest_row), self.buckets[-1])
        step = self.multiple or 1
        return min(-(-max(longest_row, 1) // step) * step, self.max or longest_row + step)
