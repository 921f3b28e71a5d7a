"""A tiny sparse model learns four made-up directions to near-zero loss, from a corpus to translated text."""

import json
import random
import subprocess

import pytest
from synthetic import DIRECTIONS, RECIPE, Playground, lexicon, sentence, translation

STEPS = RECIPE["train"]["steps"]


def evaluation(trained: Playground) -> dict[str, dict[str, float]]:
    """Return what the evaluation at the end of training wrote, by direction."""
    matrix = json.loads((trained.run / "evaluation" / str(STEPS) / "test" / "matrix.json").read_text())
    return {result["direction"]: result for result in matrix["results"]}


def metrics(trained: Playground, kind: str) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (trained.run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def translate(trained: Playground, lines: list[str], source: str, target: str) -> list[str]:
    given = "".join(f"{line}\n" for line in lines)
    done = trained.command("nmt-translate", str(trained.run), "--from", source, "--to", target, given=given)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\n")
    return done.stdout.removesuffix("\n").split("\n")


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_every_direction_is_learnt(direction: str, trained: Playground) -> None:
    assert evaluation(trained)[direction]["bleu"] > 90
    last = metrics(trained, "dev")[-1]
    assert last["step"] == STEPS
    assert last[f"nll/{direction}"] < 0.1


def test_the_test_sets_are_whole_components_and_all_of_them_is_translated(trained: Playground) -> None:
    results = evaluation(trained)
    folder = trained.run / "data" / "test"
    for direction in DIRECTIONS:
        pairs = (folder / f"{direction}.jsonl").read_text().splitlines()
        assert results[direction]["sentences"] == len(pairs) >= 100
        hypotheses = trained.run / "evaluation" / str(STEPS) / "test" / "hypotheses" / f"{direction}.txt"
        assert len(hypotheses.read_text().splitlines()) == len(pairs)


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_no_expert_is_idle(stack: str, trained: Playground) -> None:
    last = metrics(trained, "train")[-1]
    assert 0.25 < last[f"experts/{stack}/idlest"] <= 1 <= last[f"experts/{stack}/busiest"] < 2


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_new_sentences_are_translated(direction: str, trained: Playground) -> None:
    generator = random.Random(99)
    english = [sentence(generator, lexicon()) for _ in range(20)]
    source, target = direction.split("-")
    sides = [[translation(text, language) for text in english] for language in (source, target)]
    found = translate(trained, sides[0], source, target)
    assert len(found) == 20
    right = sum(line == expected for line, expected in zip(found, sides[1], strict=True))
    assert right >= 18


def test_blank_lines_stay_where_they_are(trained: Playground) -> None:
    text = sentence(random.Random(3), lexicon())
    expected = translation(text, "de")
    lines = ["", text, "   ", "", text, text, ""]
    assert translate(trained, lines, "en", "de") == ["", expected, "   ", "", expected, expected, ""]


def test_the_end_of_a_run_shows_scores_and_commands_that_work(
    trained: Playground, training: subprocess.CompletedProcess[str]
) -> None:
    for direction, result in evaluation(trained).items():
        assert any(direction in line and f"{result['bleu']:.1f}" in line for line in training.stdout.splitlines())
    shown = training.stdout.splitlines()
    samples = [number for number, line in enumerate(shown) if "| nmt-translate" in line]
    assert len(samples) == 2
    for number in samples:
        done = trained.command("bash", "-c", shown[number])
        assert (done.returncode, done.stdout.strip()) == (0, shown[number + 1].strip())
