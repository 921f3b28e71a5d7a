"""Constraints: the state of hypotheses against their text, the bonus as a potential, and searches that must obey."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nmt.decode.steering.constraints import (
    WordEdges,
    advance_constraints,
    initial_constraint_state,
    steer_constraints,
)
from nmt.decode.steering.pieces import BEYOND, LEAD, PieceTable
from nmt.decode.steering.rows import PhraseConstraint, RowConstraints, constraint_sizes, stack_constraints
from nmt.decode.steering.words import find_whole, is_whole
from nmt.errors import UserError

# Ids 0 to 3 are special; " " is the mark of a space.
WRITTEN = ["", "", "", "", " a", " b", "a", "b", "ab", " ab", ".", " ", " a.b", "ba", "b.", "é", "\u670d", "a\u670d"]
END, STOP, BONUS = 2, 10, 3.0
PIECES = [i for i, piece in enumerate(WRITTEN) if piece]
TABLE_SIZE = 128  # Q
ROWS = 8


class ToyVocabulary:
    """A vocabulary that writes a phrase in its largest pieces from the left."""

    def written_bytes(self):
        return [text.encode() for text in WRITTEN]

    def encode(self, texts):
        return [self._largest(" " + text) for text in texts]

    def encode_inside(self, text):
        return self._largest(text)

    def _largest(self, text):
        tokens = []
        while text:
            fitting = [i for i, piece in enumerate(WRITTEN) if piece and text.startswith(piece)]
            if not fitting:
                return tokens
            tokens.append(max(fitting, key=lambda i: len(WRITTEN[i])))
            text = text[len(WRITTEN[tokens[-1]]) :]
        return tokens


TABLE = PieceTable(ToyVocabulary())


def words():
    padding = (0, TABLE_SIZE - len(WRITTEN))
    return WordEdges(jnp.pad(jnp.asarray(TABLE.opens_word), padding), jnp.pad(jnp.asarray(TABLE.closes_word), padding))


def wanted(*phrases, required=True, count=1, **how):
    return PhraseConstraint(tuple(TABLE.lattice(phrase, **how) for phrase in phrases), required, count)


def text_of(tokens):
    return "".join(WRITTEN[token] for token in tokens)


@jax.jit
def _step(constraints, state, logits, room):
    return steer_constraints(constraints, words(), state, logits, room, jnp.int32(END))


@jax.jit
def _advance(constraints, state, forced, parent, token):
    return advance_constraints(constraints, words(), state, forced, parent, token)


def arrays(*rows):
    return jax.tree.map(jnp.asarray, stack_constraints(rows, (32, 64, 64, 8)))


def logits_of(rng, rows, beam):
    logits = rng.normal(size=(rows, beam, TABLE_SIZE)) * 2
    logits[..., [0, 1, 3]] = logits[..., len(WRITTEN) :] = -np.inf
    return logits.astype(np.float32)


# The lattice of a phrase.


def paths(lattice, place):
    if place in (lattice.length, BEYOND):
        yield ()
    for edge in lattice.edges:
        if edge.source == place:
            yield from ((edge.token, *rest) for rest in paths(lattice, edge.target))


def ways_to_write(phrase, longest):
    """All sequences of pieces in which a phrase begins in the first and ends in the last, and cuts no word."""
    for number in range(1, longest + 1):
        for way in itertools.product(PIECES, repeat=number):
            text, first, last = text_of(way), len(WRITTEN[way[0]]), len(WRITTEN[way[-1]])
            for start in range(first):
                end = start + len(phrase)
                if text.startswith(phrase, start) and end > len(text) - last and is_whole(text, start, end):
                    yield way
                    break


@pytest.mark.parametrize("phrase", ["ab", "a", "b.", "a.b", "a b", "\u670d", "aba"])
def test_a_lattice_has_every_way_to_write_a_phrase(phrase):
    lattice = TABLE.lattice(phrase)
    found = {path for start in (0, LEAD) for path in paths(lattice, start)}
    found -= {path for path in found if WRITTEN[path[0]] == " "}  # a space of its own before the phrase
    assert {path for path in found if len(path) <= 3} == set(ways_to_write(phrase, 3))
    assert all(phrase in text_of(path) for path in found)
    assert {way for way in found if text_of(way) == phrase}


def test_a_phrase_that_the_vocabulary_cannot_write_is_one_line():
    with pytest.raises(UserError, match="cannot write 'aé!': it becomes 'aé'"):
        TABLE.lattice("aé!")


# The state and the bias.


def advanced(given, state, tokens):
    rows = (len(tokens), 1)
    token = jnp.asarray(np.reshape(tokens, rows), jnp.int32)
    return _advance(given, state, jnp.zeros(rows, bool), jnp.zeros(rows, jnp.int32), token)


def test_the_state_of_a_hypothesis_is_that_of_its_text():
    given = [wanted("ab"), wanted("a.b", "ba"), wanted("a", open_end=True), wanted("b", count=2), wanted("a b")]
    oracle = [
        lambda text: bool(list(find_whole(text, "ab"))),
        lambda text: bool([*find_whole(text, "a.b"), *find_whole(text, "ba")]),
        lambda text: any(c == "a" and is_whole(text, i, i + 1, open_end=True) for i, c in enumerate(text)),
        lambda text: len(list(find_whole(text, "b"))) >= 1,
        lambda text: len(list(find_whole(text, "b"))) >= 2,
        lambda text: bool(list(find_whole(text, "a b"))),
    ]
    rng = np.random.default_rng(0)
    rows = arrays(*[RowConstraints(tuple(given), (), BONUS)] * ROWS)
    state = initial_constraint_state(rows, 1)
    texts, seen = [""] * ROWS, set()
    for _ in range(60):
        tokens = rng.choice(PIECES, size=ROWS)
        state = advanced(rows, state, tokens)
        texts = [text + WRITTEN[token] for text, token in zip(texts, tokens, strict=True)]
        ended = np.asarray(advanced(rows, state, [STOP] * ROWS).met)[:, 0, : len(oracle)]  # the last word has ended
        assert ended.tolist() == [[check(f"{text}.") for check in oracle] for text in texts]
        seen |= set(map(tuple, ended.tolist()))
    assert len(seen) > 12


def test_the_bonus_is_gained_with_a_phrase_and_lost_with_it():
    """Biases are differences of a potential: their sum over a hypothesis is the bonus of where it is."""
    given = [wanted("ab", "\u670d"), wanted("a.b"), wanted("b", count=2, required=False)]
    rng = np.random.default_rng(1)
    rows = arrays(*[RowConstraints(tuple(given), (), BONUS)] * ROWS)
    state, total, far = initial_constraint_state(rows, 1), np.zeros(ROWS), jnp.full(ROWS, 99)
    logits = np.zeros((ROWS, 1, TABLE_SIZE), np.float32)
    logits[..., 7] = 1.0  # the end is never the best
    for _ in range(40):
        bias = np.asarray(_step(rows, state, logits, far).bias)[:, 0]
        tokens = rng.choice(PIECES, size=ROWS)
        total += bias[np.arange(ROWS), tokens]
        state = advanced(rows, state, tokens)
        # What it takes, in bonuses: one for each constraint that is met, or in whose phrase the hypothesis is.
        owner, code = np.asarray(rows.node_owner), np.asarray(rows.node_code)
        active, met = np.asarray(state.active)[:, 0], np.asarray(state.met)[:, 0]
        for row in range(ROWS):
            begun = {o for o, c, a in zip(owner[row], code[row], active[row], strict=True) if a and c % 2 == 0}
            done = {c for c in range(4) if met[row, c]}
            assert total[row] == pytest.approx(BONUS * len(begun | done))


# Searches.


def search(rows, given, beam, limit, seed, end_logit):
    """A beam search over random numbers that depend on the newest tokens; every row's finished hypotheses."""
    state = initial_constraint_state(given, beam)
    score = np.where(np.arange(beam) == 0, 0.0, -np.inf) + np.zeros((rows, 1))
    hypotheses = [[[] for _ in range(beam)] for _ in range(rows)]
    finished = [[] for _ in range(rows)]
    for position in range(limit + 1):
        logits = logits_of(np.random.default_rng([seed, position]), rows, beam)
        logits[..., END] += end_logit
        steered = _step(given, state, logits, jnp.full(rows, limit - position - 1))
        total = score[..., None] + logits + np.asarray(steered.bias)
        if position == limit:
            total[..., np.arange(TABLE_SIZE) != END] = -np.inf
        flat = total.reshape(rows, -1)
        best = np.argsort(-flat, axis=1, kind="stable")[:, :beam]
        score = np.take_along_axis(flat, best, axis=1)
        parent, token = best // TABLE_SIZE, best % TABLE_SIZE
        live = np.isfinite(score)
        hypotheses = [[[*hypotheses[r][parent[r, w]], token[r, w]] for w in range(beam)] for r in range(rows)]
        for row, w in zip(*np.nonzero(live & (token == END)), strict=True):
            finished[row].append(text_of(hypotheses[row][w][:-1]))
        score = np.where(token == END, -np.inf, score)
        state = _advance(given, state, steered.forced, jnp.asarray(parent, jnp.int32), jnp.asarray(token, jnp.int32))
    return finished


