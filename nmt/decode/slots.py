"""The device's side of a search: slots, each of which holds one sentence, and how sentences come into them and move."""

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Shaped

from nmt.decode.beam import Finished, RowInputs, RowLimits, SearchState, TargetRules, run_search, start_search
from nmt.models.incremental import Cache, InferenceModel


class SlotShape(NamedTuple):
    """How much a set of slots can hold."""

    rows: int  # B, sentences
    source: int  # S, positions of the longest source
    steps: int  # T, tokens of the longest target, its end counted


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Slots:
    """B rows, each with the search for one sentence, or idle, without a live hypothesis."""

    inputs: RowInputs
    state: SearchState

    @property
    def shape(self) -> SlotShape:
        """The shape of the slots."""
        return SlotShape(self.state.tokens.shape[0], self.inputs.source.keys[0].shape[3], self.state.tokens.shape[2])


@partial(jax.jit, static_argnames=("beam", "kept"))
def start_sentences(
    model: InferenceModel,
    source: Int[Array, "B S"],
    length: Int[Array, " B"],
    begin: Int[Array, " B"],
    limits: RowLimits,
    *,
    beam: int,
    kept: int,
) -> Slots:
    """Return slots whose searches begin; see `start_search`."""
    return Slots(*start_search(model, source, length, begin, limits, beam=beam, kept=kept))


@partial(jax.jit, donate_argnums=0)
def insert_sentences(slots: Slots, new: Slots, at: Int[Array, " U"]) -> Slots:
    """Put new sentences [U] into slots, which are used up.

    Args:
      slots: B rows, no smaller than the new ones in any other size.
      new: U sentences that have been started.
      at: int32 [U], the row that each takes; B for one that is left out.
    """
    fitted = _fit(new, slots)
    return jax.tree.map(lambda rows, more: rows.at[at].set(more, mode="drop"), slots, fitted)


@partial(jax.jit, static_argnames="shape")
def rearrange_slots(slots: Slots, take: Int[Array, " B"], keep: Bool[Array, " B"], *, shape: SlotShape) -> Slots:
    """Return slots of another shape that hold some of the sentences.

    Args:
      slots: the slots.
      take: int32 [B], the row that each of the new rows is taken from.
      keep: bool [B], whether a new row goes on with its sentence; the others are idle.
      shape: the shape of the result, large enough for what is kept.
    """
    moved = _fit(jax.tree.map(lambda rows: rows[take], slots), _resized(slots, shape))
    return replace(moved, state=replace(moved.state, score=jnp.where(keep[:, None], moved.state.score, -jnp.inf)))


@partial(jax.jit, donate_argnums=2)
def advance_slots(
    model: InferenceModel,
    inputs: RowInputs,
    state: SearchState,
    targets: TargetRules,
    most_steps: Int[Array, ""],
    most_idle: Int[Array, ""],
) -> tuple[SearchState, Bool[Array, " B"]]:
    """Go on with all searches, see `run_search`; return the state, and whether each row still has live hypotheses."""
    state = run_search(model, inputs, targets, state, most_steps, most_idle)
    return state, state.live


@partial(jax.jit, static_argnames=("beam", "kept", "steps"))
def search_batch(
    model: InferenceModel,
    source: Int[Array, "B S"],
    length: Int[Array, " B"],
    begin: Int[Array, " B"],
    limits: RowLimits,
    targets: TargetRules,
    *,
    beam: int,
    kept: int,
    steps: int,
) -> tuple[Finished, Bool[Array, " B"]]:
    """Search a whole batch in one program, for at most so many steps (T): for plans.

    Returns the finished hypotheses, and whether each row is done, bool [B].
    """
    slots = Slots(*start_search(model, source, length, begin, limits, beam=beam, kept=kept))
    slots = _fit(slots, _resized(slots, slots.shape._replace(steps=steps)))
    rows = jnp.int32(source.shape[0])
    state = run_search(model, slots.inputs, targets, slots.state, jnp.int32(steps), rows)
    return state.finished, ~state.live


def _fit(slots: Slots, like: Slots) -> Slots:
    """Return slots whose sizes, but for the rows, are those of others: cut, or with zeros, at the end of every axis."""

    def fit(x: Shaped[Array, "..."], shape: tuple[int, ...]) -> Shaped[Array, "..."]:
        cut = x[tuple(slice(size) for size in (x.shape[0], *shape[1:]))]
        return jnp.pad(cut, [(0, 0), *((0, size - have) for size, have in zip(shape[1:], cut.shape[1:], strict=True))])

    return jax.tree.map(lambda x, target: fit(x, target.shape), slots, like)


def _resized(slots: Slots, shape: SlotShape) -> Slots:
    """Return the shapes of slots, without values, that hold as much as `shape` says."""
    rows, source, steps = shape
    beam = slots.state.token.shape[1]

    def like(x: Shaped[Array, "..."], *sizes: int) -> jax.Array:
        return jax.ShapeDtypeStruct((rows, *sizes), x.dtype)  # type: ignore[return-value]

    state, cells = slots.state, steps * beam
    cross, own, finished = slots.inputs.source, state.cache, state.finished
    whole = jax.tree.map(lambda x: like(x, *x.shape[1:]), slots)
    return replace(
        whole,
        inputs=replace(
            whole.inputs,
            source=replace(
                whole.inputs.source,
                keys=[like(x, *x.shape[1:3], source) for x in cross.keys],
                values=[like(x, x.shape[1], source, x.shape[3]) for x in cross.values],
            ),
        ),
        state=replace(
            whole.state,
            tokens=like(state.tokens, beam, steps),
            ancestor=like(state.ancestor, beam, steps),
            coverage=None if state.coverage is None else like(state.coverage, beam, source),
            cache=Cache(
                [like(x, *x.shape[1:3], cells) for x in own.keys],
                [like(x, x.shape[1], cells, x.shape[3]) for x in own.values],
            ),
            finished=replace(whole.state.finished, tokens=like(finished.tokens, finished.tokens.shape[1], steps)),
        ),
    )


def fill_rows(sequences: list[list[int]], rows: int, positions: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sequences as int32 [B,S] for so many rows and positions, and their lengths, int32 [B]."""
    table, lengths = np.zeros((rows, positions), np.int32), np.zeros(rows, np.int32)
    for row, sequence in enumerate(sequences):
        table[row, : len(sequence)] = sequence
        lengths[row] = len(sequence)
    return table, lengths
