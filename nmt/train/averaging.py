"""Averages of the checkpoints of a run, parameter by parameter, as a run that can be translated with."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from nmt.config import RECIPE_FILE
from nmt.errors import UserError
from nmt.models.weights import AVERAGE, BUFFERS, WEIGHTS, checkpoint_folder, checkpoint_steps, damage_explained

Path = tuple[str, ...]  # the keys of an array in nested dictionaries

_KEPT = (RECIPE_FILE, "vocab", "data/dev", "data/test", "data/stats.json")  # translation and evaluation read these


@dataclass(frozen=True)
class AveragePlan:
    """The checkpoints that are averaged.

    Args:
      run: the run's folder.
      steps: their steps.
      weights: the weight of each, above 0; they are divided by their sum.

    Raises:
      UserError: fewer than two checkpoints, one that is not there or named twice, or wrong weights.
    """

    run: epath.PathLike
    steps: tuple[int, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        known = checkpoint_steps(self.run)
        for step in self.steps:
            if step not in known:
                there = f"it has {', '.join(map(str, known))}" if known else "it has none"
                raise UserError(f"{self.run} has no checkpoint of step {step} ({there})")
            if self.steps.count(step) > 1:
                raise UserError(f"step {step} is named twice; give it another weight instead")
        if len(self.steps) < 2:
            raise UserError("an average needs two checkpoints at least")
        if len(self.weights) != len(self.steps):
            raise UserError(f"{len(self.weights)} weights for {len(self.steps)} checkpoints; one each is needed")
        if wrong := [weight for weight in self.weights if not 0.0 < weight < float("inf")]:
            raise UserError(f"a weight must be a number above 0 (not {wrong[0]})")

    @property
    def item(self) -> str:
        """The item of the checkpoints that is averaged: the moving average where all of them have one."""
        return AVERAGE if all((self._folder(step) / AVERAGE).exists() for step in self.steps) else WEIGHTS

    @property
    def shares(self) -> dict[int, float]:
        """The share of each step."""
        total = sum(self.weights)
        return {step: weight / total for step, weight in zip(self.steps, self.weights, strict=True)}

    def average(self, item: str) -> dict[str, Any]:
        """Return the average of an item of the checkpoints, nested dictionaries of arrays.

        One array of one checkpoint is read at a time, so the result is all that memory must hold. Floating-point
        arrays are added in float64 and returned in float32; others, such as counts, are those of the newest checkpoint.
        """
        newest = self._folder(max(self.steps)) / item
        with damage_explained(newest):
            stored = ocp.StandardCheckpointHandler().metadata(newest).tree
        result: dict[str, Any] = {}
        for keys, leaf in jax.tree_util.tree_leaves_with_path(stored):
            path = tuple(key.key for key in keys)
            _put(result, path, self._average_array(item, path, leaf))
        return result

    def _average_array(self, item: str, path: Path, leaf: Any) -> np.ndarray:
        if not np.issubdtype(leaf.dtype, np.floating) and leaf.dtype != jax.numpy.bfloat16:
            return _read_array(self._folder(max(self.steps)) / item, path, leaf.shape, leaf.dtype)
        total = np.zeros(leaf.shape, np.float64)
        for step, share in self.shares.items():
            total += share * _read_array(self._folder(step) / item, path, leaf.shape, np.dtype(np.float32))
        return total.astype(np.float32)

    def _folder(self, step: int) -> epath.Path:
        return checkpoint_folder(self.run) / str(step)


def write_average(plan: AveragePlan, new_run: epath.PathLike) -> None:
    """Write a run whose one checkpoint is an average, with the recipe, vocabulary and held-out text of the old run.

    Its step is the newest that was averaged; `average.json` says what was. It has no state of an optimizer, so its
    training cannot go on.

    Raises:
      UserError: the new run exists already, or a checkpoint is damaged.
    """
    new = epath.Path(new_run)
    if new.exists():
        raise UserError(f"{new} exists already: name another folder, or remove it first")
    old, newest = epath.Path(plan.run), max(plan.steps)
    try:
        new.mkdir(parents=True)
        for name in _KEPT:
            _copy(old / name, new / name)
        items: dict[str, Any] = {AVERAGE: ocp.args.StandardSave(plan.average(plan.item))}
        if (checkpoint_folder(old) / str(newest) / BUFFERS).exists():
            items[BUFFERS] = ocp.args.StandardSave(plan.average(BUFFERS))
        record = {"run": str(plan.run), "item": plan.item, "shares": plan.shares}
        (new / "average.json").write_text(json.dumps(record, indent=2) + "\n")
        # Last, since a run with a checkpoint is taken for a whole one.
        with ocp.CheckpointManager(checkpoint_folder(new)) as manager:
            manager.save(newest, args=ocp.args.Composite(**items))
    except BaseException:
        new.rmtree(missing_ok=True)
        raise


def _read_array(folder: epath.Path, path: Path, shape: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray:
    """Read one array of an item of a checkpoint into the host's memory."""
    wanted = _nested(path, jax.ShapeDtypeStruct(tuple(shape), dtype))
    how = _nested(path, ocp.RestoreArgs(restore_type=np.ndarray, dtype=dtype))
    with damage_explained(folder), ocp.PyTreeCheckpointer() as reader:
        found = reader.restore(folder, ocp.args.PyTreeRestore(item=wanted, restore_args=how, partial_restore=True))
    (array,) = jax.tree.leaves(found)
    if array.shape != tuple(shape):
        raise UserError(f"{folder} holds another model: {'.'.join(path)} is {array.shape}, not {tuple(shape)}")
    return np.asarray(array)


def _nested(path: Path, leaf: Any) -> Any:
    for key in reversed(path):
        leaf = {key: leaf}
    return leaf


def _put(tree: dict[str, Any], path: Path, leaf: Any) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = leaf


def _copy(source: epath.Path, target: epath.Path) -> None:
    """Copy a file or a folder, if it is there."""
    if source.is_dir():
        for one in source.iterdir():
            _copy(one, target / one.name)
    elif source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        source.copy(target)


def newest_steps(run: epath.PathLike, count: int) -> tuple[int, ...]:
    """Return the steps of the newest checkpoints of a run, oldest first.

    Raises:
      UserError: it has not so many.
    """
    steps = checkpoint_steps(run)
    _check_count(run, steps, count, "checkpoints")
    return tuple(steps[-count:])


def best_steps(run: epath.PathLike, metrics: Sequence[Mapping[str, Any]], count: int) -> tuple[int, ...]:
    """Return the steps of the checkpoints with the least development loss, the best first.

    Args:
      run: the run's folder.
      metrics: the lines of its metrics.jsonl.
      count: how many.

    Raises:
      UserError: it has not so many checkpoints with a development loss.
    """
    known = set(checkpoint_steps(run))
    losses = {line["step"]: line["nll"] for line in metrics if line["kind"] == "dev" and "nll" in line}
    measured = sorted(known & losses.keys(), key=lambda step: (losses[step], -step))
    _check_count(run, measured, count, "checkpoints with a development loss in metrics.jsonl")
    return tuple(measured[:count])


def _check_count(run: epath.PathLike, steps: Sequence[int], count: int, kind: str) -> None:
    if count > len(steps):
        there = f" ({', '.join(map(str, sorted(steps)))})" if steps else ""
        raise UserError(
            f"{run} has {len(steps)} {kind}{there}, not {count}; train.keep_checkpoints says how many are kept"
        )
