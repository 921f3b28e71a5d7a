"""Runs a recipe end to end: text, vocabulary, store, training, evaluation. What is done is skipped."""

import contextlib
import shlex
import time
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from etils import epath
from rich.console import Console

from nmt.config import Recipe
from nmt.config.runs import RECIPE_FILE, keep_normalisation, read_run_recipe, resume_conflicts, save_recipe
from nmt.data.mixture import mixing_table
from nmt.data.pipeline import dev_batches, train_batches
from nmt.data.store import Stats, is_stored, load_stats
from nmt.data.vocabularies import Vocabularies
from nmt.decode.translator import Translator
from nmt.errors import UserError
from nmt.evaluate.expert_maps import draw_experts
from nmt.evaluate.matrix import evaluate
from nmt.evaluate.plot import draw_run
from nmt.evaluate.samples import read_samples
from nmt.evaluate.sets import stored_set
from nmt.files import check_store
from nmt.languages import Direction
from nmt.models.dtypes import resolve_model_dtype
from nmt.models.weights import checkpoint_steps
from nmt.recipes.display import TrainingDisplay, clock
from nmt.recipes.dry_run import dry_run as show_plan
from nmt.recipes.dry_run import show_mixture, show_size, write_mixture
from nmt.recipes.groups import group_advice
from nmt.recipes.held_out import check_stages, has_text, note_missing
from nmt.recipes.lock import locked
from nmt.recipes.scores import show_matrix
from nmt.recipes.size import measure, too_large
from nmt.recipes.stages import STORE, VOCABULARY, RunPreparation, recipe_directions
from nmt.recipes.terminal import TerminalProgress
from nmt.sharding import make_layout, shard_count
from nmt.sharding.hosts import ALONE, Hosts, host_shard
from nmt.train.curriculum import Curriculum
from nmt.train.loop import Data, Machines, Outcome, TrainingResult, train
from nmt.train.step import batch_sharding
from nmt.train.usage import read_usage, usage_steps

_VISIBLE_WITHIN = 60.0  # seconds


def run_recipe(recipe: Recipe, *, dry_run: bool, command: str, hosts: Hosts = ALONE) -> None:
    """Run a recipe, or with `dry_run` show its resolved keys, size and mixture.

    Args:
      recipe: the recipe, from `nmt.config.load_recipe`.
      dry_run: show the resolved recipe, its size and its mixture, and train nothing.
      command: the command line that asks for this, to tell how to go on.
      hosts: the processes that run it together; all of them call this. Host 0 writes the run's folder, which the
        others can read.

    Raises:
      UserError: a mistake in the recipe, or a folder that belongs to another run.
    """
    console = Console(stderr=True, quiet=not hosts.first)
    folder = epath.Path(recipe.run_dir)
    check_store(folder)
    if dry_run:
        recipe = _resolved(recipe, folder)
        show_plan(recipe, RunPreparation(recipe, folder, TerminalProgress(console)), Console())
        return
    began = time.monotonic()
    with locked(folder, console.print) if hosts.first else contextlib.nullcontext():
        recipe, vocabularies, stats = _prepare(recipe, folder, console, hosts)
        result = _train(recipe, folder, vocabularies, stats, console, hosts)
        if result.outcome is Outcome.PREEMPTED:
            console.print(
                f"stopped after step {result.progress.step}, checkpointed; to go on: {command}", soft_wrap=True
            )
            raise KeyboardInterrupt
        hosts.broadcast("evaluation", lambda: _evaluate(recipe, folder, vocabularies, stats, console))
    console.print(f"done in {clock(time.monotonic() - began)}", highlight=False)


def _prepare(recipe: Recipe, folder: epath.Path, console: Console, hosts: Hosts) -> tuple[Recipe, Vocabularies, Stats]:
    """Prepare vocabularies and store on host 0; return them with the recipe as host 0 resolved it."""
    made: list[tuple[Vocabularies, Stats]] = []

    def make() -> dict[str, Any]:
        resolved = _resolved(recipe, folder)
        _check_resumable(resolved, folder)
        save_recipe(resolved, folder)
        preparation = RunPreparation(resolved, folder, TerminalProgress(console))
        vocabularies = preparation.vocabularies()
        made.append((vocabularies, preparation.stats(vocabularies)))
        return resolved.model_dump()

    recipe = Recipe.model_validate(hosts.broadcast("preparing the data", make))
    if made:
        return recipe, *made[0]
    _await_store(folder / STORE, hosts)
    return recipe, Vocabularies.load(folder / VOCABULARY, recipe.vocab), load_stats(folder / STORE)


