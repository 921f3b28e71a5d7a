"""One decoder of `decode_peers.py` in a process of its own: this toolkit's, or CTranslate2's, with random weights.

Both translate the same random token ids, and every translation is as long as is asked for: with random weights no
search ends by itself. Ours makes each translation as long as its source; CTranslate2 has one length for a batch, the
mean of its sources, so both generate the same number of tokens.
"""

import argparse
import math
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from harness import Facts, positive, serve

BATCH = 32  # sentences of a batch of CTranslate2, as its `translate_file` has it


@dataclass(frozen=True)
class DecoderShape:
    """Sizes of a model."""

    width: int = 512
    hidden: int = 2048
    heads: int = 8
    encoder_layers: int = 6
    decoder_layers: int = 6
    vocabulary: int = 32000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--system", choices=("nmt", "ctranslate2"), required=True)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--sentences", type=positive, default=256)
    parser.add_argument("--alone", action="store_true", help="one sentence at a time")
    parser.add_argument("--beam", type=positive, default=4)
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--warmup", type=int, default=1)
    for field in fields(DecoderShape):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=positive, default=field.default)
    arguments = parser.parse_args()
    shape = DecoderShape(**{field.name: getattr(arguments, field.name) for field in fields(DecoderShape)})
    sources = random_sources(arguments.sentences, shape.vocabulary)
    make = {"nmt": our_decoder, "ctranslate2": ctranslate2_decoder}[arguments.system]
    translate = make(shape, arguments)

    def step() -> Facts:
        if not arguments.alone:
            return {"tokens": translate(sources)}
        tokens, seconds = 0, []
        for source in sources:
            began = time.perf_counter()
            tokens += translate([source])
            seconds.append(time.perf_counter() - began)
        return {"tokens": tokens, "latency": seconds}

    serve(step, arguments.warmup, {"precision": arguments.precision}, again=False)


def random_sources(number: int, vocabulary: int) -> list[list[int]]:
    """Return so many sentences of 5 to 60 random token ids, most of some 20, as lengths of real text are spread."""
    rng = random.Random(0)
    sources: list[list[int]] = []
    while len(sources) < number:
        length = int(rng.gammavariate(3.2, 8.0))
        if 5 <= length <= 60:
            sources.append([rng.randrange(10, vocabulary) for _ in range(length)])
    return sources


def our_decoder(shape: DecoderShape, arguments: argparse.Namespace) -> Callable[[Sequence[Sequence[int]]], int]:
    """Return our search as a function of sources that returns how many tokens it generated."""
    from flax import nnx

    from nmt.config import DecodeConfig, ModelConfig, VocabularySizes
    from nmt.decode.search import Searcher, SpecialTokens
    from nmt.models.transformer import Transformer
    from nmt.sharding import make_layout

    config = ModelConfig(
        width=shape.width,
        hidden=shape.hidden,
        heads=shape.heads,
        encoder_layers=shape.encoder_layers,
        decoder_layers=shape.decoder_layers,
        moe=None,
        dtype="bfloat16" if arguments.precision == "bfloat16" else "float32",
    )
    layout = make_layout()
    with layout.use():
        model = Transformer(config, VocabularySizes.shared(shape.vocabulary), nnx.Rngs(0))
        # A translation is as long as its source: a limit of its tokens, which nothing but the limit ends.
        decode = DecodeConfig(beam=arguments.beam, max_length_ratio=1.0, max_length_extra=1)
        searcher = Searcher(model, SpecialTokens(1, 2, frozenset({0})), 64, decode, layout)
    del model

    def translate(sources: Sequence[Sequence[int]]) -> int:
        found = searcher.search([[3, *source[1:], 2] for source in sources])
        lengths = [len(hypotheses[0].tokens) for hypotheses in found]
        assert lengths == [len(source) for source in sources], "a search ended by itself"
        return sum(lengths)

    return translate


def ctranslate2_decoder(shape: DecoderShape, arguments: argparse.Namespace) -> Callable[[Sequence[Sequence[int]]], int]:
    """Return CTranslate2's search as a function of sources that returns how many tokens it generated."""
    import ctranslate2

    with tempfile.TemporaryDirectory() as folder:
        _write_random_model(shape, Path(folder), arguments.precision)
        translator = ctranslate2.Translator(
            folder, device="cpu", compute_type=arguments.precision, inter_threads=1, intra_threads=arguments.threads
        )

    def translate(sources: Sequence[Sequence[int]]) -> int:
        ordered, tokens = sorted(sources, key=len, reverse=True), 0
        for start in range(0, len(ordered), BATCH):
            batch = ordered[start : start + BATCH]
            length = round(sum(map(len, batch)) / len(batch))
            texts = [[*(f"t{token}" for token in source), "</s>"] for source in batch]
            found = translator.translate_batch(
                texts, beam_size=arguments.beam, min_decoding_length=length, max_decoding_length=length
            )
            assert all(len(result.hypotheses[0]) == length for result in found)
            tokens += length * len(batch)
        return tokens

    return translate


def _write_random_model(shape: DecoderShape, folder: Path, precision: str) -> None:
    """Write a pre-norm Transformer with tied embeddings and random weights in CTranslate2's format."""
    import numpy as np
    from ctranslate2.specs import TransformerSpec

    rng, width = np.random.default_rng(0), shape.width
    spec = TransformerSpec.from_config((shape.encoder_layers, shape.decoder_layers), shape.heads, pre_norm=True)

    def draw(*sizes: int) -> Any:
        return rng.normal(0.0, sizes[-1] ** -0.5, sizes).astype(np.float32)

    def fill_norm(norm: Any) -> None:
        norm.gamma, norm.beta = np.ones(width, np.float32), np.zeros(width, np.float32)

    def fill_linear(linear: Any, outputs: int, inputs: int) -> None:
        linear.weight, linear.bias = draw(outputs, inputs), np.zeros(outputs, np.float32)

    def fill_attention(attention: Any, sizes: Sequence[int]) -> None:
        fill_norm(attention.layer_norm)
        for linear, outputs in zip(attention.linear, sizes, strict=True):
            fill_linear(linear, outputs, width)

    table = draw(shape.vocabulary, width)
    frequency = np.exp(np.arange(0, width, 2) * (-math.log(1e4) / width))
    angle = np.arange(512)[:, None] * frequency
    spec.encoder.embeddings[0].weight = spec.decoder.embeddings.weight = table
    for stack in (spec.encoder, spec.decoder):
        stack.scale_embeddings = True
        fill_norm(stack.layer_norm)
        stack.position_encodings.encodings = np.concatenate([np.sin(angle), np.cos(angle)], 1).astype(np.float32)
        for layer in stack.layer:
            fill_attention(layer.self_attention, (3 * width, width))
            if stack is spec.decoder:
                fill_attention(layer.attention, (width, 2 * width, width))
            fill_norm(layer.ffn.layer_norm)
            fill_linear(layer.ffn.linear_0, shape.hidden, width)
            fill_linear(layer.ffn.linear_1, width, shape.hidden)
    spec.decoder.projection.weight = table
    spec.decoder.projection.bias = np.zeros(shape.vocabulary, np.float32)
    words = ["<unk>", "<s>", "</s>", *(f"t{token}" for token in range(3, shape.vocabulary))]
    spec.register_source_vocabulary(words)
    spec.register_target_vocabulary(words)
    spec.validate()
    spec.optimize(quantization=None if precision == "float32" else precision)
    spec.save(str(folder))


if __name__ == "__main__":
    main()
