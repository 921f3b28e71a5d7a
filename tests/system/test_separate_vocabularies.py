"""A run with a vocabulary, an embedding and an output layer for each side, and NLLB's tags, by the real commands."""

import json

import jax
import numpy as np
from synthetic import Playground, lexicon

from nmt.config import VocabularySizes, read_run_recipe
from nmt.models.building import abstract_model
from nmt.models.weights import load_model
from nmt.sharding import make_mesh

SIZES = VocabularySizes(330, 305)
TRANSLATED = ("es-en", "en-de")
OPTIONS = (
    f"data.directions={','.join(TRANSLATED)}",
    f"vocab.size={SIZES.source}",
    f"vocab.target_size={SIZES.target}",
    "data.tags=nllb",
    "model.embeddings=separate",
    "model.tie_output=false",
    "model.output_scale=true",
    "model.encoder_layers=1",
    "model.decoder_layers=1",
    "model.moe=null",
    "run_dir=runs/separate",
    "train.schedule.name=rsqrt",
    "train.checkpoint_every=20",
    "decode.beam=1",
    "decode.max_length_ratio=0.1",
    "decode.max_length_extra=1",
    "evaluate.samples=0",
    "evaluate.sentences=10",
)


def test_a_run_with_two_vocabularies_trains_resumes_evaluates_and_translates(playground: Playground) -> None:
    def train(*options: str, steps: int):
        return playground.command(
            "nmt-train", f"recipe={playground.recipe}", *OPTIONS, f"train.steps={steps}", *options
        )

    planned = train("dry_run=true", steps=40)
    first, second = (train(steps=steps) for steps in (20, 40))
    assert (planned.returncode, first.returncode, second.returncode) == (0, 0, 0), first.stderr + second.stderr
    assert "vocabularies: 330 pieces for sources, 305 for targets" in first.stderr
    assert "resuming after step 20" in second.stderr
    assert all(direction in second.stdout for direction in TRANSLATED)
    run = playground.folder / "runs" / "separate"

    recipe = read_run_recipe(run)
    _, parameters = abstract_model(recipe.model, SIZES)
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(parameters))
    assert f"parameters: {count:,} in total" in planned.stdout
    assert f"parameters: {count:,} in total" in first.stderr
    model, step = load_model(run, recipe.model, SIZES, make_mesh(devices=jax.devices()[:1]))
    assert step == 40
    assert model.source_table.shape[0] == SIZES.source
    assert model.target_table.shape == model.output_table.shape
    digests = json.loads((run / "data" / "stats.json").read_text())["digests"]
    assert digests["vocabulary"] != digests["target vocabulary"]

    done = playground.command("nmt-translate", str(run), "--from", "es", "--to", "en", given=f"{lexicon()[0]}\n\n")
    assert (done.returncode, done.stdout.count("\n")) == (0, 2), done.stderr
