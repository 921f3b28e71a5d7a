"""Checkpoints: everything that a step changes and the position of the data, written together or not at all.

    RUN/checkpoints/STEP/model      the weights, nested dictionaries of arrays
                         average    their moving average, where the recipe keeps one
                         buffers    state that no gradient changes, where the model has some
                         optimizer  its state, by the path of each array
                         progress   step, seconds of training, tokens seen (JSON)
                         data       the position of the data stream (JSON), one for all hosts

A checkpoint is written under a temporary name and renamed, so one that has a number for a name is complete.
"""

from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from nmt.errors import UserError
from nmt.models.weights import (
    AVERAGE,
    BUFFERS,
    WEIGHTS,
    check_stored,
    checkpoint_folder,
    damage_explained,
    from_arrays,
    to_arrays,
)
from nmt.train.step import TrainState


@dataclass(frozen=True)
class Progress:
    """The progress of a run. Counts are of the whole run, over all its starts."""

    step: int = 0
    seconds: float = 0.0
    source_tokens: int = 0
    target_tokens: int = 0


def _key_by_path(tree: Any) -> dict[str, Any]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in jax.tree.leaves_with_path(tree)
    }


def _abstract(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), tree)


class Checkpoints:
    """Saves and restores the checkpoints of a run; a context manager that waits for pending writes.

    Args:
      run: the run's folder.
      keep: how many of the newest are kept.
    """

    def __init__(self, run: epath.PathLike, keep: int):
        # On CPUs the arrays would have to be copied before the next step may overwrite them: nothing is gained.
        background = jax.default_backend() != "cpu"
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            enable_async_checkpointing=background,
            # Hosts that see a shared folder a moment later must not go on from another checkpoint.
            single_host_load_and_broadcast=True,
        )
        self._folder = checkpoint_folder(run)
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    @property
    def latest(self) -> int | None:
        """The step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def save(self, state: TrainState, batches: Any, progress: Progress) -> None:
        """Write a checkpoint of the state after `progress.step` steps, unless there is one.

        Args:
          state: the state.
          batches: the Grain iterator, standing after the last batch that the state has seen.
          progress: the steps, seconds and tokens so far.
        """
        if self._manager.latest_step() == progress.step:
            return
        items: dict[str, Any] = {
            WEIGHTS: ocp.args.StandardSave(to_arrays(state.parameters)),
            "optimizer": ocp.args.StandardSave(_key_by_path(state.optimizer)),
            "progress": ocp.args.JsonSave(vars(progress)),
            "data": ocp.args.JsonSave(batches.get_state()),
        }
        if state.average is not None:
            items[AVERAGE] = ocp.args.StandardSave(to_arrays(state.average))
        if jax.tree.leaves(state.buffers):
            items[BUFFERS] = ocp.args.StandardSave(to_arrays(state.buffers))
        self._manager.save(progress.step, args=ocp.args.Composite(**items))

    def progress(self) -> Progress:
        """Return the progress that the newest checkpoint holds; that of the beginning if there is none."""
        step = self.latest
        if step is None:
            return Progress()
        items = self._manager.restore(step, args=ocp.args.Composite(progress=ocp.args.JsonRestore()))
        return Progress(**items["progress"])

    def restore(self, state: TrainState, batches: Any) -> TrainState:
        """Return the newest checkpoint's state, placed as `state` is, and move `batches` to where it stood.

        Raises:
          UserError: the checkpoint is of another model, is an average of checkpoints, or damaged.
        """
        step = self.latest
        assert step is not None
        folder = self._folder / str(step)
        if not (folder / "optimizer").exists():
            raise UserError(f"{folder} has weights only, no state of an optimizer: training cannot go on from there")
        check_stored(folder / WEIGHTS, _abstract(to_arrays(state.parameters)))
        items: dict[str, Any] = {
            WEIGHTS: ocp.args.StandardRestore(_abstract(to_arrays(state.parameters))),
            "optimizer": ocp.args.StandardRestore(_abstract(_key_by_path(state.optimizer))),
            "data": ocp.args.JsonRestore(),
        }
        if state.average is not None:
            items[AVERAGE] = ocp.args.StandardRestore(_abstract(to_arrays(state.average)))
        if jax.tree.leaves(state.buffers):
            check_stored(folder / BUFFERS, _abstract(to_arrays(state.buffers)))
            items[BUFFERS] = ocp.args.StandardRestore(_abstract(to_arrays(state.buffers)))
        with damage_explained(folder):
            found = self._manager.restore(step, args=ocp.args.Composite(**items))
        batches.set_state(found["data"])
        leaves = found["optimizer"]
        optimizer = jax.tree.unflatten(
            jax.tree.structure(state.optimizer), [leaves[path] for path in _key_by_path(state.optimizer)]
        )
        return replace(
            state,
            step=jax.device_put(np.int32(step), state.step.sharding),
            parameters=from_arrays(state.parameters, found[WEIGHTS]),
            optimizer=optimizer,
            average=None if state.average is None else from_arrays(state.average, found[AVERAGE]),
            buffers=from_arrays(state.buffers, found[BUFFERS]) if BUFFERS in items else state.buffers,
        )
