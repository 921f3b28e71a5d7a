"""Suspicious translations: signs, line by line, that a translation is not one. They need no reference.

Each sign has a threshold, a field of `SuspicionThresholds`; it is looked for in any pair of texts, whoever translated.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import NamedTuple, Self

from nmt.corpora.clean.scripts import writing
from nmt.decode.digits import changed_digits
from nmt.decode.loops import find_loop
from nmt.errors import UserError, did_you_mean
from nmt.languages import Direction

SHORTEST = 10.0  # characters, as of English, of a text whose length, script or likeness says something


class Suspicion(StrEnum):
    """A sign that a translation is not one; all but the first are named as their threshold."""

    BLANK = "blank"  # one side is blank
    LENGTH_RATIO = "length_ratio"  # one side is far longer than the other
    REPETITION = "repetition"  # the translation says something again and again that its source does not
    SCRIPT = "script"  # too few of the letters are in the script of the language
    COPIED = "copied"  # too many words of the translation are those of the source
    DIGITS = "digits"  # too many numbers are changed
    LOG_PROBABILITY = "log_probability"  # the model finds the translation improbable


@dataclass(frozen=True)
class SuspicionThresholds:
    """The thresholds of a report; each is a key of `nmt-score --threshold KEY=VALUE`.

    Args:
      length_ratio: most characters of a side for a character of the other, as lengths of English.
      repetition: least times in a row that are told of, see `nmt.decode.loops.find_loop`.
      script: least share of letters in the script of the language, from 0 to 1.
      copied: least share of words of the translation that are words of the source, from 0 to 1.
      digits: most runs of digits that are lost or added.
      log_probability: least mean natural logarithm of the probability of a token.

    Raises:
      UserError: a value is out of its bounds.
    """

    length_ratio: float = 3.0
    repetition: float = 2.0
    script: float = 0.5
    copied: float = 0.8
    digits: float = 0.0
    log_probability: float = -5.0

    def __post_init__(self) -> None:
        bounds = {"length_ratio": (1, None), "script": (0, 1), "copied": (0, 1), "log_probability": (None, 0)}
        for field in fields(self):
            value = getattr(self, field.name)
            least, most = bounds.get(field.name, (0, None))
            if (least is not None and value < least) or (most is not None and value > most) or value != value:
                limits = [f"at least {least}"] * (least is not None) + [f"at most {most}"] * (most is not None)
                raise UserError(f"the threshold {field.name} must be {' and '.join(limits)} (not {value:g})")

    @classmethod
    def parse(cls, settings: list[str]) -> Self:
        """Return the thresholds that settings such as `length_ratio=4` change.

        Raises:
          UserError: no such threshold, or its value is no number in its bounds.
        """
        names = [field.name for field in fields(cls)]
        values = {}
        for setting in settings:
            name, separator, text = setting.partition("=")
            if not separator or name not in names:
                known = did_you_mean(name, names) or f"; there are {', '.join(names)}"
                raise UserError(f"--threshold {setting}: it must be KEY=NUMBER, and {name!r} is no threshold{known}")
            try:
                values[name] = float(text)
            except ValueError:
                raise UserError(f"--threshold {setting}: {text!r} is no number") from None
        return cls(**values)


class Finding(NamedTuple):
    """A sign that was found in a pair."""

    reason: Suspicion
    value: str  # what was measured, in few words


def find_suspicions(
    source: str,
    target: str,
    direction: Direction,
    thresholds: SuspicionThresholds,
    mean_log_probability: float | None = None,
) -> Iterator[Finding]:
    """Yield the signs that a translation of a text is not one; none where both are blank.

    Args:
      source: the text.
      target: its translation.
      direction: their languages.
      thresholds: from where on something is a sign.
      mean_log_probability: that of a token of the translation, by a model; None: it is not known.
    """
    if not source.strip() or not target.strip():
        if source.strip() or target.strip():
            yield Finding(Suspicion.BLANK, "translation" if source.strip() else "source")
        return
    ways = writing(direction.source), writing(direction.target)
    lengths = ways[0].characters(source.strip()), ways[1].characters(target.strip())
    ratio = max(lengths) / min(lengths)
    if max(lengths) >= SHORTEST and ratio > thresholds.length_ratio:
        yield Finding(Suspicion.LENGTH_RATIO, f"{lengths[1] / lengths[0]:.2f}")
    loop = find_loop(source, target)
    if loop and loop.times >= thresholds.repetition:
        yield Finding(Suspicion.REPETITION, f"{loop.unit} x {loop.times}")
    yield from _scripts((source, target), direction, thresholds)
    share = _copied_share(source, target, direction)
    if share and share >= thresholds.copied:
        yield Finding(Suspicion.COPIED, f"{share:.0%}")
    changed = changed_digits(source, target)
    if len(changed) > thresholds.digits:
        yield Finding(Suspicion.DIGITS, " ".join(changed))
    if mean_log_probability is not None and mean_log_probability < thresholds.log_probability:
        yield Finding(Suspicion.LOG_PROBABILITY, f"{mean_log_probability:.2f}")


def _scripts(texts: tuple[str, str], direction: Direction, thresholds: SuspicionThresholds) -> Iterator[Finding]:
    """Yield the sides that are not in the script of their language; texts without many letters are in any."""
    for text, language in zip(texts, direction, strict=True):
        letters = "".join(filter(str.isalpha, text))
        way = writing(language)
        if way.characters(letters) >= SHORTEST and (share := way.share(letters)) < thresholds.script:
            yield Finding(Suspicion.SCRIPT, f"{language} {share:.0%}")


def _copied_share(source: str, target: str, direction: Direction) -> float:
    """Return the share of words, or letters where words are not spaced, of the translation that the source has."""
    if writing(direction.target).characters(target) < SHORTEST:
        return 0.0
    spaced = writing(direction.target).spaced
    one, other = (Counter(text.casefold().split() if spaced else text) for text in (source, target))
    return (one & other).total() / other.total()
