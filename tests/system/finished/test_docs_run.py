"""The documentation does what it says: marked blocks run.

A block below a line `<!-- run -->` is run, after the marked ones above it in the same page, in a folder where
`runs/quickstart` is a finished run of a small model. Those of the README compile as people's do.
"""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from pages import RUNNABLE, blocks
from synthetic import Playground


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.name)
def test_marked_blocks_run(page: Path, trained: Playground) -> None:
    place = replace(trained, programs=None) if page.name == "README.md" else trained
    for block in blocks(page):
        if not block.marked:
            continue
        program = ["bash", "-euo", "pipefail", "-c"] if block.language == "sh" else [sys.executable, "-c"]
        done = place.command(*program, block.text)
        assert done.returncode == 0, f"{block}: {done.stderr}"
