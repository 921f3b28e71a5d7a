"""Slow transcriptions in NumPy, token by token and in float64: what the fast code must equal."""

import math
from dataclasses import dataclass

import numpy as np


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def algorithm_1(gates, capacity, uniform):
    """GShard's Algorithm 1 (arXiv 2006.16668) for one group, exactly as printed.

    Where it is not what `nmt.models.moe.routing` does, in the lines marked so:
      (a) the loss is ours over E^2: (1/E) sum_e (c_e/S) m_e against E sum_e f_e P_e;
      (b) a second choice that is not sampled advances its expert's counter, as if it had taken a slot.
    The normalisation before anything is dropped, the order of the choices, the capacity and the counters are the same.
    The paper says nothing of padding.

    Args:
      gates: softmax(wg x) [S,E], E at least 2.
      capacity: C.
      uniform: the random numbers of the second loop [S].

    Returns:
      The combine weights G [S,E] and l_aux.
    """
    tokens, experts = gates.shape
    combine = np.zeros((tokens, experts))
    counter = np.zeros(experts, int)
    mean_gate = gates.mean(axis=0)
    for s in range(tokens):
        g1, e1, g2, _ = _top_2(gates[s])
        g1 = g1 / (g1 + g2)
        c = counter[e1]
        if c < capacity:
            combine[s, e1] = g1
        counter[e1] = c + 1
    l_aux = (counter / tokens * mean_gate).sum() / experts  # (a)
    for s in range(tokens):
        g1, _, g2, e2 = _top_2(gates[s])
        g2 = g2 / (g1 + g2)
        c = counter[e2]
        if c < capacity and 2 * g2 > uniform[s]:
            combine[s, e2] = g2
        counter[e2] = c + 1  # (b)
    return combine, l_aux


def _top_2(gate):
    """The two best gates and experts; ties go to the lower index."""
    e1, e2 = np.argsort(-gate, kind="stable")[:2]
    return gate[e1], int(e1), gate[e2], int(e2)


@dataclass
class Routed:
    """What routing decides, and what it says of it, see `nmt.models.moe.routing`."""

    expert: np.ndarray  # [G,N,2]
    gate: np.ndarray  # [G,N,2]
    slot: np.ndarray  # [G,N,2], -1 for a choice that is not wanted
    kept: np.ndarray  # [G,N,2]
    balance_loss: float
    load: np.ndarray  # [E]
    dropped: np.ndarray  # [2]


def route(logits, real, slots, threshold=None, uniform=None):
    """The conventions stated in `nmt.models.moe.routing`, token by token.

    Args:
      logits: float32 [G,N,E].
      real: bool [G,N].
      slots: C, or None: nothing is dropped.
      threshold: of the normalised gate from which a second choice is certain; None keeps all.
      uniform: random numbers for the second choices [G,N].
    """
    groups, tokens, experts = logits.shape
    expert, slot = np.zeros((groups, tokens, 2), int), np.full((groups, tokens, 2), -1)
    gate, kept = np.zeros((groups, tokens, 2)), np.zeros((groups, tokens, 2), bool)
    wanted = np.zeros((groups, tokens, 2), bool)
    losses, first_choices = [], np.zeros(experts)
    for g in range(groups):
        # Rounded to float32: there a probability can be zero, and an expert that has it is not a second choice.
        probability = softmax(logits[g].astype(np.float64)).astype(np.float32).astype(np.float64)
        counter = np.zeros(experts, int)
        normalised = np.zeros((tokens, 2))
        for n in range(tokens):
            g1, e1, g2, e2 = _top_2(probability[n]) if experts > 1 else (1.0, 0, 0.0, 0)
            expert[g, n] = e1, e2
            normalised[n] = g1 / (g1 + g2), g2 / (g1 + g2)
            sampled = threshold is None or uniform[g, n] * threshold < normalised[n, 1]
            wanted[g, n] = real[g, n], real[g, n] and g2 > 0 and sampled
        for choice in (0, 1):
            for n in range(tokens):
                if not wanted[g, n, choice]:
                    continue
                e = expert[g, n, choice]
                slot[g, n, choice] = counter[e]
                if slots is None or counter[e] < slots:
                    kept[g, n, choice] = True
                    gate[g, n, choice] = normalised[n, choice]
                counter[e] += 1
        if real[g].any():
            count = np.bincount(expert[g, real[g], 0], minlength=experts)
            losses.append(experts * (count / count.sum() * probability[real[g]].mean(axis=0)).sum())
            first_choices += count
    total = max(real.sum(), 1)
    dropped = (wanted & ~kept).sum(axis=(0, 1)) / total
    balance = float(np.mean(losses)) if losses else 0.0
    return Routed(expert, gate, slot, kept, balance, first_choices / total, dropped)


