"""The reasons for which a pair is rejected."""

from enum import StrEnum


class Reason(StrEnum):
    """Why a pair is rejected.

    One reason is counted, in this order: the key language's if it has any, else that of a translation or of the pair.
    """

    EMPTY = "empty"  # nothing but white space on a side
    CONTROL = "control"  # control, private-use or replacement characters, lone surrogates
    PLACEHOLDER = "placeholder"  # markup and code: no human sentence on its own
    TOO_SHORT = "too_short"  # words of the key language, or characters of a side
    TOO_LONG = "too_long"  # words of the key language, or characters of a side
    FEW_LETTERS = "few_letters"  # numbers, symbols: of the key language
    REPEATED = "repeated"  # one character, or one word, many times on end
    SCRIPT = "script"  # a side is not in the script of its language
    LANGUAGE = "language"  # a side is in another language, says the model that identifies them
    COPY = "copy"  # both sides are identical: not translated
    LENGTH_RATIO = "length_ratio"  # one side far longer than the other
    NUMBERS = "numbers"  # the digits of one side are not those of the other
    ADDRESSES = "addresses"  # the sides name different hosts, in URLs or e-mail addresses
    DUPLICATE = "duplicate"  # the key language's text was met before
    NEAR_DUPLICATE = "near_duplicate"  # it was met before but for digits, case, punctuation
    HELD_OUT = "held_out"  # a side also stands in a split that is held out from this one
    CONTAMINATED = "contaminated"  # a side of a training pair is nearly a held-out text, or one of a named test set
