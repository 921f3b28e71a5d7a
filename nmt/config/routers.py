"""The kinds of routing of a mixture-of-experts layer, one line each, and the traits that the keys of a recipe go by.

The code of kind NAME is `nmt/models/moe/routers/NAME.py`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

# Keys of `model.moe` that belong to ...
LOGITS = ("jitter", "z_weight", "router_dtype", "router_init_scale")  # ... a learnt router
BALANCE = ("balance_weight", "balance_reduction", "balance_choices")  # ... the load-balancing loss
SAMPLING = ("second_expert", "second_threshold")  # ... sampled choices after the first
BIAS = ("affinity", "bias_rate", "sequence_balance_weight", "balance_reduction")  # ... biases of experts


@dataclass(frozen=True)
class RouterTraits:
    """The properties of a kind of routing that decide which keys it uses and where it may stand."""

    keys: tuple[str, ...] = ()  # the keys that have an effect with some kinds only and have one with this
    normalises: bool = False  # whether gates of a token can be normalised, see `MoEConfig.normalise`
    needs_slots: bool = False  # whether experts have slots in training even where the dispatch has none
    looks_ahead: bool = False  # whether later tokens decide about earlier ones: not for a decoder


ROUTERS = {
    "token_choice": RouterTraits(LOGITS + BALANCE + SAMPLING, normalises=True),
    "expert_choice": RouterTraits(LOGITS, needs_slots=True, looks_ahead=True),
    "hash": RouterTraits(),
    "bias_balanced": RouterTraits(LOGITS + BIAS, normalises=True),
}

if TYPE_CHECKING:
    RouterName = str
else:
    RouterName = Literal[tuple(ROUTERS)]


def find_traits(*kinds: str) -> list[RouterTraits]:
    """Return the traits of the named kinds of routing, each once, in the order of the table."""
    return [traits for name, traits in ROUTERS.items() if name in kinds]
