"""Subtitles, SubRip (.srt) and WebVTT (.vtt): the text of cues is translated, all else stays byte for byte.

The lines of a cue are joined, translated as one text and broken again. Where lines begin with dashes, as those of two
speakers do, each speaker is translated alone. WebVTT: https://www.w3.org/TR/webvtt1/.
"""

import html
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from nmt.decode.documents.breaking import break_lines
from nmt.decode.documents.units import DocumentLine, DocumentUnit
from nmt.decode.translator import Translation

_TIME = r"(?:\d+:)?\d{1,2}:\d{2}[.,]\d{1,3}"
_TIMING = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s|$)")
# Tags of HTML and of WebVTT (<i>, </i>, <v Anna>, <00:01.000>), and codes of SubStation Alpha ({\an8}).
_TAG = re.compile(r"</?[A-Za-z][^<>]*>|<(?:\d+:)?\d{2}:\d{2}\.\d{3}>|\{\\[^{}]*\}")
_LEADING = re.compile(rf"(?:{_TAG.pattern}|\s)*")
_TRAILING = re.compile(rf"(?:{_TAG.pattern}|\s)*$")
_SPEAKER = re.compile(r"(?:[-‐–—]\s*|>>\s*)(?=\S)")
_NAME = re.compile(r"<(/?)([A-Za-z]+)")


class Speech(NamedTuple):
    """The speech of one speaker of a cue: tags and dash before, the text, tags after, and the lines that it has."""

    before: str
    text: str
    after: str
    lines: list[str]

    @classmethod
    def read(cls, lines: Sequence[str]) -> Self:
        """Return the speech of lines; tags within the text are left out, those around it kept if they pair."""
        whole = " ".join(line.strip() for line in lines)
        leading = _LEADING.match(whole)
        assert leading
        dash = _SPEAKER.match(whole, leading.end())
        start = dash.end() if dash else leading.end()
        trailing = _TRAILING.search(whole, start)
        assert trailing
        inner = whole[start : trailing.start()]
        opened, closed = _names(inner)
        before = "".join(tag for tag in _TAG.findall(leading[0]) if not (set(_names(tag)[0]) & set(closed)))
        after = "".join(tag for tag in _TAG.findall(trailing[0]) if not (set(_names(tag)[1]) & set(opened)))
        text = " ".join(_TAG.sub("", inner).split())
        return cls(before + (dash[0] if dash else ""), text, after, [_TAG.sub("", line) for line in lines])


@dataclass(frozen=True)
class Subtitles:
    """Subtitles.

    Attributes:
      escaped: whether `&` and `<` are written as entities, as in WebVTT.
    """

    escaped: bool

    def units(self, lines: Iterable[DocumentLine]) -> Iterator[DocumentUnit]:
        """Yield cues and the lines between them."""
        timed = False
        cue: list[DocumentLine] = []
        for line in lines:
            if _TIMING.match(line.text):
                # Some files have no blank line between cues: the number of the next one is no text.
                number = [cue.pop()] if cue and cue[-1].text.strip().isdecimal() else []
                yield from self._cue(cue)
                yield from map(DocumentUnit.copied, number)
                cue, timed = [], True
                yield DocumentUnit.copied(line)
            elif timed and line.text.strip():
                cue.append(line)
            else:
                yield from self._cue(cue)
                cue, timed = [], False
                yield DocumentUnit.copied(line)
        yield from self._cue(cue)

    def _cue(self, lines: list[DocumentLine]) -> Iterator[DocumentUnit]:
        if not lines:
            return
        speeches = [Speech.read(one) for one in _speakers([line.text for line in lines])]
        texts = tuple(html.unescape(one.text) if self.escaped else one.text for one in speeches)
        size = sum(line.size for line in lines)
        yield DocumentUnit(lines[0].number, size, len(lines), texts, self._composer(lines, speeches))

    def _composer(self, lines: list[DocumentLine], speeches: list[Speech]) -> Callable[[Sequence[Translation]], bytes]:
        def compose(translations: Sequence[Translation]) -> bytes:
            written: list[str] = []
            for speech, translation in zip(speeches, translations, strict=True):
                broken = break_lines(translation.text, speech.lines)
                if self.escaped:
                    broken = [html.escape(one, quote=False) for one in broken]
                broken[0] = speech.before + broken[0]
                broken[-1] += speech.after
                written += broken
            between = next((line.end for line in lines if line.end), b"\n")
            return lines[0].mark.encode() + between.join(one.encode() for one in written) + lines[-1].end

        return compose


def _speakers(lines: list[str]) -> list[list[str]]:
    """Return the lines of each speaker: all of them, unless at least two begin with a dash."""
    starts = [bool(_SPEAKER.match(_LEADING.sub("", line, count=1))) for line in lines]
    if sum(starts) < 2:
        return [lines]
    found: list[list[str]] = []
    for line, start in zip(lines, starts, strict=True):
        if start or not found:
            found.append([])
        found[-1].append(line)
    return found


def _names(text: str) -> tuple[list[str], list[str]]:
    """Return the names of tags that a text opens, and of those that it closes."""
    found = _NAME.findall(text)
    return [name for slash, name in found if not slash], [name for slash, name in found if slash]
