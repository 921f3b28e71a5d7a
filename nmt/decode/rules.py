"""Rules that change which tokens a hypothesis may go on with: they map logits to the logits that are chosen by.

Every row has its own position, and a rule sees nothing but the tokens of its own hypothesis. The log probability of a
hypothesis stays that of the model's own logits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int

from nmt.decode.options import SearchOptions

_ANY = -1  # in a table of suppressed sequences: any token, or none
_NO_TOKEN = 1 << 30  # beyond every vocabulary: what is written there is dropped


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LogitRules:
    """The rules of a request; one that is None or 0 is not compiled."""

    repetition_penalty: Float[Array, ""] | None = None
    suppressed: Int[Array, "_ _"] | None = None  # see `suppression_table`
    no_repeat_ngram: int = field(default=0, metadata={"static": True})

    @property
    def empty(self) -> bool:
        """Whether no rule changes any logits."""
        return self.repetition_penalty is None and self.suppressed is None and self.no_repeat_ngram == 0


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StepContext:
    """The hypotheses that are to be extended."""

    position: Int[Array, " B"]  # tokens that the hypotheses of a row have, begin not counted
    tokens: Int[Array, "B W T"]  # their tokens, meaningless from `position` on


def logit_rules(options: SearchOptions) -> LogitRules:
    """Return the rules of a request, whose suppressed sequences are token ids."""
    texts = [one for one in options.suppress if isinstance(one, str)]
    if texts:
        raise ValueError(f"suppressed texts must be token ids here: {texts}")
    sequences = [one for one in options.suppress if not isinstance(one, str)]
    penalty = options.repetition_penalty
    return LogitRules(
        repetition_penalty=None if penalty == 1.0 else jnp.float32(penalty),
        suppressed=jnp.asarray(suppression_table(sequences)) if sequences else None,
        no_repeat_ngram=options.no_repeat_ngram,
    )


def suppression_table(sequences: Sequence[Sequence[int]]) -> np.ndarray:
    """Return sequences as the rows of an int32 table, each at the right; sizes are powers of two, for few programs."""
    rows, columns = (1 << (size - 1).bit_length() for size in (len(sequences), max(map(len, sequences))))
    table = np.full((rows, columns), _ANY, np.int32)
    table[len(sequences) :, -1] = _NO_TOKEN
    for row, sequence in enumerate(sequences):
        table[row, columns - len(sequence) :] = sequence
    return table


def adjust_logits(rules: LogitRules, context: StepContext, logits: Float32[Array, "B W Q"]) -> Float32[Array, "B W Q"]:
    """Return the logits that tokens are chosen by: penalised ones are lower, forbidden ones -inf.

    Args:
      rules: the rules.
      context: the hypotheses before the token that is chosen.
      logits: float32 [B,W,Q], the model's own.
    """
    if rules.repetition_penalty is not None:
        logits = _penalise_repetition(rules.repetition_penalty, context, logits)
    if rules.no_repeat_ngram > 0:
        repeats = repeated_ngrams(context, rules.no_repeat_ngram)
        logits = forbid_tokens(logits, context.tokens, repeats)
    if rules.suppressed is not None:
        last = jnp.broadcast_to(rules.suppressed[:, -1], (*logits.shape[:2], rules.suppressed.shape[0]))
        logits = forbid_tokens(logits, last, _completes_sequence(rules.suppressed, context))
    return logits


def forbid_tokens(
    logits: Float32[Array, "B W Q"], tokens: Int[Array, "B W _"], forbidden: Bool[Array, "B W _"]
) -> Float32[Array, "B W Q"]:
    """Return logits [B,W,Q] with -inf at those tokens of each hypothesis that are forbidden."""
    return _write(logits, tokens, forbidden, -jnp.inf)


def repeated_ngrams(context: StepContext, size: int) -> Bool[Array, "B W T"]:
    """Return which tokens of each hypothesis end an n-gram whose first tokens are the hypothesis's last ones.

    Adding one of them would repeat that n-gram of `size` tokens.
    """
    tokens = context.tokens
    place = jnp.arange(tokens.shape[-1])
    repeats = (place >= size - 1) & (place < context.position[:, None, None])
    for back in range(1, size):
        repeats &= jnp.roll(tokens, back, axis=-1) == recent_token(context, back)[..., None]
    return jnp.broadcast_to(repeats, tokens.shape)


def recent_token(context: StepContext, back: int) -> Int[Array, "B W"]:
    """Return the token of each hypothesis so many places before the one that is chosen; -2 where there is none."""
    place = (context.position - back)[:, None, None]
    found = jnp.take_along_axis(context.tokens, jnp.maximum(place, 0), axis=-1)
    return jnp.where(place >= 0, found, -2)[..., 0]


def _completes_sequence(table: Int[Array, "_ _"], context: StepContext) -> Bool[Array, "B W _"]:
    """Return which sequences of a table each hypothesis has but for their last token."""
    matches = jnp.ones((*context.tokens.shape[:2], table.shape[0]), bool)
    for back in range(1, table.shape[1]):
        expected = table[:, -1 - back]
        matches &= (expected == _ANY) | (expected == recent_token(context, back)[..., None])
    return matches


def _penalise_repetition(
    penalty: Float[Array, ""], context: StepContext, logits: Float32[Array, "B W Q"]
) -> Float32[Array, "B W Q"]:
    """Divide positive logits of tokens that a hypothesis has by the penalty, and multiply negative ones."""
    present = jnp.arange(context.tokens.shape[-1]) < context.position[:, None, None]
    own = jnp.take_along_axis(logits, context.tokens, axis=-1)
    lower = jnp.where(own > 0, own / penalty, own * penalty)
    return _write(logits, context.tokens, jnp.broadcast_to(present, lower.shape), lower)


def _write(
    logits: Float32[Array, "B W Q"],
    tokens: Int[Array, "B W _"],
    chosen: Bool[Array, "B W _"],
    value: Float[Array, "B W _"] | float,
) -> Float32[Array, "B W Q"]:
    """Return logits with values at the chosen of those tokens of each hypothesis."""
    row, hypothesis = (jnp.arange(size) for size in logits.shape[:2])
    place = row[:, None, None], hypothesis[:, None], jnp.where(chosen, tokens, _NO_TOKEN)
    return logits.at[place].set(value, mode="drop")
