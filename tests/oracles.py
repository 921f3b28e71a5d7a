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


def lingvo_top_2(gates, capacity, uniform, threshold=None):
    """Lingvo's `Top2GatingOnLogits` for one group without padding, as its one-hot masks have it.

    Gates are normalised by g1 + g2 + 1e-9 before anything is dropped (`legacy_mtf_behavior`); a second expert that is
    not sampled is taken out of the mask and takes no slot; second positions start after the first choices that were
    kept; the loss is E * E * mean over experts of (share of first choices * mean gate).

    Args:
      gates: softmax of the logits [S,E], E at least 2.
      capacity: C.
      uniform: random numbers of second choices [S].
      threshold: of the policy `random`; None is the policy `all`.

    Returns:
      The combine tensor [S,E,C] and the loss.
    """
    tokens, experts = gates.shape
    eye, rows = np.eye(experts), np.arange(tokens)
    mask_1 = eye[gates.argmax(axis=-1)]
    without_1 = gates * (1 - mask_1)
    mask_2 = eye[without_1.argmax(axis=-1)]
    gate_1, gate_2 = (gates * mask_1).sum(axis=-1), (without_1 * mask_2).sum(axis=-1)
    gate_1, gate_2 = gate_1 / (gate_1 + gate_2 + 1e-9), gate_2 / (gate_1 + gate_2 + 1e-9)
    if threshold is not None:
        mask_2 = mask_2 * (uniform < gate_2 / max(threshold, 1e-9))[:, None]
    loss = (mask_1.mean(axis=0) * gates.mean(axis=0)).mean() * experts * experts
    position_1 = (mask_1.cumsum(axis=0) - mask_1) * mask_1
    mask_1 = mask_1 * (position_1 < capacity)
    mask_1_count = mask_1.sum(axis=0)
    position_2 = (mask_2.cumsum(axis=0) - mask_2 + mask_1_count) * mask_2
    mask_2 = mask_2 * (position_2 < capacity)
    combine = np.zeros((tokens, experts, capacity))
    for mask, position, gate in ((mask_1, position_1, gate_1), (mask_2, position_2, gate_2)):
        for s in rows[mask.any(axis=-1)]:
            e = int(mask[s].argmax())
            combine[s, e, int(position[s, e])] += gate[s]
    return combine, loss


@dataclass
class Routed:
    """What routing decides, and what it says of it, see `nmt.models.moe.routing`."""

    expert: np.ndarray  # [G,N,K]
    gate: np.ndarray  # [G,N,K]
    slot: np.ndarray  # [G,N,K], -1 for a choice that is not wanted
    kept: np.ndarray  # [G,N,K]
    balance_loss: float
    z_loss: float
    confidence: float
    load: np.ndarray  # [E]
    dropped: np.ndarray  # [K]


def best(gate, choices):
    """The best experts and their gates; ties go to the lower index; past all experts some expert, with gate 0."""
    experts = [int(e) for e in np.argsort(-gate, kind="stable")[:choices]]
    missing = choices - len(experts)
    return experts + [0] * missing, [gate[e] for e in experts] + [0.0] * missing


def rounded_softmax(logits):
    """Probabilities rounded to float32: there one can be zero, and an expert that has it is not chosen."""
    return softmax(logits.astype(np.float64)).astype(np.float32).astype(np.float64)


