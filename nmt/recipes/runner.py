"""Runs a recipe end to end: text, vocabulary, store, training, evaluation. What is done is skipped."""

import contextlib
import fcntl
import os
import shlex
import time
from collections.abc import Iterator, Sequence
from itertools import zip_longest

import jax
from etils import epath
from rich.console import Console

from nmt.config import Recipe
from nmt.config.runs import RECIPE_FILE, read_run_recipe, resume_conflicts, save_recipe
from nmt.data.mixture import mixing_table
from nmt.data.pipeline import dev_batches, train_batches
from nmt.data.store import Stats
from nmt.data.vocabularies import Vocabularies
from nmt.decode.translator import Translator
from nmt.errors import UserError
from nmt.evaluate.experts import draw_experts
from nmt.evaluate.matrix import evaluate
from nmt.evaluate.plot import draw_run
from nmt.evaluate.progress import shown
from nmt.evaluate.report import show
from nmt.evaluate.samples import read_samples
from nmt.evaluate.sets import stored_set
from nmt.languages import Direction
from nmt.models.weights import checkpoint_steps, resolve
from nmt.recipes.display import TrainingDisplay, clock
from nmt.recipes.dry_run import dry_run as show_plan
from nmt.recipes.dry_run import show_mixture, show_size, write_mixture
from nmt.recipes.size import measure
from nmt.recipes.stages import Preparation
from nmt.sharding import make_mesh
from nmt.train.curriculum import Curriculum
from nmt.train.loop import Data, Outcome, Result, train
from nmt.train.usage import read_usage, usage_steps


def run(recipe: Recipe, *, dry_run: bool, command: str) -> None:
    """Run a recipe, or with `dry_run` show what it would be.

    Args:
      recipe: the recipe, from `nmt.config.load_recipe`.
      dry_run: show the resolved recipe, its size and its mixture, and train nothing.
      command: the command line that asks for this, to tell how to go on.

    Raises:
      UserError: a mistake in the recipe, or a folder that belongs to another run.
    """
    console = Console(stderr=True)
    folder = epath.Path(recipe.run_dir)
    recipe = _resolved(recipe, folder)
    if dry_run:
        show_plan(recipe, Preparation(recipe, folder, console), Console())
        return
    began = time.monotonic()
    with _lock(folder):
        _check_resumable(recipe, folder)
        save_recipe(recipe, folder)
        preparation = Preparation(recipe, folder, console)
        vocabularies = preparation.vocabularies()
        stats = preparation.stats(vocabularies)
        result = _train(recipe, preparation, vocabularies, stats, console)
        if result.outcome is Outcome.PREEMPTED:
            console.print(
                f"stopped after step {result.progress.step}, checkpointed; to go on: {command}", soft_wrap=True
            )
            raise KeyboardInterrupt
        _evaluate(recipe, folder, console)
    console.print(f"done in {clock(time.monotonic() - began)}", highlight=False)


def _resolved(recipe: Recipe, folder: epath.Path) -> Recipe:
    """Return the recipe with what depends on the machine decided, as the run decided it if it has begun."""
    if recipe.model.dtype == "auto" and (folder / RECIPE_FILE).exists():
        dtype = read_run_recipe(folder).model.dtype
        return recipe.model_copy(update={"model": recipe.model.model_copy(update={"dtype": dtype})})
    return recipe.model_copy(update={"model": resolve(recipe.model)})


def _check_resumable(recipe: Recipe, folder: epath.Path) -> None:
    if not (folder / RECIPE_FILE).exists() or not checkpoint_steps(folder):
        return
    conflicts = resume_conflicts(read_run_recipe(folder), recipe)
    if conflicts:
        raise UserError(
            f"{folder} holds a run of another recipe ({'; '.join(conflicts)}); "
            f"to start afresh choose another folder (run_dir=...) or delete {folder}"
        )


@contextlib.contextmanager
def _lock(folder: epath.Path) -> Iterator[None]:
    """Hold the run's folder for this process; other machines are not kept out."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / ".lock", os.O_CREAT | os.O_WRONLY)
    except OSError as error:
        raise UserError(f"cannot write to the run's folder {folder}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"another nmt-train is working in {folder}: wait, or choose another run_dir") from None
        yield
    finally:
        os.close(lock)


def _train(
    recipe: Recipe, preparation: Preparation, vocabularies: Vocabularies, stats: Stats, console: Console
) -> Result:
    rows = recipe.rows
    directions, store = preparation.directions, preparation.store
    table = mixing_table(stats, directions, recipe.data, rows, recipe.train.steps)
    show_mixture(table, recipe, console)
    write_mixture(table, store)
    show_size(measure(recipe, vocabularies.sizes), console)
    mesh = make_mesh(**recipe.mesh.model_dump())
    limit = recipe.train.max_minutes
    with (
        jax.set_mesh(mesh),
        contextlib.closing(
            train_batches(store, directions, recipe.data, rows, recipe.seed, vocabularies=vocabularies)
        ) as batches,
        TrainingDisplay(console, recipe.train.steps, None if limit is None else 60 * limit) as display,
    ):
        curriculum = Curriculum.of(recipe.data, directions, stats)
        data = Data(batches, lambda: dev_batches(store, directions, recipe.data, rows), curriculum)
        result = train(recipe, preparation.run, vocabularies.sizes, data, mesh, display)
    seconds = result.progress.seconds
    console.print(
        f"training: {result.progress.step:,} steps in {clock(seconds)} ({result.outcome.value})", highlight=False
    )
    return result


def _evaluate(recipe: Recipe, folder: epath.Path, console: Console) -> None:
    """Score every direction, show the table, two translations, and how to get more."""
    translator = Translator(folder)
    with shown(console) as display:
        matrix = evaluate(
            translator,
            folder,
            split=recipe.evaluate.split,
            on_cell=display.on_cell,
            on_progress=display.on_progress,
        )
    show(matrix)
    out = Console(soft_wrap=True, highlight=False, markup=False)
    picture = matrix.folder / "run.svg"
    draw_run(folder, recipe.name, matrix, picture)
    out.print(f"report: {matrix.folder / 'report.html'}\npicture: {picture}")
    if matrix.step in usage_steps(folder):
        experts = matrix.folder / "experts.svg"
        draw_experts(read_usage(folder, matrix.step), recipe.name, experts)
        out.print(f"experts: {experts}")
    chosen = stored_set(folder, recipe.evaluate.split)
    for direction in _alternating([cell.direction for cell in matrix.cells])[: recipe.evaluate.samples]:
        for sample in read_samples(matrix.folder, chosen, direction, 1):
            options = f"--from {direction.source} --to {direction.target}"
            out.print(f"\necho {shlex.quote(sample.source)} | nmt-translate {shlex.quote(str(folder))} {options}")
            out.print(f"  {sample.hypothesis}\n  (reference: {sample.reference})")


def _alternating(directions: Sequence[Direction]) -> list[Direction]:
    """Return directions into English and others by turns, so that a few of them show both."""
    into = [direction for direction in directions if direction.target == "en"]
    others = [direction for direction in directions if direction.target != "en"]
    return [direction for pair in zip_longest(into, others) for direction in pair if direction is not None]
