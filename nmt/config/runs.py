"""The recipe of a run: kept in its folder, read from there by every command, and compared when the run goes on."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from etils import epath

from nmt.config.documents import dump_document, dump_value
from nmt.config.keys import keys_by_name
from nmt.config.loading import load_recipe_file
from nmt.config.schema import Recipe
from nmt.errors import UserError, did_you_mean
from nmt.files import atomic_write, check_store

RECIPE_FILE = "recipe.yaml"
# Schedules that do not know how many steps there will be.
ENDLESS = ("rsqrt", "inverse_sqrt", "constant_rsqrt", "constant")


def dump_recipe(recipe: Recipe) -> str:
    """Return the recipe as YAML, every key spelt out in the order of the schema; loading it gives an equal recipe."""
    return dump_document(recipe.model_dump())


def save_recipe(recipe: Recipe, run_dir: os.PathLike[str] | str) -> None:
    """Write the recipe to RUN/recipe.yaml, making the folder; atomic."""
    folder = epath.Path(run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / RECIPE_FILE) as temporary:
        temporary.write_text("# The resolved recipe of this run.\n" + dump_recipe(recipe))


def read_run_recipe(run_dir: os.PathLike[str] | str) -> Recipe:
    """Return the recipe that RUN was started with.

    Raises:
      UserError: `run_dir` is no run directory (names the runs that there are), its recipe is damaged, or it is in an
        object store that cannot be looked into.
    """
    folder = epath.Path(run_dir)
    check_store(folder)
    if (file := folder / RECIPE_FILE).exists():
        return load_recipe_file(file)
    if not folder.exists():
        problem = "there is no such folder"
    elif not folder.is_dir():
        problem = "it is a file"
    else:
        problem = f"there is no {RECIPE_FILE} in it"
    raise UserError(f"{os.fspath(folder)} is not a run directory: {problem}{_other_runs(folder)}")


def keep_normalisation(recipe: Recipe, run_dir: os.PathLike[str] | str) -> Recipe:
    """Return the recipe with the `vocab.normalisation` of the run in RUN, if there is one.

    A recipe that gives the key itself is returned as it is. Runs that began before there was such a key have nfkc.
    """
    folder = epath.Path(run_dir)
    if "normalisation" in recipe.vocab.model_fields_set or not (folder / RECIPE_FILE).exists():
        return recipe
    kept = {"normalisation": read_run_recipe(folder).vocab.normalisation}
    return recipe.model_copy(update={"vocab": recipe.vocab.model_copy(update=kept)})


def flat_recipe(recipe: Recipe) -> dict[str, str]:
    """Return every key of a recipe with its value as YAML, `train.steps: "100"`, in the order of the schema."""
    return dict(_flat(recipe.model_dump()))


def compare_recipes(old: Recipe, new: Recipe) -> list[str]:
    """Return the differences, as `train.steps: 100 -> 200`, in the order of the schema."""
    return [_arrow(name, before, after) for name, before, after in _differences(old.model_dump(), new.model_dump())]


def resume_conflicts(old: Recipe, new: Recipe) -> list[str]:
    """Return the differences that forbid a run that began with `old` to go on with `new` (see `keys.RESUMABLE`).

    The number of steps may change only where the learning rate does not depend on it.
    """
    bound = set() if new.train.schedule.name in ENDLESS else {"train.steps"}
    return [
        _arrow(name, before, after)
        for name, before, after in _differences(old.model_dump(), new.model_dump())
        if name in bound or not keys_by_name()[name].resumable
    ]


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    for key, before in old.items():
        after = new[key]
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key}", before, after


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", dump_value(value)


def _arrow(name: str, before: Any, after: Any) -> str:
    return f"{name}: {dump_value(before)} -> {dump_value(after)}"


def _other_runs(folder: epath.Path) -> str:
    """Return a hint: the run directories beside `folder` or under runs/, the nearest names if any are near."""
    places = dict.fromkeys([folder.parent, epath.Path("runs")])
    known: list[str] = []
    with contextlib.suppress(FileNotFoundError):  # where the folder beside is a bucket that does not exist
        known += [os.fspath(file.parent) for place in places for file in sorted(place.glob(f"*/{RECIPE_FILE}"))]
    if not known:
        return "; nmt-train makes one"
    return did_you_mean(os.fspath(folder), known) or f" (there are: {', '.join(known)})"