def _await_store(store: epath.Path, hosts: Hosts) -> None:
    """Wait until this host sees the store that host 0 has written; shared file systems may take a while.

    Raises:
      UserError: it does not see it within a minute.
    """
    deadline = time.monotonic() + _VISIBLE_WITHIN
    while not is_stored(store):
        if time.monotonic() > deadline:
            raise UserError(
                f"host {hosts.index} does not see {store}, which host 0 has written: "
                "run_dir must be a folder that all hosts share, or an object store (gs://...)"
            )
        time.sleep(1.0)


def _resolved(recipe: Recipe, folder: epath.Path) -> Recipe:
    """Return the recipe with `model.dtype=auto` resolved: as in the run if it has begun, else for this machine.

    A run that has begun also keeps its `vocab.normalisation`.
    """
    recipe = keep_normalisation(recipe, folder)
    if recipe.model.dtype == "auto" and (folder / RECIPE_FILE).exists():
        dtype = read_run_recipe(folder).model.dtype
        return recipe.model_copy(update={"model": recipe.model.model_copy(update={"dtype": dtype})})
    return recipe.model_copy(update={"model": resolve_model_dtype(recipe.model)})


def _check_resumable(recipe: Recipe, folder: epath.Path) -> None:
    if not (folder / RECIPE_FILE).exists() or not checkpoint_steps(folder):
        return
    conflicts = resume_conflicts(read_run_recipe(folder), recipe)
    if conflicts:
        raise UserError(
            f"{folder} holds a run of another recipe ({'; '.join(conflicts)}); "
            f"to start afresh choose another folder (run_dir=...) or delete {folder}"
        )


def _train(
    recipe: Recipe, folder: epath.Path, vocabularies: Vocabularies, stats: Stats, console: Console, hosts: Hosts
) -> TrainingResult:
    rows = recipe.rows
    directions, store = recipe_directions(recipe), folder / STORE
    table = mixing_table(stats, directions, recipe.data, rows, recipe.train.steps)
    show_mixture(table, recipe, console)
    if hosts.first:
        write_mixture(table, store)
    show_size(measure(recipe, vocabularies.sizes), console)
    for note in note_missing(recipe, stats):
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    curriculum = Curriculum.from_store(recipe.data, directions, stats)
    check_stages(curriculum, stats)
    layout = make_layout(recipe.mesh)
    limit = recipe.train.max_minutes
    with (
        layout.use() as mesh,
        contextlib.closing(
            train_batches(
                store,
                directions,
                recipe.data,
                rows,
                recipe.seed,
                host_shard(batch_sharding(recipe, mesh), rows),
                vocabularies=vocabularies,
            )
        ) as batches,
        TrainingDisplay(console, recipe.train.steps, None if limit is None else 60 * limit) as display,
    ):
        if advice := group_advice(recipe, shard_count("expert"), shard_count("group")):
            console.print(f"note: {advice}", highlight=False, soft_wrap=True)
        data = Data(batches, lambda: dev_batches(store, directions, recipe.data, rows), curriculum)
        result = train(recipe, folder, vocabularies.sizes, data, Machines(mesh, hosts), display)
    seconds = result.progress.seconds
    console.print(
        f"training: {result.progress.step:,} steps in {clock(seconds)} ({result.outcome.value})", highlight=False
    )
    return result


def _evaluate(recipe: Recipe, folder: epath.Path, vocabularies: Vocabularies, stats: Stats, console: Console) -> None:
    """Score every direction, show the table, two translations, and how to get more; on the devices of this host."""
    if not has_text(stats, recipe.evaluate.split):
        console.print(
            f"not evaluated: there is no {recipe.evaluate.split} text; with text of your own: "
            f"nmt-evaluate {folder} --testset FOLDER",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        return
    if problem := too_large(recipe, vocabularies.sizes):
        console.print(f"not evaluated: {problem}; on a larger host: nmt-evaluate {folder}", soft_wrap=True)
        return
    translator = Translator(folder)
    matrix = evaluate(translator, folder, split=recipe.evaluate.split, progress=TerminalProgress(console))
    show_matrix(matrix)
    out = Console(soft_wrap=True, highlight=False, markup=False)
    picture = matrix.folder / "run.svg"
    draw_run(folder, recipe.name, matrix, picture)
    out.print(f"report: {matrix.folder / 'report.html'}\npicture: {picture}")
    if matrix.step in usage_steps(folder):
        experts = matrix.folder / "experts.svg"
        draw_experts(read_usage(folder, matrix.step), recipe.name, experts)
        out.print(f"experts: {experts}")
    chosen = stored_set(folder, recipe.evaluate.split, recipe.evaluate.sentences)
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
