"""The scripts of examples/ do on a finished run what they say."""

import json
import re
import subprocess
import sys
from pathlib import Path

from synthetic import DIRECTIONS, Playground

EXAMPLES = Path(__file__).parents[3] / "examples"


def example(trained: Playground, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return trained.command(sys.executable, str(EXAMPLES / name), *arguments)


def test_steps_by_hand_learn(trained: Playground) -> None:
    done = example(trained, "train_step.py", str(trained.run), "--steps", "30")
    assert done.returncode == 0, done.stderr
    losses = [float(loss) for loss in re.findall(r"^step \d+  loss ([\d.]+)", done.stdout, flags=re.MULTILINE)]
    assert len(losses) == 30
    assert losses[-1] < losses[0]
    assert all(direction in done.stdout for direction in DIRECTIONS)


def test_files_keep_their_lines(trained: Playground) -> None:
    text, output = trained.folder / "example.txt", trained.folder / "example.jsonl"
    text.write_text("bade dika\n\nbade\n")
    done = example(trained, "translate_file.py", str(trained.run), "en", "pt", str(text), str(output))
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [record["source"] for record in records] == ["bade dika", "", "bade"]
    assert [bool(record["text"]) for record in records] == [True, False, True]
    assert all(record["score"] <= 0 and not record["cut"] for record in records)


def test_favourite_experts_add_up(trained: Playground) -> None:
    done = example(trained, "inspect_experts.py", str(trained.run), "--most", "4")  # of 4
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("  ")]
    assert len(rows) == 2 * len(DIRECTIONS)  # a sparse layer in either stack
    for row in rows:
        assert abs(sum(int(share) for share in re.findall(r"(\d+)%", row)) - 100) <= 2, row


def test_every_example_is_run_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert all(f'"{path.name}"' in text for path in EXAMPLES.glob("*.py"))
