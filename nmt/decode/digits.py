"""Numbers of a translation that are not those of its source."""

import re
import unicodedata
from collections import Counter

_RUN = re.compile(r"\d+")
# A number whose digits are grouped, by marks that languages choose differently: 12,345 12.345 12 345 12’345 1,23,456.
_GROUPED = re.compile(r"(?<!\d)\d{1,3}(?:[.,'’٬ \u00a0\u2009\u202f]\d{2,3})*[.,'’٬ \u00a0\u2009\u202f]\d{3}(?!\d)")
_NOT_DIGITS = re.compile(r"\D")


def changed_digits(source: str, translation: str) -> list[str]:
    """Return the runs of digits of a source that its translation has not, and the other way round.

    Runs are compared as multisets, whatever the script of the digits (١٢٣ is 123) and the marks between them (2.5 and
    2,5; 12,345 and 12.345 and 12345). Runs of one digit that only one side has do not count by themselves, for small
    numbers are often spelt out.

    Returns:
      Runs such as `["-12345", "+12355"]`: lost ones, then added ones; empty if the numbers agree.
    """
    if not _RUN.search(source) and not _RUN.search(translation):
        return []
    pairs = [(_runs(source), _runs(translation)), (_runs(_ungrouped(source)), _runs(_ungrouped(translation)))]
    found = [(sorted((one - other).elements()), sorted((other - one).elements())) for one, other in pairs]
    if any(_agree(lost, added) for lost, added in found):
        return []
    lost, added = found[0]
    return [*(f"-{run}" for run in lost), *(f"+{run}" for run in added)]


def _agree(lost: list[str], added: list[str]) -> bool:
    one_sided = not (lost and added)
    return one_sided and all(len(run) == 1 for run in lost + added)


def _ungrouped(text: str) -> str:
    return _GROUPED.sub(lambda number: _NOT_DIGITS.sub("", number[0]), text)


def _runs(text: str) -> Counter[str]:
    return Counter("".join(str(unicodedata.digit(digit)) for digit in run) for run in _RUN.findall(text))
