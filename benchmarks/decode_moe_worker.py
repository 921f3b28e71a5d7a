"""One decoder of `decode_moe.py` in a process of its own: a model of ours or Hugging Face's NllbMoe, of random weights.

Both translate the same random token ids by beam search, and predict as many tokens for every sentence as they are told:
with random weights no search ends by itself. Theirs are drawn as widely as ours, so that tokens of both go to all
experts; as `transformers` draws them, nearly all tokens go to the same few.
"""

import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from harness import Facts, cores, serve

BEGIN, PADDING, END = 3, 1, 2  # of NLLB; the begin token of ours is a language's tag
Sources = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Decoding:
    """A model, and what it is to translate; experts are in every second layer, and a token uses two of them.

    A dense model, without experts, has feed-forward layers 1.5 times as wide: a token costs the same arithmetic.
    """

    system: str  # "nmt" is ours
    experts: int
    precision: str
    sentences: int
    alone: bool = False  # one sentence at a time
    beam: int = 4
    width: int = 512
    hidden: int = 2048
    heads: int = 8
    layers: int = 6  # of the encoder, and of the decoder
    vocabulary: int = 32000


def main() -> None:
    decoding = Decoding(**json.loads(sys.argv[1]))
    sources = random_sources(decoding)
    mean = round(sum(map(len, sources)) / len(sources))
    parts = [([source], len(source)) for source in sources] if decoding.alone else [(sources, mean)]
    translate, facts = {"nmt": our_decoder, "nllb-moe": their_decoder}[decoding.system](decoding)

    def step() -> Facts:
        latency = []
        for part, tokens in parts:
            began = time.perf_counter()
            translate(part, tokens)
            latency.append(time.perf_counter() - began)
        return {"latency": latency, "tokens": sum(len(part) * tokens for part, tokens in parts)}

    serve(step, 0, facts, again=False)


def random_sources(decoding: Decoding) -> list[list[int]]:
    """Return sentences of 5 to 60 random token ids, spread as the lengths of real text are."""
    draw = random.Random(0)
    sources: list[list[int]] = []
    while len(sources) < decoding.sentences:
        if 5 <= (length := int(draw.gammavariate(3.2, 8.0))) <= 60:
            sources.append([draw.randrange(10, decoding.vocabulary) for _ in range(length - 1)] + [END])
    return sources


def our_decoder(decoding: Decoding) -> tuple[Callable[[Sources, int], None], Facts]:
    """Return our search as a function of sources and tokens, and facts of the model."""
    import jax
    from flax import nnx

    from nmt.config import DecodeConfig, ModelConfig, MoEConfig, VocabularySizes
    from nmt.decode.options import SearchOptions
    from nmt.decode.search import Searcher, SpecialTokens
    from nmt.models.transformer import Transformer
    from nmt.sharding import make_layout

    moe = MoEConfig(preset="nllb", experts=decoding.experts, every=2) if decoding.experts else None
    config = ModelConfig(
        width=decoding.width,
        hidden=decoding.hidden if moe else decoding.hidden * 3 // 2,
        heads=decoding.heads,
        encoder_layers=decoding.layers,
        decoder_layers=decoding.layers,
        moe=moe,
        dtype=decoding.precision,
    )
    layout = make_layout()
    with layout.use():
        model = Transformer(config, VocabularySizes.shared(decoding.vocabulary), nnx.Rngs(0))
        parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
        tokens = SpecialTokens(BEGIN, END, frozenset({0, PADDING}))
        searcher = Searcher(model, tokens, 64, DecodeConfig(beam=decoding.beam), layout)
    del model

    def translate(sources: Sources, tokens: int) -> None:
        # The end is the last token that is predicted.
        limits = {"min_length": tokens - 1, "max_length": tokens - 1, "max_length_extra": tokens}
        options = SearchOptions(beam=decoding.beam, **limits)
        found = searcher.search(sources, options=options)
        assert all(len(hypotheses[0].tokens) == tokens - 1 for hypotheses in found)

    return translate, {"parameters": parameters}


def their_decoder(decoding: Decoding) -> tuple[Callable[[Sources, int], None], Facts]:
    """Return the search of NllbMoe as a function of sources and tokens, and facts of the model."""
    import torch
    from transformers import NllbMoeConfig, NllbMoeForConditionalGeneration

    torch.set_num_threads(cores())
    torch.manual_seed(0)
    config = NllbMoeConfig(
        vocab_size=decoding.vocabulary,
        d_model=decoding.width,
        encoder_layers=decoding.layers,
        decoder_layers=decoding.layers,
        encoder_ffn_dim=decoding.hidden,
        decoder_ffn_dim=decoding.hidden,
        encoder_attention_heads=decoding.heads,
        decoder_attention_heads=decoding.heads,
        max_position_embeddings=512,
        pad_token_id=PADDING,
        eos_token_id=END,
        decoder_start_token_id=END,
        num_experts=decoding.experts,
        encoder_sparse_step=2,
        decoder_sparse_step=2,
        moe_eval_capacity_token_fraction=1.0,
    )
    model = NllbMoeForConditionalGeneration(config).eval()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.uniform_(parameter, -((3 / parameter.shape[1]) ** 0.5), (3 / parameter.shape[1]) ** 0.5)
    model = model.to(getattr(torch, decoding.precision))

    @torch.inference_mode()
    def translate(sources: Sources, tokens: int) -> None:
        longest = max(map(len, sources))
        ids = torch.tensor([[*source, *[PADDING] * (longest - len(source))] for source in sources])
        limits = {"min_new_tokens": tokens, "max_new_tokens": tokens}
        mask = (ids != PADDING).long()
        found = model.generate(input_ids=ids, attention_mask=mask, num_beams=decoding.beam, do_sample=False, **limits)
        assert found.shape[1] == tokens + 1

    facts: Facts = {"parameters": sum(parameter.numel() for parameter in model.parameters())}
    return translate, facts | {"experts_used": _experts_used(model, translate, random_sources(decoding))}


def _experts_used(model: Any, translate: Callable[[Sources, int], None], sources: Sources) -> float:
    """Return how many experts a sparse decoder layer uses in a step for these sources, on average."""
    counts: list[int] = []
    routers = [layer.ffn.router for layer in model.model.decoder.layers if layer.is_sparse]
    hooks = [
        router.register_forward_hook(lambda _, __, output: counts.append(int((output[1] > 0).any(0).sum())))
        for router in routers
    ]
    translate(sources, 4)
    for hook in hooks:
        hook.remove()
    return sum(counts) / len(counts)


if __name__ == "__main__":
    main()
