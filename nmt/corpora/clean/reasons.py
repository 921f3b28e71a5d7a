"""The reasons for which a pair is rejected."""

from enum import StrEnum


class Reason(StrEnum):
    """The reason to reject a pair.

    One reason is counted for each pair: that of its text in the key language if there is one, else that of a
    translation or of the pair. See docs/cleaning.md for the keys that turn them on.
    """

    EMPTY = "empty"  # nothing but white space on a side
    CONTROL = "control"  # control, private-use or replacement characters, lone surrogates
    PLACEHOLDER = "placeholder"  # markup and code: no human sentence on its own
    TOO_SHORT = "too_short"  # too few words in the key language, or characters of a side
    TOO_LONG = "too_long"  # too many of them
    FEW_LETTERS = "few_letters"  # mostly numbers and symbols, in the key language
    REPEATED = "repeated"  # one character or word many times in a row
    SCRIPT = "script"  # a side is not in the script of its language
    CHINESE = "chinese_script"  # a side is in Traditional characters where Simplified ones are declared, or the reverse
    LANGUAGE = "language"  # a side is in another language, by the identification of languages
    COPY = "copy"  # both sides are identical, so not translated
    LENGTH_RATIO = "length_ratio"  # one side is far longer than the other
    NUMBERS = "numbers"  # the digits of one side are not those of the other
    ADDRESSES = "addresses"  # the sides name different hosts, in URLs or e-mail addresses
    DUPLICATE = "duplicate"  # the text in the key language was met before
    NEAR_DUPLICATE = "near_duplicate"  # a text was met before that differs in digits, case or punctuation only
    HELD_OUT = "held_out"  # a side also occurs in a split that is held out from this one
    CONTAMINATED = "contaminated"  # a side of a training pair overlaps with held-out text, or a named test set
