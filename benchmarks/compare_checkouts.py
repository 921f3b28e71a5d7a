"""Whether two checkouts train and score the same, bit for bit: every shipped recipe, shrunk, and every way of routing.

    git worktree add /tmp/before HEAD~20
    python benchmarks/compare_checkouts.py /tmp/before

Each case is `nmt-train` in both checkouts, with the same keys, from raw text to a table of scores, in the environment
that runs this script. Compared are all numbers of metrics.jsonl but times, all arrays of the last checkpoint, and every
hypothesis and score. A difference is named with its first place, and the exit status is 1. Runs that are there already
are not repeated; --folder holds them.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
# Not of the computation: times, the date, and a digest of files among which there are times.
TIMES = {"seconds", "tokens_per_second", "sentences_per_second", "date", "checkpoint"}
TEXT = ["data.corpora=[homeassistant]", "data.directions=[de-en,es-en,en-de]", "data.clean.min_words=4"]
SMALL = [
    "data.source_length=64",
    "data.target_length=64",
    "train.tokens_per_batch=1024",
    "train.log_every=1",
    "evaluate.sentences=8",
    "decode.batch_tokens=2048",
]
TINY = [
    "model.width=32",
    "model.hidden=64",
    "model.heads=2",
    "model.head_width=16",
    "model.encoder_layers=4",
    "model.decoder_layers=4",
    "model.dtype=float32",
    "vocab.size=2000",
    "vocab.target_size=1500",
    "mesh={data: 1, expert: 1, model: 1}",
]
SPARSE = ["model.moe.experts=4", "model.moe.group_size=256"]

# Ways of routing, and of computing a step, each on top of the quickstart.
VARIANTS = {
    "switch": ["model.moe.preset=switch", "model.moe.every=2"],
    "st_moe": ["model.moe.preset=st_moe", "model.moe.every=2"],
    "nllb": ["model.moe.preset=nllb", "model.moe.every=2"],
    "expert_choice": ["model.moe.routing=expert_choice", "model.moe.decoder_routing=token_choice"],
    "hash": ["model.moe.routing=hash"],
    "einsum": ["model.moe.dispatch=einsum"],
    "grouped": ["model.moe.dispatch=grouped"],
    "shared": ["model.moe.shared=gated", "model.moe.gated_dropout=0.2"],
    "accumulate": ["train.accumulate=2"],
    "adafactor": ["train.optimizer={name: adafactor}"],
    "bfloat16": ["model.dtype=bfloat16"],
    "dense": ["model.moe=null"],
}


def cases(steps: int) -> dict[str, list[str]]:
    """Return the keys of `nmt-train` for every case."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "recipes").glob("*.yaml")):
        name = path.stem
        shrink = {"quickstart": [], "mix100": ["vocab.size=4000"]}.get(name, TINY + ([] if "dense" in name else SPARSE))
        found[name] = [f"recipe={name}", *TEXT, *SMALL, *shrink]
    for name, keys in VARIANTS.items():
        found[f"quickstart-{name}"] = ["recipe=quickstart", *TEXT, *SMALL, *keys]
    return {name: [*keys, f"train.steps={steps}", "train.max_minutes=null"] for name, keys in found.items()}


def main() -> None:
    """Run both checkouts and compare them."""
    arguments = _parser().parse_args()
    wanted = cases(arguments.steps)
    names = arguments.cases or list(wanted)
    if unknown := set(names) - wanted.keys():
        sys.exit(f"unknown case {', '.join(sorted(unknown))}; there are {', '.join(wanted)}")
    different = 0
    for name in names:
        folders = [
            _run(checkout, wanted[name], Path(arguments.folder).absolute() / side / name)
            for side, checkout in (("before", Path(arguments.checkout).absolute()), ("after", ROOT))
        ]
        difference = next(_differences(*folders), None)
        different += difference is not None
        print(f"{name}: {'the same' if difference is None else difference}", flush=True)
    print(f"{len(names) - different} of {len(names)} cases are the same bit for bit")
    sys.exit(different > 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("checkout", help="the other checkout, such as a git worktree of an older commit")
    parser.add_argument("cases", nargs="*", help="some cases only")
    parser.add_argument("--steps", type=int, default=6, help="of training")
    parser.add_argument("--folder", default="runs/compare", help="where the runs are")
    return parser


def _run(checkout: Path, keys: list[str], folder: Path) -> Path:
    """Train in a checkout with its own cache of cleaned text, and return the run's folder."""
    if (folder / "finished").exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.with_suffix(".log")
    code = "import sys; from nmt.cli.train import main; sys.argv[0] = 'nmt-train'; sys.exit(main())"
    cache = folder.parent / "cache"
    environment = {**os.environ, "PYTHONPATH": str(checkout), "NMT_CACHE": str(cache)}
    with log.open("w") as output:
        status = subprocess.run(
            [sys.executable, "-c", code, *keys, f"run_dir={folder}"],
            cwd=checkout,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        ).returncode
    if status:
        sys.exit(f"nmt-train of {checkout} ended with status {status}; see {log}")
    (folder / "finished").touch()
    return folder


def _differences(before: Path, after: Path) -> Iterator[str]:
    """Yield each place in which two runs differ."""
    yield from _compared("metrics", _metrics(before), _metrics(after))
    yield from _compared("checkpoint", _arrays(before), _arrays(after))
    yield from _compared("evaluation", _scores(before), _scores(after))


def _compared(kind: str, before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    for name in sorted(before.keys() | after.keys()):
        if name not in before or name not in after:
            yield f"{kind} {name} is only {'after' if name in after else 'before'}"
        elif not np.array_equal(before[name], after[name]):
            yield f"{kind} {name} differs: {before[name]!s:.80} before, {after[name]!s:.80} after"


def _metrics(run: Path) -> dict[str, Any]:
    """Return every number of metrics.jsonl by line and name, times left out."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        f"{line['kind']} {line['step']} {name}": value
        for line in lines
        for name, value in line.items()
        if name not in TIMES
    }


def _arrays(run: Path) -> dict[str, np.ndarray]:
    """Return every array of the last checkpoint by item and name."""
    import jax
    import orbax.checkpoint as ocp

    folder = max((run / "checkpoints").iterdir(), key=lambda path: int(path.name))
    found = {}
    for item in ("model", "average", "optimizer"):
        if not (folder / item).exists():
            continue
        tree = ocp.StandardCheckpointer().restore(folder / item)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            found[f"{item} {jax.tree_util.keystr(path, simple=True, separator='.')}"] = np.asarray(leaf)
    return found


def _scores(run: Path) -> dict[str, str]:
    """Return the text of every hypothesis file and every table of scores of the last evaluation."""
    found = {}
    for path in sorted((run / "evaluation").rglob("*")):
        if path.suffix in (".txt", ".json"):
            text = path.read_text()
            if path.suffix == ".json":
                text = json.dumps(_without_times(json.loads(text)), sort_keys=True).replace(str(run), "RUN")
            found[str(path.relative_to(run))] = text
    return found


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(item) for key, item in value.items() if key not in TIMES}
    return [_without_times(item) for item in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
