"""Details of translations that a search does not give: scores of their tokens, and alignments of their words.

A finished translation is read once more, in one step, so that no search is slower for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nmt.decode.alignment import Alignment
from nmt.decode.long_text import part_spaces
from nmt.decode.prepared import PreparedLine
from nmt.decode.reading import Tokens
from nmt.decode.scoring import DirectionTokens, PairScorer, TokenScore
from nmt.languages import Language


@dataclass(frozen=True)
class DetailOptions:
    """The details that are wanted.

    Attributes:
      tokens: whether tokens are scored.
      alignment_layer: the decoder layer, from 0, whose attention aligns words; None: they are not aligned.
    """

    tokens: bool = False
    alignment_layer: int | None = None


class PartTranslation(NamedTuple):
    """A part of a line, as the model reads it, and its translation."""

    source: Tokens  # those around the pieces included
    target: Tokens  # without begin and end
    text: str  # of the target


class LineDetails(NamedTuple):
    """Details of the translation of a line."""

    tokens: tuple[TokenScore, ...] = ()  # of all its parts, each with its end
    alignment: Alignment | None = None


def read_details(
    lines: Sequence[PreparedLine],
    translations: Sequence[PartTranslation],
    scorer: PairScorer,
    direction: DirectionTokens,
    languages: tuple[Language, Language],
    options: DetailOptions,
) -> list[LineDetails]:
    """Return the details of the translations of lines.

    Args:
      lines: the lines.
      translations: those of all their parts.
      scorer: reads translations with the model that made them.
      direction: the tokens of the direction.
      languages: source and target.
      options: what is wanted.
    """
    pairs = [one.source for one in translations], [one.target for one in translations]
    tokens: list[tuple[TokenScore, ...]] = [()] * len(translations)
    if options.tokens:
        found = scorer.reader.log_probabilities(*pairs, direction.begin)
        tokens = list(map(scorer.token_scores, pairs[1], found))
    alignments: list[Alignment] = []
    if options.alignment_layer is not None:
        parts = [part for line in lines for part in line.parts]
        weights = scorer.reader.attention(*pairs, direction.begin, options.alignment_layer)
        alignments = [
            scorer.align((part.text, one.text), (one.source, one.target), len(direction.before), attention)
            for part, one, attention in zip(parts, translations, weights, strict=True)
        ]
    details, used = [], 0
    for line in lines:
        here = slice(used, used := used + len(line.parts))
        alignment = None if options.alignment_layer is None else _join(line, alignments[here], languages)
        details.append(LineDetails(tuple(token for one in tokens[here] for token in one), alignment))
    return details


def _join(line: PreparedLine, parts: Sequence[Alignment], languages: tuple[Language, Language]) -> Alignment:
    """Return the alignment of a line from those of its parts; the words of paragraphs that are copied are their own."""
    joined = _Joined()
    left = iter(parts)
    for paragraph in line.paragraphs:
        if not paragraph.parts:
            words = tuple(paragraph.text.split())
            joined.add(Alignment(words, words, tuple((i, i) for i in range(len(words)))), False, False)
            continue
        glued = False, False
        for part, space in zip(paragraph.parts, part_spaces(paragraph.parts, *languages), strict=True):
            joined.add(next(left), *glued)
            glued = not part.space, not space
    return Alignment(tuple(joined.source), tuple(joined.target), tuple(joined.links))


class _Joined:
    """Words and links of a line, part by part."""

    def __init__(self) -> None:
        self.source: list[str] = []
        self.target: list[str] = []
        self.links: list[tuple[int, int]] = []

    def add(self, part: Alignment, source_glued: bool, target_glued: bool) -> None:
        """Add a part, whose first words belong to the last ones if no space is between."""
        first = _extend(self.source, part.source, source_glued), _extend(self.target, part.target, target_glued)
        self.links += [(first[0] + source, first[1] + target) for source, target in part.links]


def _extend(words: list[str], more: Sequence[str], glued: bool) -> int:
    """Add words, and return the number of the first of them."""
    if glued and words and more:
        words[-1] += more[0]
        words += more[1:]
        return len(words) - len(more)
    words += more
    return len(words) - len(more)
