"""The choice among the ways of dividing a path into codes of languages, such as `en-pt-BR` by `{source}-{target}`.

The order is that of `nmt.languages.parse_direction`: a division whose codes drop no region comes before one that drops
regions in the usual capitals, and that before one that drops any. Codes that the declaration says the language of are
as sure as those of the registry, and decide where several divisions are left.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from nmt.errors import UserError
from nmt.languages import Certainty, Language, registry

CODE_FIELDS = ("language", "source", "target")

_LAST = re.compile(r"[A-Za-z]+(?=[-_]$)")
_TWO_LETTERS = re.compile(r"[A-Za-z]{2}")


@dataclass(frozen=True)
class Division:
    """A way of dividing a path.

    Attributes:
      codes: texts of the fields that are codes of languages, by field.
      before: by field, what stands directly before a code, where that is not fixed by the pattern.
    """

    codes: Mapping[str, str]
    before: Mapping[str, str]

    def rank(self, declared: Collection[str]) -> tuple[int, ...]:
        """Return how likely a division is, the lowest first: its least certain code decides.

        Args:
          declared: codes that the declaration of the corpus says the language of.
        """
        ranks = [self._certainty(field, declared) for field in self.codes]
        worst = max(ranks, default=Certainty.EXACT)
        if worst < Certainty.UNKNOWN and not self._fits():
            worst = Certainty.UNLIKELY
        unknown = [code for field, code in self.codes.items() if self._certainty(field, declared) == Certainty.UNKNOWN]
        strange = sum(registry().find(re.split("[-_]", code)[0]) is not None for code in unknown)
        chosen = sum(code in declared for code in self.codes.values())
        # `pt-br` is rather a code than `br` behind a name that ends in `-pt`.
        length = sum(map(len, self.codes.values())) if worst < Certainty.ANY_REGION else 0
        return worst, len(unknown), strange, -chosen, -length

    def languages(self) -> tuple[str, ...]:
        """Return the languages of the codes: canonical codes, or as they are where they are unknown."""
        return tuple(_canonical(code) for code in self.codes.values())

    def _certainty(self, field: str, declared: Collection[str]) -> Certainty:
        code = self.codes[field]
        if code in declared:
            return Certainty.EXACT
        found = registry().certainty(code)
        # What is free before `CA` ends in `fr`: rather a region of it than Catalan.
        if found == Certainty.EXACT and _TWO_LETTERS.fullmatch(code):
            language = _LAST.search(self.before.get(field, ""))
            if language and registry().find(language[0]):
                return Certainty.ANY_REGION
        return found

    def _fits(self) -> bool:
        """Return whether the languages of a direction are two, and that of the text, if it has one, is among them."""
        known = {field: _canonical(code) for field, code in self.codes.items()}
        sides = {known[field] for field in ("source", "target") if field in known}
        if {"source", "target"} <= known.keys() and len(sides) < 2:
            return False
        return not sides or "language" not in known or known["language"] in sides


def _canonical(code: str) -> str:
    found = _language(code)
    return code if found is None else found.code


def _language(code: str) -> Language | None:
    return registry().find_with_region(code)


def choose_division(divisions: Sequence[Division], declared: Collection[str], name: str, pattern: str) -> int:
    """Return the number of the division that is meant; of several that differ in no language, the first.

    Args:
      divisions: at least one.
      declared: codes that the declaration of the corpus says the language of.
      name: the path, for the error.
      pattern: what it fits, for the error.

    Raises:
      UserError: several are left that are of different languages; the message names them and what to write.
    """
    if len(divisions) == 1:
        return 0
    ranks = [division.rank(declared) for division in divisions]
    best = min(ranks)
    left = [number for number, rank in enumerate(ranks) if rank == best]
    different = {divisions[number].languages(): divisions[number] for number in reversed(left)}
    if len(different) > 1 and best[0] < Certainty.UNKNOWN:
        raise _ambiguous(list(reversed(different.values())), name, pattern)
    return left[0]


def _ambiguous(divisions: Sequence[Division], name: str, pattern: str) -> UserError:
    shown = " or ".join(" and ".join(map(_shown, one.codes.values())) for one in divisions)
    longest = dict.fromkeys(max(one.codes.values(), key=len) for one in divisions)
    choice = " or ".join(f"`{code}: {_canonical(code)}`" for code in longest)
    return UserError(
        f"{name} may be {shown} by {pattern}; say under languages: which is meant, {choice}, "
        "or write the region in capitals in the file's name"
    )


def _shown(code: str) -> str:
    found = _language(code)
    return code if found is None else f"{code} ({found.english})"
