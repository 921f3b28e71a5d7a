"""Heat maps of the experts that each direction uses: a panel for every sparse layer.

| | |
|---|---|
| rows | directions: sorted by source language in the encoder, by target language in the decoder |
| columns | experts, sorted by the direction that uses each most; within a direction, the most used first |
| colour | share of the direction's tokens that go to the expert, in multiples of the fair share 1/E |
| grey rows | directions without tokens |

If experts specialise by language, a staircase shows. Beyond 256 experts, neighbours share a column, which shows their
mean.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath

from nmt.evaluate.plot import save_figure
from nmt.evaluate.specialisation import mutual_information
from nmt.languages import parse_stream
from nmt.train.usage import Usage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PAGE_WIDTH, _PAGE_HEIGHT = 13.0, 40.0  # inches; the height is reached with some 20 layers of 100 directions
_PANEL_WIDTH, _PANEL_HEIGHT = (2.4, 4.0), (1.0, 4.5)  # least and most, inches
_ROW, _COLUMN = 0.16, 0.22  # inches a direction and an expert get where there is room
_COLUMNS = 256  # most of a panel
_NAMED_EXPERTS = 16  # with more experts, columns are not numbered
_MARGIN = 0.75  # inches for the title and the ticks of a panel


def row_order(directions: tuple[str, ...], stack: str) -> list[int]:
    """Return the indices of directions as the rows of a stack's panels show them."""
    named = [parse_stream(direction) for direction in directions]
    return sorted(range(len(named)), key=lambda i: named[i][::-1] if stack == "decoder" else named[i])


def relative_use(counts: np.ndarray) -> np.ndarray:
    """Return the share of each row of counts [L,E] in multiples of 1/E; NaN in rows without tokens."""
    total = counts.sum(axis=1, keepdims=True)
    return np.divide(counts * counts.shape[1], total, out=np.full(counts.shape, np.nan), where=total > 0)


def column_order(use: np.ndarray) -> np.ndarray:
    """Return the indices of experts as columns show them; `use` [L,E] from `relative_use`, rows as drawn."""
    use = np.nan_to_num(use)
    user = use.argmax(axis=0)
    most = use.max(axis=0)
    return np.lexsort((-most, np.where(most > 0, user, len(use))))  # experts that nobody uses come last


def draw_experts(usage: Usage, recipe: str, path: epath.PathLike) -> None:
    """Draw the heat maps.

    Args:
      usage: counts of tokens by layer, direction and expert.
      recipe: the name of the recipe.
      path: the file to write; its suffix says the format.
    """
    from matplotlib.figure import Figure

    panels = [
        (stack, layer, counts)
        for stack, tables in usage.counts.items()
        for layer, counts in zip(usage.layers[stack], tables, strict=True)
    ]
    uses = [relative_use(counts[row_order(usage.directions, stack)]) for stack, _, counts in panels]
    limit = _limit(uses)
    width, height, columns, rows = _measures(usage)
    figure = Figure(figsize=(columns * width + 2.2, rows * (height + _MARGIN) + 0.6), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    image: Any = None
    for (stack, layer, counts), use, (row, column) in zip(panels, uses, _places(usage, columns), strict=True):
        axis = axes[row, column]
        order = column_order(use)
        image = _draw_panel(axis, use[:, order], limit)
        axis.set_title(f"{stack}, layer {layer}: {mutual_information(counts):.3f} bits", fontsize=9)
        _name_columns(axis, order)
        _name_rows(axis, usage.directions if column == 0 else (), stack, height)
    for axis in axes.flat:
        axis.set_visible(axis.has_data())
    _draw_scale(figure, image, axes, limit)
    figure.suptitle(f"{recipe}: experts by direction, steps {usage.first:,} to {usage.last:,}", fontsize=11)
    save_figure(figure, path)


def _measures(usage: Usage) -> tuple[float, float, int, int]:
    """Return width and height of a panel in inches, and the columns and rows of panels."""
    experts = max(counts.shape[2] for counts in usage.counts.values())
    width = float(np.clip(_COLUMN * experts, *_PANEL_WIDTH))
    columns = min(int(_PAGE_WIDTH / width), max(map(len, usage.layers.values())))
    rows = sum(-(-len(layers) // columns) for layers in usage.layers.values())
    height = float(np.clip(_ROW * len(usage.directions), *_PANEL_HEIGHT))
    return width, max(min(height, _PAGE_HEIGHT / rows - _MARGIN), _PANEL_HEIGHT[0]), columns, rows


def _places(usage: Usage, columns: int) -> list[tuple[int, int]]:
    """Return row and column of every panel; a stack begins in a row of its own."""
    places, first = [], 0
    for layers in usage.layers.values():
        places += [(first + number // columns, number % columns) for number in range(len(layers))]
        first = places[-1][0] + 1
    return places


def _limit(uses: list[np.ndarray]) -> int:
    """Return the power of two at which colours end: most cells are below it, and it is neither 0 nor above 5."""
    cells = np.concatenate([use[np.nan_to_num(use) > 0] for use in uses])
    return int(np.clip(np.ceil(np.quantile(np.abs(np.log2(cells)), 0.98)), 1, 5)) if cells.size else 1


def _draw_panel(axis: "Axes", use: np.ndarray, limit: int) -> Any:
    size = -(-use.shape[1] // _COLUMNS)  # experts in a column
    columns = [use[:, first : first + size].mean(axis=1) for first in range(0, use.shape[1], size)]
    with np.errstate(divide="ignore"):
        power = np.log2(np.stack(columns, axis=1))
    axis.set_facecolor("0.8")
    axis.tick_params(length=2, width=0.5)
    axis.spines[:].set_linewidth(0.5)
    colours = np.clip(power, -limit, limit)
    return axis.imshow(colours, "RdBu_r", aspect="auto", interpolation="nearest", vmin=-limit, vmax=limit)


def _name_columns(axis: "Axes", order: np.ndarray) -> None:
    named = len(order) <= _NAMED_EXPERTS
    axis.set_xticks(range(len(order)) if named else [], [str(expert) for expert in order] if named else [], fontsize=6)
    axis.set_xlabel("expert" if named else f"{len(order)} experts", fontsize=7, labelpad=2)


def _name_rows(axis: "Axes", directions: tuple[str, ...], stack: str, height: float) -> None:
    """Write the names of directions, as many as there is room for; none for a panel that another stands left of."""
    order = row_order(directions, stack)
    step = -(-len(order) // int(height / 0.1)) or 1
    axis.set_yticks(range(0, len(order), step), [directions[i] for i in order[::step]], fontsize=6)


def _draw_scale(figure: "Figure", image: Any, axes: np.ndarray, limit: int) -> None:
    scale = figure.colorbar(image, ax=axes, aspect=25, shrink=min(1.0, 5 / figure.get_figheight()), pad=0.02)
    powers = list(range(-limit, limit + 1))
    names = [f"{2**power}" if power >= 0 else f"1/{2**-power}" for power in powers]
    scale.set_ticks(powers, labels=[f"≤ {names[0]}", *names[1:-1], f"≥ {names[-1]}"])
    scale.ax.tick_params(labelsize=7)
    scale.set_label("share of the direction's tokens, 1 = fair share", fontsize=7)
