"""The train step: one jitted function of (state, batch), with the state donated."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float32, Int32, PRNGKeyArray

from nmt.config import Recipe, VocabularySizes
from nmt.data.batch import Batch
from nmt.models.axes import logical_axes, map_variables
from nmt.models.building import abstract_buffers, abstract_model, initial_buffers, initialise, split_buffers
from nmt.models.layers import gather_parameters
from nmt.models.moe.capacity import has_capacity
from nmt.models.moe.routers import make_router
from nmt.models.tokens import Phase
from nmt.models.transformer import Transformer
from nmt.sharding import named_sharding
from nmt.sharding.hosts import host_shard
from nmt.train.accumulation import accumulated_gradients, micro_batch_shares, split_batch
from nmt.train.cross_entropy import OutputLoss
from nmt.train.objective import LossSetting, Metrics, MicroBatchShare, combine_metrics, objective
from nmt.train.optimizer import global_norm, make_optimizer
from nmt.train.rounding import apply_updates, to_float32
from nmt.train.schedules import make_schedule

Scalars = dict[str, Float32[Array, ""]]  # `learning_rate` and `gradient_norm` of a step


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything that a step changes, and a checkpoint holds."""

    step: Int32[Array, ""]  # steps done
    parameters: nnx.State  # of `model.parameter_dtype`
    optimizer: optax.OptState
    average: nnx.State | None  # float32, the moving average of the parameters
    buffers: nnx.State  # state that no gradient changes (`nmt.models.buffers`); empty for most models


@dataclass(frozen=True)
class Trainer:
    """A model that can be trained on a mesh: compiled functions, and the shapes and places of their arguments."""

    state: TrainState  # without values: `jax.ShapeDtypeStruct`s with the place of each array
    batch: Batch  # without values, likewise
    initial: Callable[[], TrainState]  # draws the parameters
    step: jax.stages.Wrapped  # (TrainState, Batch) -> (TrainState, Metrics, Scalars); the state is donated
    evaluate: Callable[[TrainState, Batch], Metrics]  # learns nothing
    # Puts a batch on the devices, given all its rows or those of this host; each host places its own rows.
    place: Callable[[Batch], Batch]


def _state_sharding(abstract: TrainState, mesh: Mesh) -> TrainState:
    """Return the sharding of every array of the state, by its logical axes; moments of the optimizer have axes too."""

    def place(leaf: Any) -> Any:
        if not isinstance(leaf, nnx.Variable):
            return NamedSharding(mesh, PartitionSpec())
        return leaf.replace(named_sharding(mesh, logical_axes(leaf), leaf.shape))

    return map_variables(place, abstract)