SENTENCES = [
    RowConstraints((wanted("ab a.b"),), (), BONUS),
    RowConstraints((wanted("ab"), wanted("ba"), wanted("a.b")), (), BONUS),
    RowConstraints((wanted("b", count=3),), (TABLE.lattice("ab"), TABLE.lattice("a")), BONUS),
    RowConstraints((wanted("ab a"), wanted("ab b")), (), 0.0),  # two phrases that are open at once
    RowConstraints((wanted("a"), wanted("a.b", "b.")), (TABLE.lattice("ba"),), 9.0),
    RowConstraints((), (TABLE.lattice("a"), TABLE.lattice("b"))),
    RowConstraints((wanted("\u670d", whole=False, count=2),), (), BONUS),
    RowConstraints(),
]
CHECKS = [
    lambda text: "ab a.b" in text,
    lambda text: all(list(find_whole(text, phrase)) for phrase in ("ab", "ba", "a.b")),
    lambda text: len(list(find_whole(text, "b"))) >= 3 and not [*find_whole(text, "ab"), *find_whole(text, "a")],
    lambda text: bool(list(find_whole(text, "ab a")) and list(find_whole(text, "ab b"))),
    lambda text: bool(list(find_whole(text, "a"))) and not list(find_whole(text, "ba")),
    lambda text: not [*find_whole(text, "a"), *find_whole(text, "b")],
    lambda text: text.count("\u670d") >= 2,
    lambda text: True,
]


