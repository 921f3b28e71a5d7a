"""Slow transcriptions in NumPy, token by token and in float64: what the fast code must equal."""

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
        rows = []
        for position, token in enumerate(tokens):
            half = width // 2
            angle = [position * 10_000.0 ** (-i / (half - 1)) for i in range(half)]
            rows.append(scale * table[token] + np.concatenate([np.sin(angle), np.cos(angle)]))
        return np.array(rows)

    def _stack(self, stack, x, memory):
        every = self.config.moe.every if self.config.moe else 1
        for layer in range(getattr(self.config, f"{stack}_layers")):
            prefix = f"{stack}.blocks.{layer % every}."
            w = {
                name.removeprefix(prefix): value[layer // every]
                for name, value in self.weights.items()
                if name.startswith(prefix)
            }
            y = _norm(x, w["self_norm.scale"])
            x = x + self._attend(w, "self_attention", y, y, causal=memory is not None)
            if memory is not None:
                x = x + self._attend(w, "cross_attention", _norm(x, w["cross_norm.scale"]), memory, causal=False)
            y = _norm(x, w["ff_norm.scale"])
            x = x + (_experts(w, y) if "moe.wi" in w else np.maximum(y @ w["ff.wi"], 0.0) @ w["ff.wo"])
        return _norm(x, self.weights[f"{stack}.norm.scale"])

    def _attend(self, w, name, x, memory, causal):
        wq, wkv, wo = (w[f"{name}.{part}"] for part in ("wq", "wkv", "wo"))
        y = np.zeros_like(x)
        for head in range(self.config.heads):
            keys, values = memory @ wkv[:, 0, head], memory @ wkv[:, 1, head]
            for t in range(len(x)):
                seen = t + 1 if causal else len(memory)
                scores = keys[:seen] @ (x[t] @ wq[:, head]) / self.config.head_width**0.5
                y[t] += softmax(scores) @ values[:seen] @ wo[head]
        return y


def _norm(x, scale):
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-6) * scale


def _experts(w, x):
    rows = []
    for token, gate in zip(x, softmax(x @ w["moe.router"]), strict=True):
        g1, e1, g2, e2 = _top_2(gate)
        outputs = [np.maximum(token @ w["moe.wi"][e], 0.0) @ w["moe.wo"][e] for e in (e1, e2)]
        rows.append((g1 * outputs[0] + g2 * outputs[1]) / (g1 + g2))
    return np.array(rows)
