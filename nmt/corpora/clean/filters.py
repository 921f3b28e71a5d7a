"""The checks of one row: of its text in the key language, and of each translation against it."""

import functools
import re
import unicodedata
from collections import Counter

from nmt.config import CleanConfig
from nmt.corpora.clean.han import HAN_SCRIPTS, han_share
from nmt.corpora.clean.identify import Identifier
from nmt.corpora.clean.reasons import Reason
from nmt.corpora.clean.scripts import writing
from nmt.corpora.clean.text import normalise

_UNPRINTABLE = frozenset({"Cc", "Co", "Cs"})
_PLACEHOLDER = re.compile(
    r"""
      %\(\w+\)[a-z]                                       # %(name)s
    | %\d                                                 # %1, %1$s
    | %\d*\$?[-+\ 0#]*\d*(?:\.\d+)?l*[sdiufxcg@]          # %s, %-5.2f, %ld, %@; and, harmlessly, `100% done`
    | \$\{ | \$\w                                         # ${name}, $name
    | [{}]                                                # {name}, {{ template }}
    | \[%.*?%\]                                           # [%key:component::common::text%]
    | <[^<>]+>                                            # <b>, </a>, <name>
    | &[#\w]+;                                            # an entity that unescaping does not know
    | \w:// | \bwww\.\S                                   # URL
    | \]\( | \]\[                                         # [Markdown](link), [link][label]
    | `                                                   # `code`
    | \w::\w                                              # key::path
    """,
    re.VERBOSE,
)
# The host of a URL or of an e-mail address.
_HOST = re.compile(r"(?:\w://(?:www\.)?|\bwww\.|\w@)([\w-]+(?:\.[\w-]+)+)")
_NOT_DIGITS = re.compile(r"\D+")
# A number of fewer digits is often spelt out, or written otherwise (5 PM, 17:00).
_FEW_DIGITS = 3
# In scripts without spaces, the longest unit that counts as a repeated word; the shortest has two letters.
_LONGEST_REPEATED = 8


class Filters:
    """The checks of rows for one configuration. Texts must be normalised before they are checked."""

    def __init__(self, config: CleanConfig) -> None:
        """Compile the checks. Raises UserError if the configuration needs a package that is not installed."""
        self._config = config
        self._identifier = None if config.language_confidence is None else Identifier(config.language_confidence)
        most = config.max_repeated_characters
        self._characters = re.compile(rf"(\S)\1{{{most},}}") if most else None
        words = config.max_repeated_words
        self._words = re.compile(rf"(?:^|\s)(\S+)(?:\s+\1){{{words},}}(?:\s|$)", re.IGNORECASE) if words else None
        self._unspaced = re.compile(rf"(\S{{2,{_LONGEST_REPEATED}}}?)\1{{{words},}}") if words else None

    def normalise(self, text: str) -> str:
        """Return the normal form in which a text is stored."""
        return normalise(text, self._config.unicode)

    def key(self, text: str, language: str) -> Reason | None:
        """Return the reason to reject a text of the corpus's key language (canonical code), or None."""
        config = self._config
        if reason := self._form(text, language):
            return reason
        words = writing(language).words(text)
        if words < config.min_words:
            return Reason.TOO_SHORT
        if words > config.max_words:
            return Reason.TOO_LONG
        if _letters(text) < config.min_letters * len(text.replace(" ", "")):
            return Reason.FEW_LETTERS
        return self._content(text, language)

    def translation(self, key: str, key_language: str, text: str, language: str) -> Reason | None:
        """Return the reason to reject a translation of `key`, which itself is kept, or None.

        A translation is compared with the key language's text only, also where a direction pairs two translations.
        """
        config = self._config
        if reason := self._form(text, language):
            return reason
        if config.copies and text == key:
            return Reason.COPY
        if config.max_length_ratio is not None:
            ratio = writing(language).characters(text) / writing(key_language).characters(key)
            if not 1 / config.max_length_ratio < ratio < config.max_length_ratio:
                return Reason.LENGTH_RATIO
        if reason := self._content(text, language):
            return reason
        if digit_overlap(key, text) < config.min_digit_overlap:
            return Reason.NUMBERS
        return Reason.ADDRESSES if config.addresses and not same_hosts(key, text) else None

    def copies(self, source: str, target: str) -> bool:
        """Return whether two translations are to be rejected as copies of each other."""
        return self._config.copies and source == target

    def _form(self, text: str, language: str) -> Reason | None:
        config = self._config
        if not text:
            return Reason.EMPTY
        if _unprintable(text) if config.control_characters else _unencodable(text):
            return Reason.CONTROL
        if config.placeholders and _PLACEHOLDER.search(text):
            return Reason.PLACEHOLDER
        characters = writing(language).characters(text)
        if characters < config.min_characters:
            return Reason.TOO_SHORT
        return Reason.TOO_LONG if characters > config.max_characters else None

    def _content(self, text: str, language: str) -> Reason | None:
        if self._repeats(text, language):
            return Reason.REPEATED
        script = writing(language).script
        if self._config.min_script and writing(language).share(text) < self._config.min_script:
            return Reason.SCRIPT
        if script in HAN_SCRIPTS and han_share(text, script) < self._config.min_script:
            return Reason.CHINESE
        return Reason.LANGUAGE if self._identifier and self._identifier.other(text, language) else None

    def _repeats(self, text: str, language: str) -> bool:
        if self._characters and self._characters.search(text):
            return True
        most = self._config.max_repeated_words
        if most is None or not self._words or not self._unspaced:
            return False
        if not writing(language).spaced:
            return bool(self._unspaced.search(text))
        # The search is slow, and few texts have as many words twice.
        words = text.casefold().split()
        return len(words) - len(set(words)) >= most and bool(self._words.search(text))


def digit_overlap(left: str, right: str) -> float:
    """Return the number of digits that two texts have in common, divided by the digits of the text that has more.

    Digits of all scripts are counted one by one, so that 1,234.5, 1.234,5 and ١٢٣٤٫٥ are equal. The result is 1 where
    neither text has three digits, or one has none: such numbers are often spelt out, or written otherwise.
    """
    digits = [_digits(text) for text in (left, right)]
    most = max(map(len, digits))
    if most < _FEW_DIGITS or not all(digits) or digits[0] == digits[1]:
        return 1.0
    return (Counter(digits[0]) & Counter(digits[1])).total() / most


def same_hosts(left: str, right: str) -> bool:
    """Return whether two texts share a host of URLs or e-mail addresses; True if neither has any."""
    if not any(sign in text for text in (left, right) for sign in ("@", "://", "www.")):
        return True
    hosts = [set(map(str.casefold, _HOST.findall(text))) for text in (left, right)]
    return hosts[0] == hosts[1] or not hosts[0].isdisjoint(hosts[1])


def _digits(text: str) -> str:
    found = _NOT_DIGITS.sub("", text)
    return found if found.isascii() else "".join(str(unicodedata.digit(digit)) for digit in found)


def _letters(text: str) -> int:
    """Return how many characters are letters or marks; in many scripts vowels are marks."""
    if text.isascii():
        return sum(map(str.isalpha, text))
    return sum(map(_is_letter, text))


@functools.lru_cache(maxsize=1 << 16)
def _is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] in "LM"


def _unprintable(text: str) -> bool:
    if "\ufffd" in text:
        return True
    return not text.isprintable() and not _UNPRINTABLE.isdisjoint(map(unicodedata.category, text))


def _unencodable(text: str) -> bool:
    return not text.isprintable() and any("\ud800" <= character <= "\udfff" for character in text)
