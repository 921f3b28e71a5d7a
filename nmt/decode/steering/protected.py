"""Text that a translation keeps byte for byte: addresses, placeholders, tags, and what a person says is not translated.

Such spans are found by their form alone, in sources and in translations by the same patterns, so that a span of one is
compared with a span of the other.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nmt.corpora.clean.scripts import UNSPACED_LETTERS
from nmt.decode.steering.words import find_whole, is_whole
from nmt.errors import UserError

_ADDRESS = rf"[^\s<>{{}}\"'`“”„«»‹›，。；：！？、（）【】「」『』{UNSPACED_LETTERS}]"
_NUMBER = r"(?:\d+|\*)?"
_PRINTF = rf"%(?:\d+\$)?[-+0#']*{_NUMBER}(?:\.{_NUMBER})?(?:hh|h|ll|l|z|j|t|L|q)?[diouxXeEfFgGcCsSpn@]"
_PATTERNS = {
    "address": (
        rf"(?:https?|ftps?|sftp|ssh|git|file|wss?)://{_ADDRESS}+|mailto:{_ADDRESS}+|(?<![A-Za-z0-9.@-])www\.{_ADDRESS}+",
        r"(?<![\w.+%-])[\w.+%-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+",
    ),
    "placeholder": (
        r"[$%#]?\{\{[^{}]*\}\}",  # {{x}} of Mustache and Jinja
        r"[$%#]\{[^{}]*\}|\$\([^()\s]*\)",  # ${x}, %{x}, #{x}, $(x)
        r"\{ ?[\w.:!#%$+\-\[\]]* ?\}|\{\w+(?:, *[\w#.:'-]+)+\}",  # {}, {name}, {0:.2f}, {when, date, short}
        # After a figure the percent sign is one, if a word goes on: 100%ig, 100 %ige.
        rf"(?<!\d)(?<!\d\s){_PRINTF}|{_PRINTF}(?![A-Za-z])",
        r"%\(\w+\)[-+0#]*\d*(?:\.\d+)?[a-zA-Z]",  # %(name)s of Python
        r"%%|%L?\d{1,2}(?![\w%])|%[A-Z][A-Z_]+%",  # %1 of Qt, %PATH%
        r"(?<![\w$])\$[A-Za-z_]\w*",  # $name
        r"__[A-Za-z0-9]+__",
        r"\\[nrt]",  # a line break or tab, as it is written in files of messages
    ),
    "tag": (
        r"</?\d+ */?>",  # <0> of React
        r"</?[A-Za-z][\w:.-]*(?:\s+[\w:.-]+\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s\"'<>=]+))*\s*/?>",
    ),
}
_KNOWN = re.compile(
    "|".join(f"(?P<{kind}>{'|'.join(f'(?:{one})' for one in patterns)})" for kind, patterns in _PATTERNS.items())
)
_TRAILING = ".,;:!?…"
_BRACKETS = {")": "(", "]": "[", "}": "{"}
_WIDE = {chr(code): chr(code + 0xFEE0) for code in range(0x21, 0x7F)}  # the full-width forms of ASCII


class ProtectedSpan(NamedTuple):
    """A stretch of text that is kept."""

    start: int
    end: int
    kind: str  # address, placeholder, tag, term
    text: str


@dataclass(frozen=True)
class ProtectedText:
    """The rules that say which text is kept.

    Attributes:
      known: whether addresses, placeholders and tags are.
      terms: terms that are, as whole words and in this case.
      pattern: a regular expression of others, or none.
    """

    known: bool = True
    terms: tuple[str, ...] = ()
    pattern: re.Pattern[str] | None = None

    def find(self, text: str) -> list[ProtectedSpan]:
        """Return the spans of a text from left to right, without overlaps; where several begin, the longest."""
        chosen: list[ProtectedSpan] = []
        for span in sorted(self._candidates(text), key=lambda span: (span.start, -span.end)):
            if not chosen or span.start >= chosen[-1].end:
                chosen.append(span)
        return chosen

    def _candidates(self, text: str) -> Iterator[ProtectedSpan]:
        if self.known:
            for match in _KNOWN.finditer(text):
                kind = str(match.lastgroup)
                end = _address_end(text, match.start(), match.end()) if kind == "address" else match.end()
                yield ProtectedSpan(match.start(), end, kind, text[match.start() : end])
        for term in self.terms:
            yield from (ProtectedSpan(start, end, "term", text[start:end]) for start, end in find_whole(text, term))
        for match in self.pattern.finditer(text) if self.pattern else ():
            if match.end() > match.start():
                yield ProtectedSpan(match.start(), match.end(), "term", match[0])


def compile_kept_pattern(pattern: str) -> re.Pattern[str]:
    """Return a person's regular expression. Raises UserError if it is not one."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UserError(f"{pattern!r} is not a regular expression: {error}") from None