def mixture(x, expert, gate, wi, wo, cotangent):
    """The sum over choices of gate * expert(x), and its gradients times a cotangent, without any dispatch.

    Args:
      x: tokens [N,M].
      expert: [N,K].
      gate: [N,K], zero where dropped.
      wi: [E,M,H].
      wo: [E,H,M].
      cotangent: [N,M].

    Returns:
      The sum [N,M], and the gradients of x, gate, wi, wo.
    """
    x, gate, wi, wo, cotangent = (np.asarray(a, np.float64) for a in (x, gate, wi, wo, cotangent))
    y = np.zeros_like(x)
    of_x, of_gate, of_wi, of_wo = (np.zeros_like(a) for a in (x, gate, wi, wo))
    for n in range(x.shape[0]):
        for k, e in enumerate(expert[n]):
            if gate[n, k] == 0.0:
                continue
            before = x[n] @ wi[e]
            hidden = np.maximum(before, 0.0)
            output = hidden @ wo[e]
            y[n] += gate[n, k] * output
            of_gate[n, k] = output @ cotangent[n]
            of_hidden = gate[n, k] * (wo[e] @ cotangent[n]) * (before > 0)
            of_x[n] += wi[e] @ of_hidden
            of_wi[e] += np.outer(x[n], of_hidden)
            of_wo[e] += gate[n, k] * np.outer(hidden, cotangent[n])
    return y, of_x, of_gate, of_wi, of_wo


