"""The splits of a corpus: training, development and test, and the section of a declaration that says how rows fall."""

import fnmatch
import hashlib
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Discriminator, Field, Tag, model_validator

from nmt.config import Section

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

_BUCKETS = 100
_Percent = Annotated[int, Field(ge=0, le=_BUCKETS)]

NOTHING_HELD_OUT: dict[str, Any] = {"by": "text", "test": 0, "dev": 0}
FORMS = (
    "say how rows are held out, in one of three forms: "
    "split: {by: component, test: 5, dev: 10} (percent of the components, such as documents), "
    "split: {by: text, test: 1, dev: 1} (percent of the single texts), or "
    "split: {by: name, test: [test*], dev: [dev*, valid*]} (components of these names)"
)


class HashedSplits(Section):
    """Splits by the SHA-1 of a row's component, or of its text, modulo 100: a bucket for every percent."""

    by: Literal["component", "text"] = Field(
        "component", description="Rows that share this are never in different splits; text is the key language's."
    )
    test: _Percent = Field(description="Percent that are the test split: the first buckets.")
    dev: _Percent = Field(description="Percent that are the development split: the buckets that follow.")
    cumulative: bool = Field(
        False,
        description="Whether `dev` counts the percent of `test` as well, as it did in older declarations: "
        "`test: 4, dev: 7` then holds out 4 and 3 percent.",
    )

    @property
    def bounds(self) -> tuple[int, int]:
        """The buckets that the test split, and the development split after it, end before."""
        return self.test, self.dev if self.cumulative else self.test + self.dev

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        end_of_test, end_of_dev = self.bounds
        if end_of_test > end_of_dev:
            raise ValueError(f"cumulative: true counts test in dev, but test={self.test} is above dev={self.dev}")
        if end_of_dev > _BUCKETS:
            raise ValueError(
                f"test={self.test} and dev={self.dev} are more than 100 percent; if dev is to count test as well, as "
                "it did in older declarations, say cumulative: true"
            )
        return self

    def assign(self, component: str) -> Split:
        """Return the split of a row by the name of its component (or its text); it depends on nothing else."""
        bucket = int(hashlib.sha1(component.encode("utf-8", "surrogatepass")).hexdigest(), 16) % _BUCKETS
        end_of_test, end_of_dev = self.bounds
        return "test" if bucket < end_of_test else "dev" if bucket < end_of_dev else "train"

    def identity(self) -> dict[str, Any]:
        """Return the keys that determine the splits, in the cumulative form, whichever form the declaration has.

        What was cleaned or prepared before the keys were percentages is found again under the same digest.
        """
        end_of_test, end_of_dev = self.bounds
        keys = self.model_dump(mode="json", exclude_unset=True, exclude={"cumulative"})
        return {**keys, "test": end_of_test, "dev": end_of_dev}


class NamedSplits(Section):
    """Splits that the corpus comes with: the names of the components that are held out."""

    by: Literal["name"] = Field(description="The component's own name says which split it is.")
    test: tuple[str, ...] = Field((), description="Components of the test split, as patterns such as newstest*.")
    dev: tuple[str, ...] = Field((), description="Components of the development split, as patterns.")

    def assign(self, component: str) -> Split:
        """Return the split that a component belongs to: train where no pattern fits."""
        if any(fnmatch.fnmatchcase(component, pattern) for pattern in self.test):
            return "test"
        return "dev" if any(fnmatch.fnmatchcase(component, pattern) for pattern in self.dev) else "train"

    def identity(self) -> dict[str, Any]:
        """Return the keys that determine the splits, as the declaration has them."""
        return self.model_dump(mode="json", exclude_unset=True)


def _split_kind(value: Any) -> str:
    by = value.get("by") if isinstance(value, dict) else getattr(value, "by", None)
    return "name" if by == "name" else "hash"


SplitRule = Annotated[
    Annotated[HashedSplits, Tag("hash")] | Annotated[NamedSplits, Tag("name")], Discriminator(_split_kind)
]
