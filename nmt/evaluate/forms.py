"""The form in which a test set is translated and scored: that of the training text, which hypotheses have as well."""

from typing import NamedTuple, Self

from nmt.config.schema import Recipe
from nmt.corpora.clean import normalise
from nmt.evaluate.pairs import Pair

_MARK = "|norm:"  # our own part of a signature, after those of sacreBLEU


class ScoringForm(NamedTuple):
    """The normal form of sources and references, and its mark in signatures.

    Held-out text of corpora has this form already; files that people bring may not.
    """

    unicode: str  # NFC or NFKC: the recipe's data.clean.unicode
    references: str  # normalised, or raw: as they are in the file

    @classmethod
    def choose(cls, recipe: Recipe, references: str | None = None) -> Self:
        """Return the form that a recipe asks for; `references` replaces its evaluate.references."""
        return cls(recipe.data.clean.unicode, references or recipe.evaluate.references)

    def bring(self, pair: Pair) -> Pair:
        """Return a pair as it is translated and scored."""
        raw = self.references == "raw"
        references = (pair.target, *pair.others)
        target, *others = references if raw else (normalise(one, self.unicode) for one in references)
        return Pair(normalise(pair.source, self.unicode), target, tuple(others))

    def mark(self, signature: str) -> str:
        """Return a signature that says which form the references had: norm:nfc, norm:nfkc or norm:raw."""
        name = "raw" if self.references == "raw" else self.unicode.lower()
        return f"{signature.partition(_MARK)[0]}{_MARK}{name}"
