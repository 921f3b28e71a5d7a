"""Dispatch: how tokens reach their experts and come back. Four ways, one result.

* `einsum`: GShard's one-hot products (section 3.1); costs N x E x C x M, the reference.
* `scatter`: rows are gathered by index into [E,C] slots and back; nothing is multiplied that need not be.
* `rounds`: `scatter` again and again until all are served, for inference with experts that are spread over devices.
* `grouped`: tokens sorted by expert, in blocks of one expert each: no slots, nothing is dropped, and the work grows
  with the tokens and not with the number of experts. It serves inference too.

Tokens travel in the type that they come in; gates and the weighted sum over choices are float32 (Switch, section 2.4).
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Float32, Int, Int32

from nmt.models.moe.grouped import Blocks, grouped_product, sort_into_blocks
from nmt.models.moe.routing import ExpertChoice, Routing
from nmt.models.moe.rows import collect, invert, send, take, weighted_sum
from nmt.models.numerics import MOVED, PRODUCT, product
from nmt.sharding import shard

FEWEST_SLOTS = 4  # of a round: hypotheses of one sentence like to go to the same expert


@dataclass(frozen=True)
class Owners:
    """The expert that owns each block of rows: all R rows of a block belong to one expert."""

    blocks: Blocks | None  # None: block e has the rows of expert e, X = E

    def multiply(
        self, rows: Float[Array, "X R I"], weights: Float[Array, "E I O"], dtype: jnp.dtype
    ) -> Float32[Array, "X R O"]:
        """Return rows times their expert's matrix of weights; see `product`."""
        if self.blocks is None:
            return product("eri,eio->ero", rows, weights, dtype)
        return checkpoint_name(grouped_product(rows, weights, self.blocks, dtype), PRODUCT)

    def gather_vectors(self, vectors: Float[Array, "E O"]) -> Float[Array, "X 1 O"]:
        """Return for each block the vector of its expert, to be added to its rows or multiplied with them."""
        return (vectors if self.blocks is None else vectors[self.blocks.owner])[:, None]


# The experts, a function of rows in any type. A row may be empty; its result is then ignored.
Experts = Callable[[Float[Array, "X R M"], Owners], Float[Array, "X R M"]]


def einsum_dispatch(
    x: Float[Array, "G N M"], routing: Routing, experts: int, slots: int, apply: Experts
) -> Float[Array, "G N M"]:
    """Move tokens by products with one-hot masks.

    Args:
      x: hidden states of tokens.
      routing: where they go.
      experts: E.
      slots: C.
      apply: the experts.

    Returns:
      Of the type of x: the gated sum of the experts' outputs, zero for tokens that no expert took.
    """
    one_hot_expert = jax.nn.one_hot(routing.expert, experts) * routing.kept[..., None]  # [G,N,K,E]
    one_hot_slot = jax.nn.one_hot(routing.slot, slots)  # [G,N,K,C]
    to_slot = jnp.einsum("gnke,gnkc->gnec", one_hot_expert, one_hot_slot).astype(x.dtype)
    combine = jnp.einsum("gnk,gnke,gnkc->gnec", routing.gate, one_hot_expert, one_hot_slot)
    outputs = _run(jnp.einsum("gnec,gnm->egcm", to_slot, x), apply)
    return jnp.einsum("gnec,egcm->gnm", combine, outputs.astype(combine.dtype)).astype(x.dtype)


def _run(inputs: Float[Array, "E G C M"], apply: Experts) -> Float[Array, "E G C M"]:
    """Apply the experts to slots: from groups to experts and back, an all-to-all each way."""
    experts, groups, slots, width = inputs.shape
    inputs = shard(shard(inputs, None, "group", None, None), "expert", "expert_group", None, None)
    outputs = apply(checkpoint_name(inputs, MOVED).reshape(experts, groups * slots, width), Owners(None))
    outputs = outputs.astype(inputs.dtype).reshape(inputs.shape)
    outputs = shard(shard(outputs, "expert", "expert_group", None, None), None, "group", None, None)
    return checkpoint_name(outputs, MOVED)


def scatter_dispatch(
    x: Float[Array, "G N M"], routing: Routing, experts: int, slots: int, apply: Experts
) -> Float[Array, "G N M"]:
    """Move tokens by index; arguments and result as for `einsum_dispatch`."""
    place = jnp.where(routing.kept, routing.expert * slots + routing.slot, experts * slots)  # [G,N,K]
    outputs, occupant = _apply_at_slots(x, place, experts, slots, apply)
    return jax.vmap(collect)(outputs, routing.gate, occupant, place)


def _apply_at_slots(
    x: Float[Array, "G N M"], place: Int[Array, "G N K"], experts: int, slots: int, apply: Experts
) -> tuple[Float[Array, "G P M"], Int32[Array, "G P"]]:
    """Send tokens to their places among the P = E * C slots of all experts; place P is none.

    Returns:
      The results of the experts in all slots, of the type of x, and the token of each slot, N where it is empty.
    """
    groups, _, width = x.shape
    occupant = jax.vmap(lambda p: invert(p, experts * slots))(place)
    inputs = jax.vmap(send)(x, occupant, place).reshape(groups, experts, slots, width)
    outputs = _run(inputs.swapaxes(0, 1), apply).swapaxes(0, 1)
    return outputs.reshape(groups, experts * slots, width), occupant


