"""Scores of given translations: log probabilities of sentences and of tokens, and the perplexity of a text."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nmt.corpora.clean.text import normalise
from nmt.data.vocabularies import Vocabularies
from nmt.decode.alignment import Alignment, link_words, number_words
from nmt.decode.options import SearchOptions
from nmt.decode.reading import TargetReader, Tokens


class TokenScore(NamedTuple):
    """A token of a translation and its natural logarithm of p(token | tokens before it, source)."""

    piece: str  # of the vocabulary, such as `▁house`; `</s>` is the end
    log_probability: float


class PairScore(NamedTuple):
    """The score of a given translation of one text."""

    log_probability: float  # natural logarithm, of the whole translation and its end; nan: too long for the model
    score: float  # log probability over the length normaliser, as `Translation.score`
    tokens: tuple[TokenScore, ...]  # the end is the last; none if both sides are blank, or one is too long
    alignment: Alignment | None = None  # of words, where it was asked for

    @property
    def is_too_long(self) -> bool:
        """Whether a side is longer than the model can read, so that there is no score."""
        return math.isnan(self.log_probability)


@dataclass
class ScoreTotals:
    """Sums over the pairs of a text that have scores."""

    pairs: int = 0
    tokens: int = 0  # ends included
    log_probability: float = 0.0

    def add(self, scores: Sequence[PairScore]) -> None:
        """Count pairs; those that are blank or too long have no tokens, and are left out."""
        for score in scores:
            if score.tokens:
                self.pairs += 1
                self.tokens += len(score.tokens)
                self.log_probability += score.log_probability

    @property
    def perplexity(self) -> float:
        """The perplexity of a token: e to the mean negative log probability; nan if there is none."""
        return math.exp(-self.log_probability / self.tokens) if self.tokens else math.nan


class DirectionTokens(NamedTuple):
    """The tokens that tell the model a direction, and a domain."""

    before: tuple[int, ...]  # before the pieces of a source
    begin: int  # the decoder's first input


@dataclass(frozen=True)
class PairScorer:
    """Scores given translations with one model.

    Attributes:
      reader: reads targets with the model.
      vocabularies: its vocabularies.
      unicode: the normal form of Unicode of the training text.
    """

    reader: TargetReader
    vocabularies: Vocabularies
    unicode: str

    def score(
        self,
        sources: Sequence[str],
        targets: Sequence[str],
        direction: DirectionTokens,
        options: SearchOptions,
        alignment_layer: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> list[PairScore]:
        """Return the scores of pairs of texts; see `Translator.score`."""
        texts = [tuple(normalise(text, self.unicode) for text in pair) for pair in zip(sources, targets, strict=True)]
        encoded = zip(
            self.vocabularies.source.encode([source for source, _ in texts]),
            self.vocabularies.target.encode([target for _, target in texts]),
            strict=True,
        )
        tokens = [([*direction.before, *source, self.vocabularies.source.end], target) for source, target in encoded]
        read = [i for i, pair in enumerate(tokens) if any(texts[i]) and self._fits(*pair)]
        done = len(sources) - len(read)

        def tell(batch: Sequence[int]) -> None:
            nonlocal done
            done += len(batch)
            if progress:
                progress(done)

        pairs = [tokens[i][0] for i in read], [tokens[i][1] for i in read]
        logarithms = dict(zip(read, self.reader.log_probabilities(*pairs, direction.begin, tell), strict=True))
        weights: dict[int, np.ndarray] = {}
        if alignment_layer is not None:
            attention = self.reader.attention(*pairs, direction.begin, alignment_layer)
            weights = dict(zip(read, attention, strict=True))
        found = []
        for i, pair in enumerate(tokens):
            if i not in logarithms:
                value = math.nan if any(texts[i]) else 0.0
                found.append(PairScore(value, value, ()))
                continue
            total = float(logarithms[i].sum(dtype=np.float64))
            score = options.normalised(total, len(pair[1]))
            alignment = self.align(texts[i], pair, len(direction.before), weights[i]) if weights else None
            found.append(PairScore(total, score, self.token_scores(pair[1], logarithms[i]), alignment))
        return found

    def token_scores(self, target: Tokens, logarithms: Sequence[float] | np.ndarray) -> tuple[TokenScore, ...]:
        """Return the tokens of a target and its end with their log probabilities."""
        pieces = self.vocabularies.target.pieces([*target, self.vocabularies.target.end])
        return tuple(TokenScore(piece, float(value)) for piece, value in zip(pieces, logarithms, strict=True))

    def _fits(self, source: Tokens, target: Tokens) -> bool:
        return len(source) <= self.reader.longest_source and len(target) < self.reader.longest_target

    def align(self, texts: tuple[str, ...], pair: tuple[Tokens, Tokens], before: int, weights: np.ndarray) -> Alignment:
        """Return the alignment of the words of two texts.

        Args:
          texts: the source and the target.
          pair: their tokens; of the source as the model reads it.
          before: how many tokens are before the pieces of the source, and one after them: they are no words.
          weights: attention of the target to the source, see `TargetReader.attention`.
        """
        words = tuple(text.split() for text in texts)
        source, target = pair[0][before:-1], pair[1]
        numbers = (
            number_words(self.vocabularies.source.pieces(source), len(words[0])),
            number_words(self.vocabularies.target.pieces(target), len(words[1])),
        )
        inner = weights[: len(target), before : before + len(source)]
        return Alignment(tuple(words[0]), tuple(words[1]), link_words(inner, *numbers))
