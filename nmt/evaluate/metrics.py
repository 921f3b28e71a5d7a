"""Corpus-level BLEU and chrF++ of one direction, each with the sacreBLEU signature that reproduces it."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sacrebleu.metrics import BLEU, CHRF

from nmt import languages
from nmt.decode.digits import changed_digits
from nmt.decode.loops import find_loop
from nmt.errors import UserError
from nmt.languages import Direction

# chrF++ is chrF with words and word bigrams (Popović 2017, "chrF++: words helping character n-grams").
CHRF_WORD_ORDER = 2


@dataclass(frozen=True)
class Cell:
    """The scores of one direction on one test set.

    BLEU and chrF++ go from 0 to 100; the length ratio is of tokens as BLEU counts them; shares go from 0 to 1.
    """

    direction: Direction
    sentences: int
    bleu: float
    chrf: float  # chrF++
    bleu_signature: str
    chrf_signature: str
    length_ratio: float  # hypotheses : references; 0 if the references hold no token
    empty: float  # share of outputs without any character but spaces
    copied: float  # share of outputs that equal their source, spaces around them aside
    loops: float  # share of outputs that repeat a letter, word or phrase in a row, see `nmt.decode.loops`
    changed_digits: float  # share of outputs whose numbers are not those of their source, see `nmt.decode.digits`
    references: int = 1  # most references of a sentence


def score(
    direction: Direction,
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: Sequence[str],
    others: Sequence[Sequence[str]] = (),
) -> Cell:
    """Return the scores of the hypotheses; BLEU uses the tokenizer that the registry gives for the target language.

    Args:
      direction: source and target language, canonical codes.
      sources, hypotheses, references: equally many sentences, detokenised text as people write it.
      others: further references of each sentence, where it has some. The signature says how many there are, `nrefs`.

    Raises:
      UserError: no sentences, or the tokenizer needs a package or a download that is not there.
      ValueError: unequal numbers of sentences.
    """
    if not sources:
        raise UserError(f"nothing to score for {direction}: its test set has no sentences")
    if not len(sources) == len(hypotheses) == len(references):
        raise ValueError(f"{len(sources)} sources, {len(hypotheses)} hypotheses, {len(references)} references")
    bleu, chrf = _bleu(languages.get(direction.target).tokenizer), CHRF(word_order=CHRF_WORD_ORDER)
    streams = [references, *itertools.zip_longest(*others)]  # None where a sentence has fewer
    bleu_score = bleu.corpus_score(hypotheses, streams)
    chrf_score = chrf.corpus_score(hypotheses, streams)
    return Cell(
        direction=direction,
        sentences=len(sources),
        bleu=float(bleu_score.score),
        chrf=float(chrf_score.score),
        bleu_signature=str(bleu.get_signature()),
        chrf_signature=str(chrf.get_signature()),
        length_ratio=float(bleu_score.ratio),
        empty=_share(lambda source, hypothesis: not hypothesis, sources, hypotheses),
        copied=_share(lambda source, hypothesis: bool(source) and hypothesis == source, sources, hypotheses),
        references=len(streams),
        **text_faults(sources, hypotheses),
    )


def text_faults(sources: Sequence[str], hypotheses: Sequence[str]) -> dict[str, float]:
    """Return the shares of hypotheses that loop and that change digits, by the names of the fields of `Cell`."""
    return {
        "loops": _share(lambda source, hypothesis: find_loop(source, hypothesis) is not None, sources, hypotheses),
        "changed_digits": _share(lambda *pair: bool(changed_digits(*pair)), sources, hypotheses),
    }


@cache
def _bleu(tokenizer: str) -> Any:
    try:
        return BLEU(tokenize=tokenizer)
    except (ImportError, RuntimeError, OSError) as error:  # sacreBLEU: no package, no dictionary, no download
        reason = " ".join(str(error).split())
        raise UserError(f"the BLEU tokenizer {tokenizer!r} is not available: {reason}") from None


def _share(holds: Callable[[str, str], bool], sources: Sequence[str], hypotheses: Sequence[str]) -> float:
    pairs = zip(sources, hypotheses, strict=True)
    return sum(holds(source.strip(), hypothesis.strip()) for source, hypothesis in pairs) / len(sources)
