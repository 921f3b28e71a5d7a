"""A recipe as typed whose own files are not named, on a public corpus of which nothing is held out."""

from pathlib import Path

from synthetic import Playground
from toy_corpus import WHEEL, values_of, write_spec

# A model of billions of parameters, as small as its recipe allows.
SHRUNK = (
    "vocab.size=300",
    "vocab.target_size=300",
    "model.width=64",
    "model.hidden=64",
    "model.heads=4",
    "model.head_width=16",
    "model.encoder_layers=2",
    "model.decoder_layers=2",
    "model.moe.experts=8",
    "model.moe.group_size=2048",
    "train.steps=2",
    "train.tokens_per_batch=2048",
)
NO_LOSS = "note: there is no development text, so there will be no development loss"
NO_SCORES = "note: there is no test text, so nothing will be evaluated"


def test_a_recipe_of_own_files_trains_as_typed_and_says_what_it_will_not_have(tmp_path: Path, programs: Path) -> None:
    playground = Playground.make(tmp_path / "playground", programs)
    split = {"by": "component", "test": 0, "dev": 0}
    toy = values_of(playground.folder / "links" / WHEEL)
    write_spec(playground.folder / "data", toy | {"name": "mix100", "split": split, "covers": ["es"]}, "mix100.yaml")

    planned = playground.command("nmt-train", "recipe=m4_12b", *SHRUNK, "dry_run=true")
    trained = playground.command("nmt-train", "recipe=m4_12b", *SHRUNK)

    assert (planned.returncode, trained.returncode) == (0, 0), planned.stderr + trained.stderr
    for said in (planned.stdout, trained.stderr):
        assert NO_LOSS in said
        assert NO_SCORES in said
    for done in (planned, trained):
        assert "nmt-train: corpus m4 is replaced by mix100, since the environment variable M4_FILES" in done.stderr
    assert trained.stderr.index(NO_SCORES) < trained.stderr.index("compiling the train step")
    assert "training: 2 steps" in trained.stderr
    assert "not evaluated: there is no test text" in trained.stderr

    evaluated = playground.command("nmt-evaluate", "runs/m4_12b")
    assert evaluated.returncode == 2
    assert evaluated.stderr.startswith("nmt-evaluate: error: nothing to evaluate: the run in runs/m4_12b held no test")
    assert evaluated.stderr.count("\n") == 1
    drawn = playground.command("nmt-plot", "runs/m4_12b")
    assert drawn.returncode == 0, drawn.stderr