@pytest.mark.parametrize(("beam", "end_logit"), [(1, 0.0), (1, 9.0), (3, 0.0), (3, 9.0)])
def test_no_hypothesis_ends_without_its_phrases_or_with_forbidden_ones(beam, end_logit):
    limit = max(one.room for one in SENTENCES)
    for seed in range(6):
        finished = search(ROWS, arrays(*SENTENCES), beam, limit, seed, end_logit)
        for texts, check in zip(finished, CHECKS, strict=True):
            assert texts
            assert all(map(check, texts)), texts


def test_a_hypothesis_that_would_end_begins_its_phrase_at_once():
    finished = search(ROWS, arrays(*[RowConstraints((wanted("a.b"),), (), 0.0)] * ROWS), 1, 40, 0, 50.0)
    assert {text.strip(" .") for texts in finished for text in texts} == {"a.b"}


def test_too_little_room_ends_all_the_same():
    finished = search(ROWS, arrays(*[RowConstraints((wanted("ab a.b"),), (), BONUS)] * ROWS), 1, 1, 0, 0.0)
    assert [len(texts) for texts in finished] == [1] * ROWS


def test_a_row_does_not_depend_on_its_neighbours_or_on_room_for_more():
    together = arrays(*SENTENCES)
    alone = jax.tree.map(jnp.asarray, stack_constraints(SENTENCES[1:2], constraint_sizes(SENTENCES[1:2])))
    logits = logits_of(np.random.default_rng(0), ROWS, 3)
    room = jnp.full(ROWS, 7)
    many = _step(together, initial_constraint_state(together, 3), logits, room)
    one = _step(alone, initial_constraint_state(alone, 3), logits[1:2], room[:1])
    assert np.array_equal(many.bias[1], one.bias[0])