def _address_end(text: str, start: int, end: int) -> int:
    """Return where an address ends: punctuation after it, and brackets that were opened before it, are not its own."""
    while end > start:
        last = text[end - 1]
        opening = _BRACKETS.get(last)
        unopened = opening and text.count(opening, start, end) < text.count(last, start, end)
        if last not in _TRAILING and not unopened:
            break
        end -= 1
    return end


class Repair(NamedTuple):
    """A translation whose protected spans were compared with those of its source."""

    text: str
    changed: bool  # whether the text was changed
    missing: tuple[str, ...]  # spans of the source that it still lacks, each as often as it does
    surplus: tuple[str, ...]  # spans that the source has not, or not as often


def repair_spans(
    source: Sequence[ProtectedSpan], translation: str, find: Callable[[str], list[ProtectedSpan]]
) -> Repair:
    """Compare a translation's spans with the source's, and put right those that can be recognised.

    A span is recognised if it differs in white space, case or width of its characters only (`{ Name }` for `{name}`).
    Of what is left, a span of the source and one of the translation are exchanged if both are of one kind and as many
    of this kind are missing as are too many (`{nombre}` for `{name}`).

    Args:
      source: the spans of the source.
      translation: the text.
      find: finds the spans of a text.
    """
    text = translation
    texts = {span.text for span in source}
    for span in _missing(source, find(text)):
        right = [one for one in find(text) if one.text in texts]
        text = _restore_spelling(text, span, right)
    for kind in dict.fromkeys(span.kind for span in source):
        text = _exchange(text, kind, source, find)
    found = find(text)
    return Repair(
        text,
        text != translation,
        tuple(span.text for span in _missing(source, found)),
        tuple(span.text for span in _missing(found, source)),
    )


def _missing(wanted: Sequence[ProtectedSpan], found: Sequence[ProtectedSpan]) -> list[ProtectedSpan]:
    """Return the wanted spans that are not found, or not as often."""
    left = Counter(span.text for span in found)
    missing = []
    for span in wanted:
        left[span.text] -= 1
        if left[span.text] < 0:
            missing.append(span)
    return missing


def _restore_spelling(text: str, span: ProtectedSpan, right: Sequence[ProtectedSpan]) -> str:
    """Return the text with the first other spelling of a span replaced by it; the right spans stay as they are."""
    loose = r"\s*".join(_loose_character(character) for character in span.text if not character.isspace())
    for match in re.finditer(loose, text, re.IGNORECASE):
        start, end = match.span()
        if is_whole(text, start, end) and not any(start < one.end and one.start < end for one in right):
            return text[:start] + span.text + text[end:]
    return text


def _loose_character(character: str) -> str:
    return f"[{re.escape(character)}{_WIDE[character]}]" if character in _WIDE else re.escape(character)


def _exchange(text: str, kind: str, source: Sequence[ProtectedSpan], find: Callable[[str], list[ProtectedSpan]]) -> str:
    """Return the text with its wrong spans of a kind replaced by the missing ones, most similar first."""
    found = find(text)
    missing = [span for span in _missing(source, found) if span.kind == kind]
    # Of spans that are there too often any may be the wrong one: they are left.
    known = {span.text for span in source}
    wrong = [span for span in found if span.kind == kind and span.text not in known]
    if kind == "term" or not missing or len(missing) != len(wrong):
        return text
    exchanges = []
    while missing:
        lost, false = max(((m, w) for m in missing for w in wrong), key=lambda pair: _similarity(pair[0], pair[1]))
        exchanges.append((false, lost.text))
        missing.remove(lost)
        wrong.remove(false)
    for false, replacement in sorted(exchanges, reverse=True):
        text = text[: false.start] + replacement + text[false.end :]
    return text


def _similarity(one: ProtectedSpan, other: ProtectedSpan) -> float:
    from difflib import SequenceMatcher

    return SequenceMatcher(None, one.text, other.text, autojunk=False).ratio()
