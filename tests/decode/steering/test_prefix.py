"""Prefixes: which tokens are possible, against all texts, and the mixture of a soft one against the formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_constraints import PIECES, TABLE, TABLE_SIZE, WRITTEN, logits_of, text_of

from nmt.decode.steering.prefix import (
    PieceOrder,
    RowPrefix,
    advance_prefixes,
    apply_prefixes,
    initial_prefix_state,
    inside_prefix,
    prefix_sizes,
    stack_prefixes,
)
from nmt.errors import UserError

PREFIXES = [RowPrefix.encode(text, TABLE, beta) for text, beta in [
    ("a.b a", 0), ("ab", 0), ("b.", 0), ("ba ", 0), ("", 0), ("a b", 0.25), ("aba \u670da", 0), ("é", 0)
]]  # fmt: skip


def order():
    padding = (0, TABLE_SIZE - len(WRITTEN))
    return PieceOrder(*(jnp.pad(jnp.asarray(x), padding, constant_values=-1) for x in (TABLE.rank, TABLE.size)))


def arrays(prefixes):
    return jax.tree.map(jnp.asarray, stack_prefixes(prefixes, prefix_sizes(PREFIXES)))


@jax.jit
def _apply(prefixes, state, position, logits, rule):
    applied = apply_prefixes(prefixes, order(), state, position, logits + rule, logits)
    return applied, inside_prefix(prefixes, state, position)


@jax.jit
def _advance(prefixes, state, position, parent, token):
    return advance_prefixes(prefixes, order(), state, position, parent, token)


def test_prefixes_are_tokens_and_the_bytes_of_a_word_that_may_go_on():
    fixed = [(text_of(one.tokens), one.rest) for one in PREFIXES]
    assert fixed == [
        (" a.b", b" a"),
        ("", b" ab"),
        (" b.", b""),
        (" ba", b" "),
        ("", b""),
        (" a b", b""),
        (" aba", " \u670da".encode()),
        ("", " é".encode()),
    ]
    assert [bool(one) for one in PREFIXES] == [True] * 4 + [False] + [True] * 3
    with pytest.raises(UserError, match="cannot write"):
        RowPrefix.encode("a !", TABLE)


def test_exactly_the_tokens_that_agree_with_a_hard_prefix_are_possible():
    prefixes = arrays(PREFIXES)
    rows, rng = len(PREFIXES), np.random.default_rng(0)
    wanted = [text_of(one.tokens) + one.rest.decode() for one in PREFIXES]
    for _ in range(8):
        state, texts = initial_prefix_state(prefixes, 1), [""] * rows
        for step in range(7):
            position = jnp.full(rows, step)
            logits = logits_of(rng, rows, 1)
            applied, inside = _apply(prefixes, state, position, logits, 1.0)
            tokens = []
            for row, prefix in enumerate(PREFIXES):
                values, own = np.asarray(applied)[row, 0], logits[row, 0]
                possible = set(np.flatnonzero(np.isfinite(values)))
                if prefix.beta:
                    expected = {*PIECES, 2}
                elif step < len(prefix.tokens):
                    expected = {prefix.tokens[step]}
                elif len(texts[row]) < len(wanted[row]):
                    longer = [(t, texts[row] + WRITTEN[t]) for t in PIECES]
                    expected = {t for t, x in longer if wanted[row].startswith(x) or x.startswith(wanted[row])}
                else:
                    expected = {*PIECES, 2}
                assert possible == expected
                hard = not prefix.beta and len(texts[row]) < len(wanted[row])
                assert bool(inside[row, 0]) == hard
                if hard:
                    assert all(values[t] == own[t] for t in possible)
                tokens.append(rng.choice(sorted(possible - {2})))
                texts[row] += WRITTEN[tokens[-1]]
            token = jnp.asarray(tokens, jnp.int32)[:, None]
            state = _advance(prefixes, state, position, jnp.zeros_like(token), token)
        for text, prefix, start in zip(texts, PREFIXES, wanted, strict=True):
            assert prefix.beta or text.startswith(start)


def test_a_soft_prefix_mixes_probabilities_until_a_hypothesis_leaves_it():
    soft = PREFIXES[5]
    prefixes = arrays([soft] * len(PREFIXES))
    state = initial_prefix_state(prefixes, 1)
    logits = logits_of(np.random.default_rng(0), len(PREFIXES), 1)
    p = np.exp(logits[0, 0]) / np.exp(logits[0, 0]).sum()
    logits[:] = logits[0]
    # The first hypothesis follows the prefix, the second leaves it after a token, the third at once.
    for step, (follow, tokens) in enumerate([(3, [4, 4, 10]), (2, [5, 10, 5]), (0, [4, 4, 4])]):
        position = jnp.full(len(PREFIXES), step)
        applied = np.asarray(_apply(prefixes, state, position, logits, 0.0)[0])[:3, 0]
        for row in range(3):
            mixed = 0.75 * p
            mixed[soft.tokens[step] if step < 2 else 0] += 0.25
            wanted = mixed if row < follow else p
            np.testing.assert_allclose(np.exp(applied[row]) / np.exp(logits[row, 0]).sum(), wanted, rtol=1e-5)
        token = jnp.asarray([*tokens, *[4] * 5], jnp.int32)[:, None]
        state = _advance(prefixes, state, position, jnp.zeros_like(token), token)
