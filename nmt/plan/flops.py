"""FLOPs of a model worked out from its configuration: its matrix products, term by term.

A product of [a,b] and [b,c] takes 2abc FLOPs. In training the backward pass has two more products of the same size,
one for the gradient of each factor. Left out: elementwise operations, normalisation, softmax, embedding look-ups, and
statistics without a gradient. Rematerialisation (`model.remat`) is left out too: these are model FLOPs, as MFU counts
them (PaLM, arXiv:2204.02311, appendix B).
"""

from dataclasses import dataclass

from nmt.config import ModelConfig, MoEConfig, VocabularySizes
from nmt.config.routers import ROUTERS
from nmt.models.activations import is_gated
from nmt.models.moe.capacity import capacity
from nmt.models.moe.routers import make_router


@dataclass(frozen=True)
class Term:
    """FLOPs of one kind of product, on all devices."""

    forward: float
    backward: float

    def __add__(self, other: "Term") -> "Term":
        return Term(self.forward + other.forward, self.backward + other.backward)

    @property
    def training(self) -> float:
        """Forward and backward."""
        return self.forward + self.backward


NOTHING = Term(0.0, 0.0)


@dataclass(frozen=True)
class ModelFlops:
    """FLOPs of one batch; `terms` counts K experts for each token, `slots` corrects that to all slots computed."""

    terms: dict[str, Term]
    slots: Term  # computed slots beyond K for each token; negative where capacity allows fewer
    tokens: int  # source and target positions, padding too

    @property
    def total(self) -> Term:
        """FLOPs that the model's mathematics asks for, as MFU counts them."""
        return sum(self.terms.values(), NOTHING)

    @property
    def computed(self) -> Term:
        """FLOPs that are computed, every slot of every expert included."""
        return self.total + self.slots


def _weighted(flops: float) -> Term:
    """A product of activations with a weight, or of two activations: each side has a gradient."""
    return Term(flops, 2.0 * flops)


def model_flops(
    config: ModelConfig, vocabulary: VocabularySizes, rows: int, source: int, target: int, accumulate: int = 1
) -> ModelFlops:
    """Return the FLOPs of a batch.

    Args:
      config: the model's configuration.
      vocabulary: V of sources and of targets.
      rows: B, sentence pairs of a batch.
      source: S, source positions of a row.
      target: T, target positions of a row.
      accumulate: micro-batches of a batch; groups of tokens are cut from a micro-batch.
    """
    encoder = _Stack(config, rows, source, accumulate, decoder=False)
    decoder = _Stack(config, rows, target, accumulate, decoder=True)
    attention = encoder.attention(source) + decoder.attention(target) + decoder.attention(source, cross=True)
    scores = encoder.scores(source) + decoder.scores(target) + decoder.scores(source)
    terms = {
        "attention projections": attention,
        "attention scores": scores,
        "feed-forward": encoder.dense() + decoder.dense(),
        "experts": encoder.experts() + decoder.experts(),
        "router": encoder.router() + decoder.router(),
        "dispatch": encoder.dispatch() + decoder.dispatch(),
        "output layer": _weighted(2.0 * rows * target * config.width * vocabulary.target),
    }
    return ModelFlops(terms, encoder.slots() + decoder.slots(), rows * (source + target))


class _Stack:
    """The layers of an encoder or decoder over rows of `length` tokens."""

    def __init__(self, config: ModelConfig, rows: int, length: int, accumulate: int, decoder: bool):
        self.config, self.moe, self.rows, self.decoder = config, config.moe, rows, decoder
        self.layers = config.decoder_layers if decoder else config.encoder_layers
        moe = config.moe
        self.sparse = len(config.sparse_layers.get("decoder" if decoder else "encoder", ()))
        self.length, self.tokens = length, rows * length
        self.group = self.tokens // accumulate
        self.router_kind = None if moe is None else make_router(moe, decoder)
        if moe is not None and moe.group_size:
            self.group = min(self.group, moe.group_size)

    def attention(self, memory: int, cross: bool = False) -> Term:
        """Projections of queries and outputs over the row, of keys and values over `memory` positions."""
        inner = self.config.heads * self.config.head_width
        ours, theirs = self.tokens, self.rows * memory if cross else self.tokens
        return _weighted(2.0 * self.layers * self.config.width * inner * (2 * ours + 2 * theirs))

    def scores(self, memory: int) -> Term:
        """Products of queries with keys, and of attention weights with values; masked ones are computed too."""
        inner = self.config.heads * self.config.head_width
        return _weighted(2.0 * 2.0 * self.layers * self.tokens * memory * inner)

    def _feed_forward(self, tokens: float, hidden: int | None = None) -> Term:
        products = 3 if is_gated(self.config.activation) else 2
        return _weighted(2.0 * products * tokens * self.config.width * (hidden or self.config.hidden))

    def dense(self) -> Term:
        """Dense layers, those after a sparse one (`extra_dense`), and shared experts."""
        layers = self.layers - self.sparse
        total = self._feed_forward(layers * self.tokens)
        if self.moe is not None and self.moe.extra_dense:
            total += self._feed_forward(self.sparse * self.tokens)
        if self.moe is not None and self.moe.shared != "none":
            total += self._feed_forward(self.sparse * self.tokens, self.moe.shared_hidden)
        return total

    def _choices(self, moe: MoEConfig) -> float:
        """Pairs of a token and an expert in one layer."""
        assert self.router_kind is not None
        return self.router_kind.training_pairs(self.tokens, self._slot_count(moe))

    def _slots(self, moe: MoEConfig) -> float:
        """Slots of all experts for all groups in one layer, in training."""
        assert self.router_kind is not None
        if moe.dispatch == "grouped" and not ROUTERS[self.router_kind.kind].needs_slots:
            return self._choices(moe)
        return self._slot_count(moe)

    def _slot_count(self, moe: MoEConfig) -> float:
        return self.tokens / self.group * moe.experts * capacity(self.group, moe, moe.capacity_factor)

    def experts(self) -> Term:
        """Experts, each token in K of them."""
        return NOTHING if self.moe is None else self._feed_forward(self.sparse * self._choices(self.moe))

    def slots(self) -> Term:
        """FLOPs of all slots less those of `experts`; negative where there are fewer slots than choices."""
        if self.moe is None:
            return NOTHING
        return self._feed_forward(self.sparse * (self._slots(self.moe) - self._choices(self.moe)))

    def router(self) -> Term:
        """Products that give the router's logits."""
        if self.moe is None or self.router_kind is None or not self.router_kind.learns_logits:
            return NOTHING
        return _weighted(2.0 * self.sparse * self.tokens * self.config.width * self.moe.experts)

    def dispatch(self) -> Term:
        """GShard's one-hot products, where they are chosen (`nmt.models.moe.dispatch.einsum_dispatch`)."""
        moe = self.moe
        if moe is None or moe.dispatch != "einsum":
            return NOTHING
        cells = self.sparse * self.tokens * moe.experts * capacity(self.group, moe, moe.capacity_factor)
        move, mask = 2.0 * cells * self.config.width, 2.0 * cells * moe.top_k
        # Dispatch and combine each build a mask and move tokens by it. The mask of dispatch is constant; that of
        # combine holds the gates, so it has a gradient.
        return Term(2 * mask + 2 * move, mask + move + 2 * move)