def _abstract(shapes: TrainState, place: TrainState) -> TrainState:
    """Return a state without values, every array where it lives."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes, place
    )


def _abstract_batch(recipe: Recipe, place: NamedSharding) -> Batch:
    """Return a batch without values."""

    def rows(length: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((recipe.rows, length), jnp.int32, sharding=place)

    data = recipe.data
    sides = {
        field.name: data.source_length if field.name.startswith("src") else data.target_length
        for field in fields(Batch)
    }
    return Batch(**{name: rows(length) for name, length in sides.items()})


def batch_sharding(recipe: Recipe, mesh: Mesh) -> NamedSharding:
    """Return where the rows of a batch live.

    Raises:
      UserError: the mesh does not divide the rows that are computed at once.
    """
    at_once = (recipe.rows // recipe.train.accumulate, recipe.data.target_length)
    return named_sharding(mesh, ("batch", None), at_once)


def _placer(rows: int, batches: NamedSharding) -> Callable[[Batch], Batch]:
    """Return `Trainer.place` for batches of so many rows (B)."""

    # Not before there is a batch: the devices of a plan are not here, and have no share in anything.
    @functools.cache
    def first_row() -> int:
        host, of = host_shard(batches, rows)
        return host * rows // of

    def place(batch: Batch) -> Batch:
        before = 0 if len(batch.src) == rows else first_row()

        def place_rows(array: Any) -> Array:
            def read_device_rows(index: tuple[slice, ...] | None) -> Any:
                assert index is not None
                start, stop, _ = index[0].indices(rows)
                return np.asarray(array[start - before : stop - before])

            return jax.make_array_from_callback((rows, *array.shape[1:]), batches, read_device_rows)

        return jax.tree.map(place_rows, batch)

    return place


class StepFunctions:
    """The functions that a run compiles: the first state, a step, and an evaluation.

    Args:
      recipe: the resolved recipe.
      graph: the structure of the model.
    """

    def __init__(self, recipe: Recipe, graph: nnx.GraphDef[Transformer]):
        train, directions = recipe.train, len(recipe.data.streams)
        self._recipe, self._graph = recipe, graph
        self._schedule = make_schedule(train.schedule, train.steps)
        self._optimizer = make_optimizer(train.optimizer, self._schedule)
        self._training = LossSetting(directions, Phase.TRAIN, OutputLoss(train.label_smoothing, train.logits_z_weight))
        self._evaluation = LossSetting(directions, Phase.EVALUATE)

    def begin(self, parameters: nnx.State, buffers: nnx.State) -> TrainState:
        """Return the state before the first step."""
        exact = to_float32(parameters)
        average = None if self._recipe.train.ema_decay is None else jax.tree.map(jnp.copy, exact)
        return TrainState(jnp.zeros((), jnp.int32), parameters, self._optimizer.init(exact), average, buffers)

    def loss(
        self,
        buffers: nnx.State,
        parameters: nnx.State,
        batch: Batch,
        key: PRNGKeyArray,
        share: MicroBatchShare | None = None,
    ) -> tuple[Float32[Array, ""], Metrics]:
        """Return the loss of a batch, or the part of a micro-batch in it, as a function that has derivatives.

        Args:
          buffers: those of the model.
          parameters: those of the model, by which derivatives are taken.
          batch: the rows.
          key: random key.
          share: the weight of a micro-batch in its batch; None: it is the whole batch.
        """
        model = nnx.merge(self._graph, gather_parameters(parameters), buffers)
        value, metrics = objective(model, batch, self._training, key, share)
        return value / self._recipe.train.accumulate, metrics

    def step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics, Scalars]:
        """Learn from a batch; return the next state, the metrics of the batch, learning rate and gradient norm."""
        key = jax.random.fold_in(jax.random.key(self._recipe.seed), state.step)
        loss, sizes = functools.partial(self.loss, state.buffers), _group_sizes(self._recipe, Phase.TRAIN)
        gradients, metrics = accumulated_gradients(
            loss, state.parameters, batch, key, self._recipe.train.accumulate, sizes
        )
        gradients = to_float32(gradients)
        updates, optimizer_state = self._optimizer.update(gradients, state.optimizer, state.parameters)
        parameters = apply_updates(state.parameters, updates, key)
        scalars = {"learning_rate": self._schedule(state.step), "gradient_norm": global_norm(gradients)}
        average = _averaged(state, parameters, self._recipe.train.ema_decay)
        buffers = _updated_buffers(self._graph, state, metrics)
        return TrainState(state.step + 1, parameters, optimizer_state, average, buffers), metrics, scalars

    def evaluate(self, state: TrainState, batch: Batch) -> Metrics:
        """Return the metrics of a batch without learning from it, with the averaged weights where there are some."""
        weights = gather_parameters(state.parameters if state.average is None else state.average)
        model = nnx.merge(self._graph, weights, state.buffers)
        micro_batches = split_batch(batch, self._recipe.train.accumulate)
        shares = micro_batch_shares(micro_batches, _group_sizes(self._recipe, Phase.EVALUATE))

        def measure(one: tuple[Batch, MicroBatchShare]) -> Metrics:
            return objective(model, one[0], self._evaluation, share=one[1])[1]

        return combine_metrics(jax.lax.map(measure, (micro_batches, shares)))


def make_trainer(recipe: Recipe, vocabulary: VocabularySizes, mesh: Mesh) -> Trainer:
    """Build the functions of a run.

    Args:
      recipe: the resolved recipe.
      vocabulary: V of sources and of targets.
      mesh: the mesh to train on; also to be set by `jax.set_mesh` around every call.

    Raises:
      UserError: the mesh does not divide the model, or the rows of a batch that are computed at once.
    """
    graph, abstract = abstract_model(recipe.model, vocabulary)
    batches = batch_sharding(recipe, mesh)
    functions = StepFunctions(recipe, graph)
    shapes = jax.eval_shape(functions.begin, abstract, abstract_buffers(recipe.model, vocabulary))
    place = _state_sharding(shapes, mesh)

    def initial() -> TrainState:
        parameters = initialise(recipe.model, vocabulary, recipe.seed, mesh)[1]
        buffers = initial_buffers(recipe.model, vocabulary, mesh)
        return jax.jit(functions.begin, out_shardings=place, donate_argnums=0)(parameters, buffers)

    # Every host reads the metrics.
    whole = NamedSharding(mesh, PartitionSpec())
    return Trainer(
        state=_abstract(shapes, place),
        batch=_abstract_batch(recipe, batches),
        initial=initial,
        step=jax.jit(functions.step, donate_argnums=0, out_shardings=(place, whole, whole)),
        evaluate=jax.jit(functions.evaluate, out_shardings=whole),
        place=_placer(recipe.rows, batches),
    )


def _group_sizes(recipe: Recipe, phase: Phase) -> dict[str, int | None]:
    """Return the tokens that are balanced on their own, by stack; None: all of a side that are computed at once."""
    moe, lengths = recipe.model.moe, {"encoder": recipe.data.source_length, "decoder": recipe.data.target_length}
    if moe is None:
        return {}
    size = moe.group_size if has_capacity(moe, phase) else None
    routers = {stack: make_router(moe, stack == "decoder") for stack in lengths}
    return {stack: lengths[stack] if router.balanced_over == "rows" else size for stack, router in routers.items()}


def _updated_buffers(graph: nnx.GraphDef[Transformer], state: TrainState, metrics: Metrics) -> nnx.State:
    """Return the buffers after a step, moved by the statistics of its whole batch."""
    if not jax.tree.leaves(state.buffers):
        return state.buffers
    model = nnx.merge(graph, state.parameters, state.buffers)
    model.update_buffers(metrics.routing)
    return split_buffers(model)


def _averaged(state: TrainState, parameters: nnx.State, decay: float | None) -> nnx.State | None:
    """Return the moving average after a step; early on its decay is (1 + t) / (10 + t), which forgets the start."""
    if decay is None or state.average is None:
        return None
    t = state.step.astype(jnp.float32)
    rate = 1.0 - jnp.minimum(decay, (1.0 + t) / (10.0 + t))
    return jax.tree.map(lambda mean, new: mean + rate * (new - mean), state.average, parameters)
