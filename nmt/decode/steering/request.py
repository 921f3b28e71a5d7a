"""Requests for steering: what a person asks of translations, and what it means for one stretch of source text."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from nmt.corpora.clean.text import normalise
from nmt.decode.steering.glossary import Glossary, TermMatch, Wording, parse_wordings
from nmt.decode.steering.pieces import PhraseLattice, PieceTable
from nmt.decode.steering.prefix import RowPrefix
from nmt.decode.steering.protected import ProtectedSpan, ProtectedText, compile_kept_pattern, repair_spans
from nmt.decode.steering.rows import PhraseConstraint, RowConstraints
from nmt.decode.steering.words import capitalise, find_whole
from nmt.errors import UserError

PHRASE_BONUS = 5.0


@dataclass(frozen=True)
class Steering:
    """A request for translations that begin with, have, lack or keep some text.

    Phrases are written as in a glossary: alternatives with `|` between them, `*` at the end for any ending.

    Args:
      prefix: the beginning of a translation; a space at its end says that another word follows.
      prefix_bias_beta: 0: translations have the prefix; above 0 and below 1: they are drawn to it, the more the closer
        it is to 1 (CTranslate2's option of this name).
      glossary: terms; where one stands in the source, its wording is wanted in the translation.
      glossary_mode: force: a translation has a wording of each term; prefer: it may do without.
      force: phrases that every translation has.
      forbid: phrases that no translation has.
      keep: terms of the source that are copied.
      keep_pattern: a regular expression of others that are.
      protect: whether addresses, placeholders and tags are.
      phrase_bonus: natural logarithm of the factor by which a search prefers a hypothesis with a wanted phrase: the
        greater, the earlier it takes a wanted phrase that the model finds improbable.

    Raises:
      UserError: a value is out of its bounds, a phrase is empty, or the expression is not one.
    """

    prefix: str = ""
    prefix_bias_beta: float = 0.0
    glossary: Glossary | None = None
    glossary_mode: Literal["force", "prefer"] = "force"
    force: Sequence[str] = ()
    forbid: Sequence[str] = ()
    keep: Sequence[str] = ()
    keep_pattern: str | None = None
    protect: bool = True
    phrase_bonus: float = PHRASE_BONUS

    def __post_init__(self) -> None:
        for name in ("force", "forbid", "keep"):
            if isinstance(getattr(self, name), str):
                raise UserError(f"{name} must be a sequence of phrases, not one text")
        if not 0.0 <= self.prefix_bias_beta < 1.0:
            raise UserError(f"prefix_bias_beta must be at least 0 and below 1 (not {self.prefix_bias_beta})")
        if not self.phrase_bonus >= 0.0:
            raise UserError(f"phrase_bonus must be at least 0 (not {self.phrase_bonus})")
        if self.glossary_mode not in ("force", "prefer"):
            raise UserError(f"glossary_mode must be force or prefer (not {self.glossary_mode!r})")
        if not all(map(str.strip, self.keep)):
            raise UserError("keep has an empty term")
        self.forced, self.forbidden, self.protected  # noqa: B018 - mistakes in them are told now

    @cached_property
    def forced(self) -> tuple[tuple[Wording, ...], ...]:
        """The alternatives of each forced phrase."""
        return tuple(_read_phrases("force", self.force))

    @cached_property
    def forbidden(self) -> tuple[Wording, ...]:
        """The forbidden phrases."""
        return tuple(one for alternatives in _read_phrases("forbid", self.forbid) for one in alternatives)

    @cached_property
    def protected(self) -> ProtectedText:
        """The rules that say which text is kept."""
        pattern = None if self.keep_pattern is None else compile_kept_pattern(self.keep_pattern)
        return ProtectedText(self.protect, tuple(normalise(term) for term in self.keep), pattern)

    @property
    def searches(self) -> bool:
        """Whether a search is steered from its beginning."""
        return bool(self.prefix.strip() or self.glossary is not None or self.force or self.forbid)


def _read_phrases(name: str, phrases: Iterable[str]) -> Iterable[tuple[Wording, ...]]:
    for phrase in phrases:
        alternatives = tuple(one._replace(text=normalise(one.text)) for one in parse_wordings(phrase))
        if not all(one.text for one in alternatives):
            raise UserError(f"{name} has an empty phrase: {phrase!r}")
        yield alternatives


@dataclass(frozen=True)
class SentenceSteering:
    """The steering of one stretch of source text.

    Attributes:
      constraints: the phrases that its translation must have, should have, or must not have.
      prefix: its beginning.
      spans: the spans that it keeps.
    """

    constraints: RowConstraints = field(default_factory=RowConstraints)
    prefix: RowPrefix = field(default_factory=RowPrefix)
    spans: tuple[ProtectedSpan, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.constraints or self.prefix)

    @property
    def room(self) -> int:
        """Return the tokens that its phrases and prefix may take, by which a translation may be longer."""
        return self.constraints.room + self.prefix.room


class SteeringPlanner:
    """Says what a request means for stretches of source text.

    Args:
      steering: the request.
      pieces: gives the pieces of the vocabulary of targets; asked only where a search is steered.

    Raises:
      UserError: the vocabulary cannot write a phrase, or a phrase that is wanted has one that is forbidden.
    """

    def __init__(self, steering: Steering, pieces: Callable[[], PieceTable]):
        self.steering, self._pieces = steering, pieces
        self._prefix = self._encode_prefix(steering.prefix)
        self._forbidden = {one: self._lattice(one) for one in steering.forbidden}
        for one in steering.forbidden:  # also where it begins a sentence
            if self._can_write(initial := capitalise(one.text)):
                self._forbidden[one._replace(text=initial)] = self._lattice(one._replace(text=initial))
        self._forced = tuple(
            PhraseConstraint(tuple(self._lattice(one) for one in self._permitted(alternatives)))
            for alternatives in steering.forced
        )
        for entry in steering.glossary.entries if steering.glossary else ():
            for wording in self._permitted(entry.targets, f"{entry.place}: "):
                try:
                    self._pieces().encode(wording.text)
                except UserError as error:
                    raise UserError(f"{entry.place}: {error}") from None

    def plan(self, text: str, *, first: bool = True, prefix: str | None = None) -> SentenceSteering:
        """Return the steering of a stretch of text in normal form.

        Args:
          text: the text.
          first: whether it is the first of its line, whose translation gets the prefix and the forced phrases.
          prefix: the prefix of this line; None: that of the request.

        Raises:
          UserError: the vocabulary cannot write the prefix.
        """
        spans = self.steering.protected.find(text)
        wanted = list(self._forced) if first else []
        if self.steering.glossary is not None:
            matches = self.steering.glossary.find(text, [(span.start, span.end) for span in spans])
            wanted += self._terms(text, matches)
        forbidden = tuple(self._forbidden.values())
        constraints = RowConstraints(tuple(wanted), forbidden, self.steering.phrase_bonus)
        own = self._prefix if prefix is None else self._encode_prefix(prefix)
        return SentenceSteering(constraints, own if first else RowPrefix(), tuple(spans))

    def keep_spans(self, planned: SentenceSteering) -> SentenceSteering:
        """Return a steering that also forces the spans that are kept, each as often as the source has it."""
        counts = Counter(span.text for span in planned.spans)
        kinds = {span.text: span.kind for span in planned.spans}
        kept = [
            PhraseConstraint((self._pieces().lattice(text, kinds[text] == "term"),), count=count)
            for text, count in counts.items()
            if self._can_write(text)
        ]
        # A phrase that a span contains is not forbidden here.
        forbidden = tuple(
            lattice
            for wording, lattice in self._forbidden.items()
            if not any(list(find_whole(text, wording.text)) for text in counts)
        )
        wanted = (*planned.constraints.wanted, *kept)
        return replace(planned, constraints=RowConstraints(wanted, forbidden, self.steering.phrase_bonus))

    def _encode_prefix(self, prefix: str) -> RowPrefix:
        text = normalise(prefix)
        complete = " " if text and prefix[-1].isspace() else ""
        return (
            RowPrefix.encode(text + complete, self._pieces(), self.steering.prefix_bias_beta) if text else RowPrefix()
        )

    def repair(self, plans: Sequence[SentenceSteering], texts: Sequence[str]) -> list[str]:
        """Return translations in which the spans of their sources are put right, as far as they are recognised."""
        find = self.steering.protected.find
        return [repair_spans(plan.spans, text, find).text for plan, text in zip(plans, texts, strict=True)]

    def _can_write(self, text: str) -> bool:
        try:
            self._pieces().encode(text), self._pieces().encode_inside(text)
        except UserError:
            return False
        return True

    def _terms(self, text: str, matches: Sequence[TermMatch]) -> list[PhraseConstraint]:
        """Return the constraints of terms; one that stands there often is wanted once."""
        found: dict[tuple[Wording, ...], PhraseConstraint] = {}
        required = self.steering.glossary_mode == "force"
        for match in matches:
            possible = [one for one in match.entry.wordings(text[match.start : match.end]) if self._can_write(one.text)]
            wordings = self._permitted(possible)
            if wordings not in found:
                found[wordings] = PhraseConstraint(tuple(map(self._lattice, wordings)), required)
        return list(found.values())

    def _lattice(self, wording: Wording) -> PhraseLattice:
        return self._pieces().lattice(wording.text, True, wording.open_end)

    def _permitted(self, alternatives: Sequence[Wording], place: str = "") -> tuple[Wording, ...]:
        """Return the alternatives without a forbidden phrase. Raises UserError if there is none."""
        forbidden = [one.text for one in self.steering.forbidden]
        found = tuple(
            one for one in alternatives if not any(list(find_whole(one.text, phrase)) for phrase in forbidden)
        )
        if not found:
            phrase = next(phrase for phrase in forbidden if list(find_whole(alternatives[0].text, phrase)))
            raise UserError(f"{place}{alternatives[0].text!r} is wanted, but {phrase!r} is forbidden")
        return found
