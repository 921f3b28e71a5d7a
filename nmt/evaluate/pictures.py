"""The pictures of a run, from the files that it has written so far."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from etils import epath

from nmt.config import Recipe, read_run_recipe
from nmt.errors import UserError
from nmt.evaluate.expert_maps import draw_experts
from nmt.evaluate.plot import draw_run
from nmt.evaluate.results import Matrix
from nmt.train.usage import Usage, read_usage

PICTURES = ("run", "experts")


@dataclass
class Drawn:
    """Pictures that were drawn, and the reasons for those that were not."""

    folder: epath.Path
    paths: list[epath.Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    usage: Usage | None = None  # the table of experts that was drawn

    def file(self, name: str) -> epath.Path:
        """Return the path of a picture, in a folder that is made if it is missing.

        Raises:
          UserError: the folder cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"cannot write pictures to {self.folder}: {reason}; choose another --output") from None
        return self.folder / name


def draw_pictures(
    run: os.PathLike[str] | str,
    names: Sequence[str] = (),
    step: int | None = None,
    output: os.PathLike[str] | str | None = None,
    suffix: str = "svg",
) -> Drawn:
    """Draw the curves of a run and the heat maps of its experts.

    Args:
      run: the run's folder.
      names: of `PICTURES`, all of which must be drawn; empty: those that can be.
      step: the step of the scores and of the experts' use; None: the newest of each.
      output: the folder to write to; None: RUN/plots.
      suffix: svg, png or pdf.

    Raises:
      UserError: `run` is no run; data of a named picture are missing or damaged; the pictures cannot be written.
    """
    recipe = read_run_recipe(run)
    folder = epath.Path(run)
    drawn = Drawn(folder / "plots" if output is None else epath.Path(output))
    for name in names or PICTURES:
        draw = {"run": _draw_run, "experts": _draw_experts}[name]
        try:
            draw(drawn, folder, recipe, step, suffix)
        except UserError as error:
            if names:
                raise
            drawn.notes.append(str(error))
    if not drawn.paths:
        raise UserError("nothing to draw: " + "; ".join(drawn.notes))
    return drawn


def _draw_run(drawn: Drawn, run: epath.Path, recipe: Recipe, step: int | None, suffix: str) -> None:
    matrix = _matrix(run, recipe.evaluate.split, step)
    if matrix is None:
        drawn.notes.append(f"{run} has no scores{'' if step is None else f' of step {step}'} to show")
    path = drawn.file(f"run.{suffix}")
    draw_run(run, recipe.name, matrix, path)
    drawn.paths.append(path)


def _draw_experts(drawn: Drawn, run: epath.Path, recipe: Recipe, step: int | None, suffix: str) -> None:
    if recipe.model.moe is None:
        raise UserError(f"{run} is a run of a dense model: it has no experts")
    drawn.usage = read_usage(run, step)
    path = drawn.file(f"experts-{drawn.usage.last}.{suffix}")
    draw_experts(drawn.usage, recipe.name, path)
    drawn.paths.append(path)


def _matrix(run: epath.Path, split: str, step: int | None) -> Matrix | None:
    """Return the scores of a step, or the newest ones; None if there are none."""
    files = [path for path in run.glob(f"evaluation/*/{split}/matrix.json") if path.parents[1].name.isdecimal()]
    found = {int(path.parents[1].name): path for path in files}
    path = found.get(max(found, default=0) if step is None else step)
    if path is None:
        return None
    try:
        return Matrix.from_json(path.parent, json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, UserError):
        raise UserError(f"{path} is damaged: nmt-evaluate {run} --step {path.parents[1].name} makes it anew") from None