def route(logits, real, slots, threshold=None, uniform=None, choices=2, normalise="before", prioritised=False):
    """The conventions stated in `nmt.models.moe.routing`, token by token.

    Args:
      logits: float32 [G,N,E].
      real: bool [G,N].
      slots: C, or None: nothing is dropped.
      threshold: of the normalised gate from which a later choice is certain; None keeps all.
      uniform: random numbers for the later choices [G,N,K-1].
      choices: K.
      normalise: before, after or none.
      prioritised: whether tokens with a greater first gate are served first.
    """
    groups, tokens, experts = logits.shape
    expert, slot = np.zeros((groups, tokens, choices), int), np.full((groups, tokens, choices), -1)
    gate, kept = np.zeros((groups, tokens, choices)), np.zeros((groups, tokens, choices), bool)
    wanted = np.zeros((groups, tokens, choices), bool)
    losses, first_choices, confidence, z = [], np.zeros(experts), [], []
    for g in range(groups):
        probability = rounded_softmax(logits[g])
        counter = np.zeros(experts, int)
        raw, normalised = np.zeros((tokens, choices)), np.zeros((tokens, choices))
        for n in range(tokens):
            expert[g, n], raw[n] = best(probability[n], choices)
            normalised[n] = raw[n] / raw[n].sum()
            for k in range(choices):
                sampled = k == 0 or threshold is None or uniform[g, n, k - 1] * threshold < normalised[n, k]
                wanted[g, n, k] = real[g, n] and raw[n, k] > 0 and sampled
        queue = sorted(range(tokens), key=lambda n: -raw[n, 0]) if prioritised else range(tokens)
        for k in range(choices):
            for n in queue:
                if not wanted[g, n, k]:
                    continue
                e = expert[g, n, k]
                slot[g, n, k] = counter[e]
                if slots is None or counter[e] < slots:
                    kept[g, n, k] = True
                    gate[g, n, k] = normalised[n, k] if normalise == "before" else raw[n, k]
                counter[e] += 1
        for n in range(tokens):
            if normalise == "after" and kept[g, n].any():
                gate[g, n] /= gate[g, n].sum()
            if real[g, n]:
                confidence.append(raw[n, 0])
                z.append(np.log(np.exp(logits[g, n].astype(np.float64)).sum()) ** 2)
        if real[g].any():
            count = np.bincount(expert[g, real[g], 0], minlength=experts)
            losses.append(experts * (count / count.sum() * probability[real[g]].mean(axis=0)).sum())
            first_choices += count
    total = max(real.sum(), 1)
    return Routed(
        expert=expert,
        gate=gate,
        slot=slot,
        kept=kept,
        balance_loss=float(np.mean(losses)) if losses else 0.0,
        z_loss=float(np.mean(z)) if z else 0.0,
        confidence=float(np.mean(confidence)) if confidence else 0.0,
        load=first_choices / total,
        dropped=(wanted & ~kept).sum(axis=(0, 1)) / total,
    )


def bias_balanced(logits, real, bias, slots, choices, affinity="sigmoid", normalise="before"):
    """Choices by affinity and bias, token by token (arXiv:2412.19437, equations 12 to 20; no sampling, no priority).

    Args:
      logits: float32 [G,N,E].
      real: bool [G,N].
      bias: float [E].
      slots: C, or None: nothing is dropped.
      choices: K.
      affinity: sigmoid or softmax.
      normalise: before, after or none.

    Returns:
      expert, gate and kept [G,N,K], the load of each expert [E], and the balance loss of each group with tokens.
    """
    groups, tokens, experts = logits.shape
    expert, gate = np.zeros((groups, tokens, choices), int), np.zeros((groups, tokens, choices))
    kept, load, losses = np.zeros((groups, tokens, choices), bool), np.zeros(experts), []
    for g in range(groups):
        counter, alone, mean = np.zeros(experts, int), np.zeros(experts), np.zeros(experts)
        exact = logits[g].astype(np.float64)
        scores = 1 / (1 + np.exp(-exact)) if affinity == "sigmoid" else softmax(exact)
        for n in range(tokens):
            expert[g, n], _ = best(scores[n] + bias, choices)
        for k in range(choices):
            for n in np.flatnonzero(real[g]):
                e = expert[g, n, k]
                load[e] += 1
                kept[g, n, k] = slots is None or counter[e] < slots
                counter[e] += 1
        for n in np.flatnonzero(real[g]):
            raw = scores[n, expert[g, n]]
            gate[g, n] = np.where(kept[g, n], raw / raw.sum() if normalise == "before" else raw, 0.0)
            if normalise == "after" and kept[g, n].any():
                gate[g, n] /= gate[g, n].sum()
            alone[best(scores[n], choices)[0]] += 1
            mean += scores[n] / scores[n].sum()
        if real[g].any():
            count = real[g].sum()
            losses.append(sum(experts / (choices * count) * alone[e] * mean[e] / count for e in range(experts)))
    return expert, gate, kept, load, losses


