"""The constraints of sentences as arrays: automata of phrases numbered, padded and stacked."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Int

from nmt.decode.steering.constraints import ALWAYS, AT_WORD_START, COMPLETE, INNER, PENDING, Constraints
from nmt.decode.steering.pieces import BEYOND, LEAD, PhraseLattice

SMALLEST = (64, 128, 64, 4)  # sizes of arrays are powers of two from here, so that few programs are compiled


@dataclass(frozen=True)
class PhraseConstraint:
    """A constraint of a sentence.

    Attributes:
      phrases: the phrases, any of which meets it.
      required: whether a hypothesis must not end without it, rather than prefer to have it.
      count: how often the phrases are wanted, one after another.
    """

    phrases: tuple[PhraseLattice, ...]
    required: bool = True
    count: int = 1

    @property
    def length(self) -> int:
        """Return the tokens that meet it once, however it is written."""
        return max(phrase.longest for phrase in self.phrases)


@dataclass(frozen=True)
class RowConstraints:
    """The constraints of one sentence.

    Attributes:
      wanted: the phrases that it must or should have.
      forbidden: the phrases that it must not have.
      bonus: natural logarithm of the factor by which the search prefers a hypothesis with a wanted phrase.
    """

    wanted: tuple[PhraseConstraint, ...] = ()
    forbidden: tuple[PhraseLattice, ...] = ()
    bonus: float = 0.0

    @property
    def room(self) -> int:
        """Return the tokens that the required constraints may take, and some to go from one to the next."""
        return sum((one.length + 1) * one.count for one in self.wanted if one.required)

    def __bool__(self) -> bool:
        return bool(self.wanted or self.forbidden)


class _Row:
    """The arrays of one sentence while they grow."""

    def __init__(self) -> None:
        self.tokens: dict[int, int] = {}
        self.edges: list[tuple[int, int, int]] = []  # column, source, target
        self.nodes: list[tuple[int, int, int, int]] = []  # owner, code, kind, start
        self.constraints: list[tuple[int, bool, int]] = []  # length, required, predecessor

    def add(self, phrase: PhraseLattice, owner: int, length: int) -> None:
        fresh = 2 * length + 1
        places = sorted({0, LEAD, *(edge.target for edge in phrase.edges)})
        number = {place: len(self.nodes) + i for i, place in enumerate(places)}
        for place in places:
            code, kind, start = fresh, INNER, 0
            if place in (phrase.length, BEYOND):
                code, kind = 0, PENDING if phrase.whole_end and place != BEYOND else COMPLETE
            elif place in phrase.remaining:
                code = 2 * phrase.remaining[place] + (place == 0)  # the mark of a space alone earns no bonus
            if place in (0, LEAD):
                start = AT_WORD_START if phrase.whole_start and place == 0 else ALWAYS
            self.nodes.append((owner, code, kind, start))
        for edge in phrase.edges:
            column = self.tokens.setdefault(edge.token, len(self.tokens))
            self.edges.append((column, number[edge.source], number[edge.target]))


def _row(sentence: RowConstraints) -> _Row:
    row = _Row()
    for constraint in sentence.wanted:
        for copy in range(constraint.count):
            owner = len(row.constraints)
            row.constraints.append((constraint.length, constraint.required, owner - 1 if copy else -1))
            for phrase in constraint.phrases:
                row.add(phrase, owner, constraint.length)
    for phrase in sentence.forbidden:
        row.add(phrase, -1, phrase.longest)
    return row


def constraint_sizes(sentences: Sequence[RowConstraints]) -> tuple[int, int, int, int]:
    """Return room for the tokens, edges, nodes and constraints of any of these sentences, powers of two."""
    rows = [_row(sentence) for sentence in sentences]
    counts = zip(*((len(r.tokens), len(r.edges), len(r.nodes) + 1, len(r.constraints)) for r in rows), strict=True)
    powers = (1 << max(max(count) - 1, 0).bit_length() for count in counts)
    tokens, edges, nodes, constraints = map(max, SMALLEST, powers)
    return tokens, edges, nodes, constraints


def stack_constraints(sentences: Sequence[RowConstraints], sizes: tuple[int, int, int, int]) -> Constraints:
    """Return the constraints of sentences as arrays of NumPy, a row each.

    Args:
      sentences: the sentences.
      sizes: room for tokens, edges, nodes and constraints, as of `constraint_sizes`.
    """
    rows = [_arrays(sentence, sizes) for sentence in sentences]
    return Constraints(**{f.name: np.stack([getattr(row, f.name) for row in rows]) for f in fields(Constraints)})  # type: ignore[arg-type]


def _arrays(sentence: RowConstraints, sizes: tuple[int, int, int, int]) -> Constraints:
    row = _row(sentence)
    tokens, edges, nodes, constraints = sizes
    column, source, target = _columns(row.edges, edges, (0, nodes - 1, nodes - 1))
    owner, code, kind, start = _columns(row.nodes, nodes, (-1, 0, INNER, 0))
    length, required, predecessor = _columns(row.constraints, constraints, (0, 0, -1))
    return Constraints(
        token=np.array([*row.tokens, *[-1] * (tokens - len(row.tokens))], np.int32),  # type: ignore[arg-type]
        edge_column=column,  # type: ignore[arg-type]
        edge_source=source,  # type: ignore[arg-type]
        edge_target=target,  # type: ignore[arg-type]
        node_owner=np.where(owner < 0, constraints, owner).astype(np.int32),  # type: ignore[arg-type]
        node_code=code,  # type: ignore[arg-type]
        node_kind=kind,  # type: ignore[arg-type]
        node_start=start,  # type: ignore[arg-type]
        length=length,  # type: ignore[arg-type]
        required=required.astype(bool),  # type: ignore[arg-type]
        predecessor=predecessor,  # type: ignore[arg-type]
        bonus=np.float32(sentence.bonus),  # type: ignore[arg-type]
    )


def _columns(rows: Sequence[tuple[int, ...]], number: int, padding: tuple[int, ...]) -> list[Int[np.ndarray, " _"]]:
    padded = [*rows, *[padding] * (number - len(rows))]
    return list(np.array(padded, np.int32).T)
