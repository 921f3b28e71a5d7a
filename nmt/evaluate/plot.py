"""A picture of a run: loss curves, load of experts, and scores."""

import io
import json
import re
from typing import TYPE_CHECKING, Any

from etils import epath

from nmt.errors import UserError
from nmt.evaluate.results import Matrix
from nmt.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Line = dict[str, Any]

_OF_STACK = re.compile(r"experts/(\w+)/busiest")
_LISTED = 12  # most directions that get a curve and a bar of their own


def draw_run(run: epath.PathLike, recipe: str, matrix: Matrix | None, path: epath.PathLike) -> None:
    """Draw training and development loss, the load of experts, and BLEU by direction.

    Args:
      run: the run's folder, with its metrics.jsonl.
      recipe: the name of the recipe.
      matrix: the scores; None: the picture has none.
      path: the file to write; its suffix says the format.

    Raises:
      UserError: the run has no metrics yet, or they are damaged.
    """
    from matplotlib.figure import Figure

    lines = read_metrics(run)
    train = [line for line in lines if line["kind"] == "train"]
    stacks = sorted({match[1] for line in train for name in line if (match := _OF_STACK.fullmatch(name))}, reverse=True)
    count = 1 + bool(stacks) + (matrix is not None)
    figure = Figure(figsize=(4.2 * count, 3.6), layout="constrained")
    axes = list(figure.subplots(1, count, squeeze=False)[0])
    _draw_loss(axes[0], train, [line for line in lines if line["kind"] == "dev"])
    if stacks:
        _draw_experts(axes[1], train, stacks)
    if matrix is not None:
        _draw_bleu(axes[-1], matrix)
    step = lines[-1]["step"] if matrix is None else matrix.step
    figure.suptitle(f"{recipe}: {step:,} steps", fontsize=11)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def read_metrics(run: epath.PathLike) -> list[Line]:
    """Return the lines of a run's metrics.jsonl; a last one that is being written is left out.

    Raises:
      UserError: there is none, or it is damaged.
    """
    path = epath.Path(run) / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    lines = []
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            values = json.loads(line)
            lines.append(values | {"kind": values["kind"], "step": int(values["step"])})
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}:{number} is damaged: remove this line") from None
    if not lines:
        raise UserError(f"{path} has no line yet: nmt-train writes the first after train.log_every steps")
    return lines


def save_figure(figure: "Figure", path: epath.PathLike) -> None:
    """Write a figure, without a date, in the format that the suffix of the path says; atomic."""
    suffix = epath.Path(path).suffix[1:]
    metadata = {"CreationDate" if suffix == "pdf" else "Date": None}
    drawn = io.BytesIO()
    figure.savefig(drawn, format=suffix, dpi=150, metadata=metadata)
    with atomic_write(path) as temporary:
        temporary.write_bytes(drawn.getvalue())


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
