"""A picture of a run: how it learnt, how its experts were used, and what it scores."""

import json
from typing import TYPE_CHECKING, Any

from etils import epath

from nmt.evaluate.results import Matrix
from nmt.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Line = dict[str, Any]

_LISTED = 12  # most directions that get a curve and a bar of their own


def draw_run(run: epath.PathLike, matrix: Matrix, path: epath.PathLike) -> None:
    """Draw training and development loss, the load of experts, and BLEU by direction.

    Args:
      run: the run's folder, whose metrics.jsonl is read.
      matrix: the scores.
      path: the file to write; its suffix says the format (.svg, .png).
    """
    from matplotlib.figure import Figure

    lines = [json.loads(line) for line in (epath.Path(run) / "metrics.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["kind"] == "train"]
    stacks = sorted(
        {name.split("/")[1] for line in train for name in line if name.startswith("experts/")}, reverse=True
    )
    figure = Figure(figsize=(4.2 * (3 if stacks else 2), 3.6), layout="constrained")
    axes = list(figure.subplots(1, 3 if stacks else 2))
    _draw_loss(axes[0], train, [line for line in lines if line["kind"] == "dev"])
    if stacks:
        _draw_experts(axes[1], train, stacks)
    _draw_bleu(axes[-1], matrix)
    figure.suptitle(f"{matrix.recipe}: {matrix.step:,} steps", fontsize=11)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    with atomic_write(path) as temporary:
        figure.savefig(str(temporary), format=epath.Path(path).suffix[1:], dpi=150, metadata={"Date": None})


def _draw_loss(axis: "Axes", train: list[Line], dev: list[Line]) -> None:
    directions = sorted({name.removeprefix("nll/") for line in train for name in line if name.startswith("nll/")})
    if len(directions) <= _LISTED:
        for direction in directions:
            points = [(line["step"], line[f"nll/{direction}"]) for line in train if f"nll/{direction}" in line]
            axis.plot(*zip(*points, strict=True), linewidth=1, label=direction)
    else:
        axis.plot([line["step"] for line in train], [line["loss"] for line in train], linewidth=1, label="training")
    if dev:
        axis.plot([line["step"] for line in dev], [line["nll"] for line in dev], "k.--", linewidth=1, label="dev, mean")
    axis.set(title="cross-entropy, nats per token", xlabel="step")
    axis.legend(fontsize=7, frameon=False)


def _draw_experts(axis: "Axes", train: list[Line], stacks: list[str]) -> None:
    steps = [line["step"] for line in train]
    for number, stack in enumerate(stacks):
        idlest, busiest = ([line[f"experts/{stack}/{name}"] for line in train] for name in ("idlest", "busiest"))
        axis.fill_between(steps, idlest, busiest, alpha=0.35, color=f"C{number}", label=f"{stack}: idlest to busiest")
        dropped = [line[f"experts/{stack}/dropped_first"] for line in train]
        axis.plot(steps, dropped, color=f"C{number}", linewidth=1, label=f"{stack}: tokens dropped")
    axis.axhline(1.0, color="black", linewidth=0.6, linestyle=":")
    axis.set(title="load of experts, 1 = fair share", xlabel="step", ylim=(0, None))
    axis.legend(fontsize=7, frameon=False)


def _draw_bleu(axis: "Axes", matrix: Matrix) -> None:
    cells = sorted(matrix.cells, key=lambda cell: cell.bleu)
    names = [str(cell.direction) if len(cells) <= _LISTED else "" for cell in cells]
    colours = ["C0" if cell.direction.target == "en" else "C1" for cell in cells]
    places = list(range(len(cells)))
    axis.barh(places, [cell.bleu for cell in cells], color=colours)
    axis.set_yticks(places, names)
    if len(cells) <= _LISTED:
        for place, cell in zip(places, cells, strict=True):
            axis.annotate(f" {cell.bleu:.1f}", (cell.bleu, place), va="center", fontsize=8)
    axis.set(title=f"BLEU on {matrix.test_set}", xlim=(0, 1.15 * max((cell.bleu for cell in cells), default=1) or 1))