def rounds_dispatch(x: Float[Array, "G N M"], routing: Routing, experts: int, apply: Experts) -> Float[Array, "G N M"]:
    """Move tokens by index in as many rounds as the fullest expert of a group needs: nothing is dropped.

    For inference where the experts are spread over devices: tokens go to the experts, in few slots a round, and weights
    stay where they are. There is no derivative. Arguments and result as for `grouped_dispatch`; `routing.slot` is the
    place of a choice among those of its expert, however many they are. In which round a choice is served depends on the
    other tokens, so the outputs of experts are kept choice by choice and added up at the end.
    """
    choices = routing.expert.shape[2]
    slots = round_slots(routing.expert.shape[1], experts, choices)
    State = tuple[Int32[Array, ""], tuple[Float[Array, "G N M"], ...]]  # rounds done, results by choice

    def one(state: State) -> State:
        number, rows = state
        now = routing.kept & (routing.slot // slots == number)
        place = jnp.where(now, routing.expert * slots + routing.slot % slots, experts * slots)
        outputs, _ = _apply_at_slots(x, place, experts, slots, apply)
        served = [jax.vmap(take)(outputs, place[..., k]) for k in range(choices)]
        return number + 1, tuple(jnp.where(now[..., k, None], served[k], rows[k]) for k in range(choices))

    rounds = jnp.where(routing.kept, routing.slot // slots + 1, 0).max()
    begin = jnp.zeros((), jnp.int32), (jnp.zeros_like(x),) * choices
    return weighted_sum(jax.lax.while_loop(lambda state: state[0] < rounds, one, begin)[1], routing.gate)


def round_slots(tokens: int, experts: int, choices: int) -> int:
    """Return the slots of an expert for a group of so many tokens in one round: twice what it would get on average."""
    return min(tokens, max(FEWEST_SLOTS, -(-2 * choices * tokens // experts)))


def grouped_dispatch(x: Float[Array, "G N M"], routing: Routing, experts: int, apply: Experts) -> Float[Array, "G N M"]:
    """Move tokens without slots, all groups together; `routing.slot` has no meaning here.

    The rows of all groups are sorted together, so this is for experts that every device has: where they are spread over
    devices (mesh.expert), `scatter` moves tokens and this would move weights.

    Args:
      x: hidden states of tokens.
      routing: where they go.
      experts: E.
      apply: the experts.

    Returns:
      Of the type of x: the gated sum of the experts' outputs.
    """
    width, choices = x.shape[-1], routing.expert.shape[-1]
    layout = sort_into_blocks(routing.expert.reshape(-1, choices), routing.kept.reshape(-1, choices), experts)
    blocks = layout.blocks.owner.shape[0]
    rows = send(x.reshape(-1, width), layout.occupant, layout.place).reshape(blocks, -1, width)
    outputs = apply(rows, Owners(layout.blocks)).astype(x.dtype).reshape(-1, width)
    y = collect(outputs, routing.gate.reshape(-1, choices), layout.occupant, layout.place)
    return y.reshape(x.shape)


def gather_dispatch(x: Float[Array, "G N M"], choice: ExpertChoice, apply: Experts) -> Float[Array, "G N M"]:
    """Move tokens to the experts that chose them by index.

    Args:
      x: hidden states of tokens.
      choice: the tokens of each expert.
      apply: the experts.

    Returns:
      Of the type of x: the gated sum of the experts' outputs, zero for tokens that no expert took.
    """
    # Taken as float32, for any number of experts may take a token, whose gradient is the sum of theirs.
    inputs = jax.vmap(lambda rows, token: rows[token])(x.astype(jnp.float32), choice.token).astype(x.dtype)
    outputs = _run(inputs.swapaxes(0, 1), apply).swapaxes(0, 1) * choice.gate[..., None]  # float32
    y = jax.vmap(lambda rows, token, y: jnp.zeros(rows.shape, y.dtype).at[token].add(y))(x, choice.token, outputs)
    return y.astype(x.dtype)


def einsum_gather_dispatch(x: Float[Array, "G N M"], choice: ExpertChoice, apply: Experts) -> Float[Array, "G N M"]:
    """Move tokens by products with one-hot masks, the reference; arguments and result as for `gather_dispatch`."""
    send = jax.nn.one_hot(choice.token, x.shape[1]) * choice.kept[..., None]  # [G,E,C,N]
    outputs = _run(jnp.einsum("gecn,gnm->egcm", send.astype(x.dtype), x), apply)
    return jnp.einsum("gecn,gec,egcm->gnm", send, choice.gate, outputs.astype(jnp.float32)).astype(x.dtype)
