"""What people do with a finished run: start it again, evaluate it again, translate, ask for what is not there."""

import json
from pathlib import Path

import pytest
from synthetic import DIRECTIONS, RECIPE, Playground, one_line, written


def test_a_second_start_repeats_nothing(trained: Playground) -> None:
    before = written(trained.run)
    done = trained.command("nmt-train", f"recipe={trained.recipe}", PIP_FIND_LINKS="")
    assert done.returncode == 0, done.stderr
    assert all(direction in done.stdout for direction in DIRECTIONS)
    changed = {name for name, stamp in written(trained.run).items() if before.get(name) != stamp}
    repeated = {name for name in changed if not name.startswith("evaluation/") or is_of_a_direction(name)}
    assert repeated <= {"recipe.yaml"}


def is_of_a_direction(name: str) -> bool:
    """Tell results and hypotheses, which take time, from the tables and pictures that sum them up."""
    return Path(name).stem in DIRECTIONS


def test_evaluating_again_translates_nothing(trained: Playground) -> None:
    hypotheses = trained.run / "evaluation" / str(RECIPE["train"]["steps"]) / "test" / "hypotheses"
    before = written(hypotheses)
    done = trained.command("nmt-evaluate", str(trained.run), "--json")
    assert done.returncode == 0, done.stderr
    assert [result["direction"] for result in json.loads(done.stdout)["results"]] == list(DIRECTIONS)
    assert written(hypotheses) == before
    done = trained.command("nmt-evaluate", str(trained.run), "--pairs", "en-de", "--force", "--json")
    assert [result["direction"] for result in json.loads(done.stdout)["results"]] == ["en-de"]
    assert {name for name, stamp in written(hypotheses).items() if before[name] != stamp} == {"en-de.txt"}


def test_languages_have_many_names(trained: Playground) -> None:
    text = trained.folder / "text.txt"
    text.write_text("bada kifo gumu lero\n")
    answers = set()
    for source, target in (("en", "de"), ("eng_Latn", "de_DE")):
        done = trained.command("nmt-translate", str(trained.run), "--from", source, "--to", target, str(text))
        assert done.returncode == 0, done.stderr
        answers.add(done.stdout)
    assert len(answers) == 1


# Pictures.


def test_a_finished_run_has_its_pictures(trained: Playground) -> None:
    step = RECIPE["train"]["steps"]
    folder = trained.run / "evaluation" / str(step) / "test"
    assert (folder / "experts.svg").read_text().count("<image") == 3  # encoder, decoder, scale of colours
    done = trained.command("nmt-plot", str(trained.run), "--output", "drawn")
    assert (done.returncode, done.stderr) == (0, "")
    assert "encoder 1" in done.stdout
    assert {path.name for path in (trained.folder / "drawn").iterdir()} == {"run.svg", f"experts-{step}.svg"}


# What is not there.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nmt-train", "recipe=quickstrat"), "unknown recipe 'quickstrat'; did you mean quickstart?"),
        (("nmt-train", "recipe=quickstart", "train.stepz=3"), "unknown key train.stepz; did you mean train.steps?"),
        (("nmt-train", "recipe=quickstart", "train.steps=many"), "train.steps must be a whole number"),
        (
            ("nmt-train", "recipe=quickstart", "data.corpora=tyo", "run_dir=runs/tyo"),
            "unknown corpus 'tyo'; did you mean toy?",
        ),
        (("nmt-train", "recipe=quickstart", "data.directions=fr-en", "run_dir=runs/fr"), "no text for the direction"),
        (("nmt-translate", "runs/none", "--from", "en", "--to", "de"), "runs/none is not a run directory"),
        (("nmt-translate", "runs/quickstart", "--from", "en", "--to", "fr"), "the model does not know fr"),
        (("nmt-translate", "runs/quickstart", "--from", "englsh", "--to", "de"), "did you mean"),
        (("nmt-translate", "runs/quickstart", "--from", "en", "--to", "de", "none.txt"), "none.txt"),
        (("nmt-evaluate", "runs/none"), "runs/none is not a run directory"),
        (("nmt-evaluate", "runs/quickstart", "--pairs", "en-fr"), "en-fr"),
        (("nmt-evaluate", "runs/quickstart", "--testset", "none"), "none"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[str, ...], message: str, trained: Playground) -> None:
    assert message in one_line(trained.command(*arguments), arguments[0])


def test_a_run_without_a_checkpoint_says_so(trained: Playground) -> None:
    run = trained.folder / "runs" / "unborn"
    run.mkdir()
    (run / "recipe.yaml").write_bytes((trained.run / "recipe.yaml").read_bytes())
    for command in (("nmt-translate", "--from", "en", "--to", "de"), ("nmt-evaluate",)):
        assert "unborn" in one_line(trained.command(*command, str(run)), command[0])
