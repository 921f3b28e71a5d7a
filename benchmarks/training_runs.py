"""Runs of `nmt-train` that a benchmark compares: each in a process of its own, with its output in a log beside it."""

import argparse
import os
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

NMT_TRAIN = (sys.executable, "-m", "nmt.cli.train")


def make_parser(description: str | None, folder: str) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks of runs have.

    Args:
      description: docstring of the benchmark, whose first line is shown.
      folder: the default of --folder.
    """
    parser = argparse.ArgumentParser(
        description=(description or "").partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--recipe", default="quickstart", help="name or path")
    add("--folder", default=folder, help="where the runs are kept; one that is there is not repeated")
    add("--json", metavar="FILE", help="write every figure there")
    add("overrides", nargs="*", metavar="key=value", help="further keys of the recipe")
    return parser


def train(
    run: Path,
    keys: Sequence[str],
    *,
    command: Sequence[str] = NMT_TRAIN,
    environment: Mapping[str, str] | None = None,
    processors: Collection[int] | None = None,
) -> Path:
    """Train and evaluate in a process of its own, and return the folder of the run; where that fails the program ends.

    Args:
      run: the folder of the run; the log is RUN.log.
      keys: keys of the recipe, `recipe` among them.
      command: what is to be started with these keys.
      environment: variables besides those of this process.
      processors: those that the process may use; None: those of this process.
    """
    log = run.with_name(f"{run.name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        done = subprocess.run(
            [*command, f"run_dir={run}", *keys],
            stdout=output,
            stderr=output,
            env={**os.environ, **(environment or {})},
            preexec_fn=None if processors is None else lambda: os.sched_setaffinity(0, processors),
            check=False,
        )
    if done.returncode:
        sys.exit(f"{run.name}: nmt-train ended with status {done.returncode}, see {log}")
    print(f"{run.name}: done", flush=True)
    return run
