"""What the temperature of the mixture buys: the same run at several T, scored on large and on small directions.

    python benchmarks/temperature.py --recipe mix100 --minutes 20

Every T is a run of `nmt-train` from any language into English with the same budget of minutes; nothing else differs.
Directions are ranked by their training pairs: the upper third is high-resource, the lower third low-resource. The
curve of the means goes to --picture, the figures to standard output and --json. A run that is there is not repeated.
"""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness import positive
from training_runs import make_parser, train

CLASSES = ("high", "middle", "low")


def main() -> None:
    arguments = _parser().parse_args()
    with ThreadPoolExecutor(arguments.jobs) as pool:
        folders = list(pool.map(lambda value: _run(arguments, value), arguments.temperatures))
    results = [_scores(folder, value) for folder, value in zip(folders, arguments.temperatures, strict=True)]
    for row in results:
        cells = [f"{name} BLEU {row[name]['bleu']:.2f} chrF++ {row[name]['chrf']:.2f}" for name in CLASSES]
        print(f"T={row['temperature']:g}: {', '.join(cells)}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results, indent=1) + "\n")
    if arguments.picture:
        _draw(results, arguments.picture)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__, "runs/temperature")
    add = parser.add_argument
    add("--directions", default="*-en", help="as in data.directions")
    add("--temperatures", nargs="+", type=float, default=[1.0, 2.0, 5.0, 100.0])
    add("--minutes", type=float, default=10.0, help="of training, for every run")
    add("--jobs", type=positive, default=1, help="runs at a time")
    add("--picture", metavar="FILE", help="draw the curve there, such as docs/temperature.svg")
    return parser


def _run(arguments: argparse.Namespace, temperature: float) -> Path:
    keys = [
        f"recipe={arguments.recipe}",
        f"data.directions={arguments.directions}",
        f"data.temperature={temperature}",
        f"train.max_minutes={arguments.minutes}",
        *arguments.overrides,
    ]
    return train(Path(arguments.folder) / f"T{temperature:g}", keys)


def _scores(folder: Path, temperature: float) -> dict[str, object]:
    """Return the mean scores of the classes of a run."""
    stats = json.loads((folder / "data" / "stats.json").read_text())["directions"]
    newest = max((folder / "evaluation").iterdir(), key=lambda step: int(step.name))
    (split,) = newest.iterdir()
    cells = [json.loads((split / f"{name}.json").read_text()) for name in stats if (split / f"{name}.json").exists()]
    pairs = {name: entry["splits"]["train"]["pairs"] for name, entry in stats.items()}
    cells.sort(key=lambda cell: -pairs[cell["direction"]])
    third = max(1, len(cells) // 3)
    parts = {"high": cells[:third], "middle": cells[third:-third] or cells, "low": cells[-third:]}
    means = {
        name: {metric: sum(cell[metric] for cell in part) / len(part) for metric in ("bleu", "chrf")}
        for name, part in parts.items()
    }
    return {"temperature": temperature, "step": int(newest.name), "directions": len(cells), **means}


def _draw(results: list[dict], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for axis, (metric, title) in zip(axes, (("bleu", "BLEU"), ("chrf", "chrF++")), strict=True):
        high, low = ([row[name][metric] for row in results] for name in ("high", "low"))
        axis.plot(high, low, marker="o")
        for x, y, row in zip(high, low, results, strict=True):
            axis.annotate(f"T={row['temperature']:g}", (x, y), textcoords="offset points", xytext=(6, 4))
        axis.set(xlabel=f"{title}, high-resource third", ylabel=f"{title}, low-resource third")
        axis.grid(alpha=0.3)
    figure.savefig(path)


if __name__ == "__main__":
    main()