class Model:
    """The whole model for one pair that is alone in the world: no packing, no padding, no batch, no dispatch, no scan.

    Args:
      weights: arrays by dotted path, as `toy_model.flat` returns them.
      config: the model's configuration.
    """

    def __init__(self, weights, config):
        self.weights = {name: np.asarray(value, np.float64) for name, value in weights.items()}
        self.config = config

    def logits(self, source, target_in):
        """Logits [T,V] for source tokens [S] and shifted target tokens [T]."""
        memory = self._stack("encoder", self._embed(source), None)
        hidden = self._stack("decoder", self._embed(target_in), memory)
        return hidden @ self.weights["embedding"].T

    def _embed(self, tokens):
        width = self.config.width
        rows = [width**0.5 * self.weights["embedding"][token] for token in tokens]
        if self.config.positions in ("relative", "rotary"):
            return np.array(rows)
        return np.array([row + self._position(position) for position, row in enumerate(rows)])

    def _position(self, position):
        width = self.config.width
        if self.config.positions == "learned":
            return self.weights["positions.table"][position]
        if self.config.positions == "sinusoidal":
            half = width // 2
            angle = [position * 10_000.0 ** (-i / (half - 1)) for i in range(half)]
            return np.concatenate([np.sin(angle), np.cos(angle)])
        # Vaswani et al., section 3.5: PE(pos, 2i) = sin(pos / 10000^(2i/d)), PE(pos, 2i+1) = cos(the same).
        angle = [position / 10_000.0 ** (2 * (j // 2) / width) for j in range(width)]
        return np.array([math.cos(a) if j % 2 else math.sin(a) for j, a in enumerate(angle)])

    def _layers(self, stack):
        """The weights of every layer by name, the repeating blocks first, then what is left over."""
        every = self.config.moe.every if self.config.moe else 1
        layers = getattr(self.config, f"{stack}_layers")
        for layer in range(layers):
            block, place = divmod(layer, every)
            left_over = block == layers // every
            prefix = f"{stack}.{'rest' if left_over else 'blocks'}.{place}."
            w = {n.removeprefix(prefix): v for n, v in self.weights.items() if n.startswith(prefix)}
            yield w if left_over else {name: value[block] for name, value in w.items()}

    def _stack(self, stack, x, memory):
        for w in self._layers(stack):
            y = self._norm(w, "self_norm", x)
            x = x + self._attend(w, "self_attention", y, y, stack)
            if memory is not None:
                x = x + self._attend(w, "cross_attention", self._norm(w, "cross_norm", x), memory, None)
            y = self._norm(w, "ff_norm", x)
            x = x + (self._experts(w, y) if "moe.wi" in w else self._feed_forward(w, "ff", y))
            if "extra.wi" in w:
                x = x + self._feed_forward(w, "extra", self._norm(w, "extra_norm", x))
        return self._norm(self.weights, f"{stack}.norm", x)

    def _norm(self, w, name, x):
        if self.config.norm == "layernorm":
            x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + self.config.norm_epsilon) * w[f"{name}.scale"]
        return x + w[f"{name}.bias"] if self.config.norm == "layernorm" else x

    def _attend(self, w, name, x, memory, stack):
        """Self-attention of a stack, or cross-attention if it is None."""
        wq, wkv, wo = (w[f"{name}.{part}"] for part in ("wq", "wkv", "wo"))
        y = np.zeros_like(x)
        for head in range(self.config.heads):
            keys, values, queries = memory @ wkv[:, 0, head], memory @ wkv[:, 1, head], x @ wq[:, head]
            if self.config.bias:
                keys, values = keys + w[f"{name}.bkv"][0, head], values + w[f"{name}.bkv"][1, head]
                queries = queries + w[f"{name}.bq"][head]
            if stack and self.config.positions == "rotary":
                keys, queries = turned(keys), turned(queries)
            for t in range(len(x)):
                seen = t + 1 if stack == "decoder" else len(memory)
                scores = keys[:seen] @ queries[t] / self.config.head_width**0.5
                if stack and self.config.positions == "relative":
                    scores = scores + [self._relative(stack, s - t)[head] for s in range(seen)]
                y[t] += softmax(scores) @ values[:seen] @ wo[head]
        return y + w[f"{name}.bo"] if self.config.bias else y

    def _relative(self, stack, offset):
        """The bias of all heads for a key that stands so many tokens after the query."""
        bucket = t5_bucket(offset, stack == "encoder", self.config.relative_buckets, self.config.relative_distance)
        return self.weights[f"{stack}.positions.table"][bucket]

    def _feed_forward(self, w, name, x, expert=...):
        """A dense layer, or one of several experts."""

        def through(matrix, bias, y):
            y = y @ w[f"{name}.{matrix}"][expert]
            return y + w[f"{name}.{bias}"][expert] if f"{name}.{bias}" in w else y

        hidden = through("wi", "bi", x)
        if self.config.activation == "relu":
            hidden = np.maximum(hidden, 0.0)
        elif self.config.activation == "gelu":
            hidden = hidden * np.vectorize(lambda a: 0.5 * (1 + math.erf(a / 2**0.5)))(hidden)
        else:
            gate = through("wg", "bg", x)
            cubic = (2 / math.pi) ** 0.5 * (gate + 0.044715 * gate**3)  # GELU, Hendrycks and Gimpel, section 2
            geglu = self.config.activation == "geglu"
            hidden = hidden * (0.5 * gate * (1 + np.tanh(cubic)) if geglu else gate / (1 + np.exp(-gate)))
        return through("wo", "bo", hidden)

    def _experts(self, w, x):
        rows = []
        for token, gate in zip(x, softmax(x @ w["moe.router"]), strict=True):
            g1, e1, g2, e2 = _top_2(gate)
            outputs = [self._feed_forward(w, "moe", token, e) for e in (e1, e2)]
            rows.append((g1 * outputs[0] + g2 * outputs[1]) / (g1 + g2))
        return np.array(rows)


def turned(x):
    """Rotary positions (arXiv:2104.09864, section 3.2) for vectors [T,D] at 0, 1, ...: pairs as complex numbers.

    The pairs are (i, i + D/2), as in GPT-NeoX.
    """
    half = x.shape[1] // 2
    pairs = x[:, :half] + 1j * x[:, half:]
    for t in range(len(x)):
        for i in range(half):
            pairs[t, i] *= np.exp(1j * t * 10_000.0 ** (-2 * i / x.shape[1]))
    return np.concatenate([pairs.real, pairs.imag], axis=1)


def t5_bucket(offset, bidirectional, buckets, distance):
    """The bucket of key position minus query position (arXiv:1910.10683, section 2.1; the code of T5)."""
    first = 0
    if bidirectional:
        buckets //= 2
        first = buckets if offset > 0 else 0
        away = abs(offset)
    else:
        away = max(-offset, 0)
    exact = buckets // 2
    if away < exact:
        return first + away
    # exact + floor(log(away / exact) / log(distance / exact) * (buckets - exact)), without logarithms.
    bucket = exact
    while bucket + 1 < buckets and away ** (buckets - exact) >= (
        exact ** (buckets - bucket - 1) * distance ** (bucket + 1 - exact)
    ):
        bucket += 1
    return first + bucket