def choose_tokens(logits, real, slots):
    """Expert choice: for every group and expert the `slots` best tokens, {token: gate}, padding aside."""
    taken = []
    for of_group, is_real in zip(logits, real, strict=True):
        probability = rounded_softmax(of_group)
        experts = []
        for e in range(of_group.shape[-1]):
            queue = sorted((n for n in range(len(is_real)) if is_real[n]), key=lambda n: -probability[n, e])
            experts.append({n: probability[n, e] for n in queue[:slots]})
        taken.append(experts)
    return taken


def hash_integers(x, seed):
    """The integer hash of `nmt.models.numerics.hash_integers` for Python integers."""
    word = 2**32
    h = (x + seed[0]) % word
    h = (h ^ (h >> 16)) * 0x7FEB352D % word
    h = ((h ^ (h >> 15)) * 0x846CA68B % word) ^ seed[1]
    h = (h ^ (h >> 16)) * 0x7FEB352D % word
    return h ^ (h >> 15)


def hashed_experts(token, experts, choices):
    """Choice k of a token is one of the experts that are left, by a hash of the token and of k."""
    left, chosen = list(range(experts)), []
    for k in range(choices):
        seed = (0x9E3779B9 * (k + 1) % 2**32, 0x85EBCA6B)
        chosen.append(left.pop(hash_integers(token, seed) % len(left)))
    return chosen


ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0.0),
    "gelu": lambda x: x * 0.5 * (1.0 + np.vectorize(math.erf)(x / 2**0.5)),
    "geglu": lambda x: 0.5 * x * (1.0 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))),
    "swiglu": lambda x: x / (1.0 + np.exp(-x)),
}


def feed_forward(x, activation, wi, wo, wg=None, bi=0.0, bo=0.0, bg=0.0):
    """A feed-forward layer, or one expert, on rows [N,M]."""
    into, act = x @ wi + bi, ACTIVATIONS[activation]
    hidden = act(into) if wg is None else act(x @ wg + bg) * into
    return hidden @ wo + bo


def dense_layer(weights, x, activation, combine):
    """A mixture-of-experts layer without any routing or dispatch: every expert on every token, in float64.

    Args:
      weights: the layer's parameters by name.
      x: tokens [N,M].
      activation: of the experts and the shared one.
      combine: [N,E], how much a token takes of each expert.

    Returns:
      [N,M]; with a shared expert its output is added, or weighed against that of the routed ones by a gate.
    """
    weights = {name: np.asarray(value, np.float64) for name, value in weights.items()}
    x = x.astype(np.float64)
    names = [name for name in ("wi", "wo", "wg", "bi", "bo", "bg") if name in weights]
    routed = np.zeros_like(x)
    for e in range(combine.shape[1]):
        routed += combine[:, [e]] * feed_forward(x, activation, **{name: weights[name][e] for name in names})
    shared = {name.removeprefix("shared."): value for name, value in weights.items() if name.startswith("shared.")}
    if not shared:
        return routed
    common = feed_forward(
        x, "relu" if "wg" not in shared and activation in ("geglu", "swiglu") else activation, **shared
    )
    if "share_w" not in weights:
        return common + routed
    gate = 1.0 / (1.0 + np.exp(-(x @ weights["share_w"] + weights["share_b"])))[:, None]
    return (1.0 - gate) * common + gate * routed


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
        separate = self.config.embeddings == "separate"
        source_table, target_table = (
            self.weights[f"{side}_embedding" if separate else "embedding"] for side in ("source", "target")
        )
        memory = self._stack("encoder", self._embed(source, source_table), None)
        hidden = self._stack("decoder", self._embed(target_in, target_table), memory)
        if self.config.output_scale:
            hidden = hidden / self.config.width**0.5
        return hidden @ (target_table if self.config.tie_output else self.weights["output"]).T

    def _embed(self, tokens, table):
        width = self.config.width
        scale = width**0.5 if self.config.embedding_scale else 1.0
        rows = [scale * table[token] for token in tokens]
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
