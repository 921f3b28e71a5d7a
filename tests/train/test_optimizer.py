"""Learning rates and optimizers."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy_model as toy
from flax import nnx

from nmt.config import OptimizerConfig, ScheduleConfig
from nmt.models.building import abstract_model
from nmt.recipes.size import measure
from nmt.train.adafactor import factoring
from nmt.train.optimizer import make_optimizer
from nmt.train.schedules import make_schedule

# Learning rates


def rates_of(steps, warmup, **config):
    rate = make_schedule(ScheduleConfig(warmup_steps=warmup, **config), steps)
    return np.asarray(rate(jnp.arange(steps)))


@pytest.mark.parametrize("start", [0.0, 0.02, 0.7])
@pytest.mark.parametrize("warmup", [0, 1, 10])
@pytest.mark.parametrize("name", ["rsqrt", "inverse_sqrt", "constant_rsqrt", "linear", "cosine", "wsd", "constant"])
def test_schedules(name, warmup, start):
    steps, peak, w = 50, 0.3, max(warmup, 1)
    decay = {
        "linear": lambda t: (steps - t) / (steps - w),
        "cosine": lambda t: (1 + math.cos(math.pi * (t - w) / (steps - w))) / 2,
        "wsd": lambda t: min(1.0, (steps - t) / (0.4 * steps)),
        "constant": lambda t: 1.0,
    }.get(name, lambda t: math.sqrt(w / t))
    rates = rates_of(steps, warmup, name=name, learning_rate=peak, warmup_from=start, cooldown=0.4)
    for t, got in enumerate(rates, start=1):
        rising = peak if name == "constant_rsqrt" else start + (peak - start) * t / w
        wanted = peak * decay(t) if t >= w else rising
        assert got == pytest.approx(wanted, rel=1e-4, abs=1e-7), t
    assert rates[w - 1] == rates[w - 1 :].max() == pytest.approx(peak)


def test_gshards_learning_rate():
    # Lingvo: rsqrt(max(t, 10000)), which is 0.01 for the first ten thousand steps.
    rate = make_schedule(ScheduleConfig(name="constant_rsqrt", learning_rate=0.01, warmup_steps=10_000), 250_000)
    for step in (0, 1, 9_998, 9_999, 10_000, 40_000, 249_999):
        assert float(rate(jnp.asarray(step))) == pytest.approx(max(step + 1, 10_000) ** -0.5, rel=1e-5)


@pytest.mark.parametrize("cooldown", [0.0, 0.9])
def test_cooling_down_begins_after_warm_up_and_may_be_left_out(cooldown):
    rates = rates_of(40, 20, name="wsd", learning_rate=1.0, cooldown=cooldown)
    np.testing.assert_allclose(rates[:20], np.arange(1, 21) / 20, rtol=1e-5)
    fall = [1.0] * 20 if cooldown == 0.0 else np.arange(19, -1, -1) / 20
    np.testing.assert_allclose(rates[20:39], fall[:19], rtol=1e-5)


# Any optimizer


def named(array, *axes):
    return nnx.Param(jnp.asarray(array, jnp.float32), logical_axes=axes)


def updates_of(config, gradients, parameters, rate=0.1):
    """The updates that an optimizer makes of some gradients in turn, the parameters standing still; and its state."""
    optimizer = make_optimizer(config, lambda step: jnp.asarray(rate))
    state, updates = optimizer.init(parameters), []
    step = jax.jit(optimizer.update)
    for gradient in gradients:
        update, state = step(gradient, state, parameters)
        updates.append({name: np.asarray(value[...]) for name, value in update.items()})
    return updates, state


def of_matrix(config, gradients, parameter, rate=0.1):
    """The same for one plain matrix."""
    tree = [{"w": named(gradient, "embed", "mlp")} for gradient in gradients]
    return [update["w"] for update in updates_of(config, tree, {"w": named(parameter, "embed", "mlp")}, rate)[0]]


PARAMETER = np.array([[2.0, -1.0], [0.5, 4.0]])
GRADIENTS = [np.array([[1.0, -2.0], [0.1, 0.0]]), np.array([[3.0, 1.0], [0.1, 0.0]])]


def test_adam():
    config = OptimizerConfig(beta1=0.8, beta2=0.9, epsilon=1e-3, clip_norm=None)
    m = v = np.zeros((2, 2))
    for t, (g, got) in enumerate(zip(GRADIENTS, of_matrix(config, GRADIENTS, PARAMETER), strict=True), 1):
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        wanted = -0.1 * (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.9**t)) + 1e-3)
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-7)


def test_lion():
    config = OptimizerConfig(name="lion", beta1=0.8, beta2=0.9, weight_decay=0.3, clip_norm=None)
    m = np.zeros((2, 2))
    for g, got in zip(GRADIENTS, of_matrix(config, GRADIENTS, PARAMETER), strict=True):
        np.testing.assert_allclose(got, -0.1 * (np.sign(0.8 * m + 0.2 * g) + 0.3 * PARAMETER), rtol=1e-5)
        m = 0.9 * m + 0.1 * g


def test_lamb():
    config = OptimizerConfig(name="lamb", beta1=0.8, beta2=0.9, epsilon=1e-3, weight_decay=0.3, clip_norm=None)
    m = v = np.zeros((2, 2))
    for t, (g, got) in enumerate(zip(GRADIENTS, of_matrix(config, GRADIENTS, PARAMETER), strict=True), 1):
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        u = (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.9**t)) + 1e-3) + 0.3 * PARAMETER
        np.testing.assert_allclose(got, -0.1 * np.linalg.norm(PARAMETER) / np.linalg.norm(u) * u, rtol=1e-4)


def test_lamb_of_nothing():
    config = OptimizerConfig(name="lamb", clip_norm=None)
    (still,) = of_matrix(config, [np.zeros((2, 2))], PARAMETER)
    assert not still.any()
    (first,) = of_matrix(config, [np.ones((2, 2))], np.zeros((2, 2)))  # a ratio of 1: Adam
    np.testing.assert_allclose(first, -0.1, rtol=1e-4)


def test_gradients_are_clipped_to_a_norm():
    # With a huge epsilon Adam's first update is the clipped gradient, by epsilon.
    config = OptimizerConfig(epsilon=1e4, clip_norm=1.0)
    (of_long,), (of_short,) = (of_matrix(config, [np.full((2, 2), size)], PARAMETER, rate=1e4) for size in (6.0, 0.25))
    np.testing.assert_allclose(of_long, -0.5, rtol=1e-3)  # norm 12 -> 1
    np.testing.assert_allclose(of_short, -0.25, rtol=1e-3)  # norm 0.5 stays


@pytest.mark.parametrize("name", ["adam", "adafactor", "lion"])
def test_weight_decay_is_decoupled_and_scaled_by_the_learning_rate(name):
    gradient = np.array([[1.0, -2.0], [0.1, 0.7]])
    plain, decayed = (
        of_matrix(OptimizerConfig(name=name, weight_decay=decay), [gradient] * 2, PARAMETER) for decay in (0.0, 0.3)
    )
    for without, with_decay in zip(plain, decayed, strict=True):
        np.testing.assert_allclose(with_decay - without, -0.1 * 0.3 * PARAMETER, rtol=1e-4, atol=1e-6)


# Adafactor

GSHARD = OptimizerConfig(name="adafactor", beta1=0.0, clip_norm=None)

# Names and sizes of axes, and which dimensions are batch, rows and columns (None: the second moment is whole).
SHAPES = {
    "wi": (("layers", "expert", "embed", "mlp"), (2, 6, 4, 5), (0, 1), (2,), (3,)),
    "wo": (("layers", "expert", "mlp", "embed"), (2, 6, 5, 4), (0, 1), (3,), (2,)),
    "gated": (("layers", "embed", None, "mlp"), (2, 4, 2, 5), (0,), (1,), (2, 3)),
    "queries": (("layers", "embed", "heads", None), (2, 4, 3, 2), (0,), (1,), (2, 3)),
    "keys": (("layers", "embed", None, "heads", None), (2, 4, 2, 3, 2), (0,), (1,), (2, 3, 4)),
    "heads": (("layers", "heads", None, "embed"), (2, 3, 2, 4), (0,), (3,), (1, 2)),
    "table": (("vocab", "embed"), (9, 4), (), (1,), (0,)),
    "router": (("layers", "embed", None), (2, 4, 6), (0,), None, None),
    "norm": (("layers", "embed"), (2, 4), (0,), None, None),
    "bias": (("layers", "expert", "mlp"), (2, 6, 5), (0, 1), None, None),
    "scalar": (("layers",), (2,), (0,), None, None),
}


def transcribed(gradients, parameter, case, config):
    """Adafactor in float64, matrix by matrix (Shazeer and Stern, Algorithms 4 and 5)."""
    _, shape, batch, rows, columns = case
    updates = [np.zeros(shape) for _ in gradients]
    for index in np.ndindex(*(shape[i] for i in batch)):
        inner = [i for i in range(len(shape)) if i not in batch]
        order = [inner.index(i) for i in (*(rows or inner), *(columns or ()))]
        height = math.prod(shape[i] for i in (rows or inner))
        turned = [shape[inner[i]] for i in order]

        def matrix(x, index=index, order=order, height=height):
            return np.asarray(x, np.float64)[index].transpose(order).reshape(height, -1)

        p = matrix(parameter)
        r, c, v, m = np.zeros(p.shape[0]), np.zeros(p.shape[1]), np.zeros_like(p), np.zeros_like(p)
        for t, (gradient, update) in enumerate(zip(gradients, updates, strict=True), start=1):
            g, beta2 = matrix(gradient), 1 - t**-config.decay_exponent
            square = g * g + 1e-30
            r, c = (beta2 * old + (1 - beta2) * square.mean(axis=axis) for old, axis in ((r, 1), (c, 0)))
            v = beta2 * v + (1 - beta2) * square
            u = g / np.sqrt(np.outer(r, c) / r.mean() if rows and config.factored else v)
            if config.update_clip is not None:
                u = u / max(1.0, np.sqrt((u * u).mean()) / config.update_clip)
            if config.parameter_scale:
                u = u * max(1e-3, np.sqrt((p * p).mean()))
            m = config.beta1 * m + (1 - config.beta1) * u
            update[index] = m.reshape(turned).transpose(np.argsort(order))
    return updates


def adafactor_case():
    rng = np.random.default_rng(0)
    parameters = {name: rng.normal(size=case[1]) for name, case in SHAPES.items()}
    parameters["norm"][1] = 0.0  # below the least scale
    gradients = []
    for size in (1.0, 0.1, 20.0, 1.0):  # the third is clipped
        some = {name: size * rng.normal(size=case[1]) * rng.random(case[1]) for name, case in SHAPES.items()}
        some["table"][2] = 0.0  # a word that does not occur
        gradients.append(some)
    return parameters, gradients


def trees_of(arrays):
    return {name: named(array, *SHAPES[name][0]) for name, array in arrays.items()}


@pytest.mark.parametrize(
    "changes",
    [{}, {"factored": False}, {"beta1": 0.7}, {"parameter_scale": False, "update_clip": None, "decay_exponent": 0.5}],
    ids=str,
)
def test_adafactor_is_the_papers(changes):
    config = GSHARD.model_copy(update=changes)
    parameters, gradients = adafactor_case()
    got, _ = updates_of(config, [trees_of(some) for some in gradients], trees_of(parameters), rate=1.0)
    for name, case in SHAPES.items():
        wanted = transcribed([some[name] for some in gradients], parameters[name], case, config)
        for step, (mine, its) in enumerate(zip(got, wanted, strict=True)):
            np.testing.assert_allclose(mine[name], -its, rtol=2e-4, atol=2e-6, err_msg=f"{name} {step}")


@pytest.mark.parametrize("shape", [(4, 7), (7, 4), (5, 5)])
def test_adafactor_is_optaxs_where_there_is_one_matrix(shape):
    rng = np.random.default_rng(0)
    parameter, *gradients = rng.normal(size=(5, *shape)).astype(np.float32)
    theirs = optax.adafactor(learning_rate=0.1, min_dim_size_to_factor=1)
    state = theirs.init(parameter)
    for gradient, mine in zip(gradients, of_matrix(GSHARD, gradients, parameter), strict=True):
        update, state = theirs.update(jnp.asarray(gradient), state, jnp.asarray(parameter))
        np.testing.assert_allclose(mine, update, rtol=1e-4, atol=1e-6)


def test_axes_are_factored_by_name_and_not_by_size():
    # More experts than units of width, as 2048 of width 1024: by size, experts are paired with hidden units.
    experts, width, hidden = 16, 4, 32
    shape = (experts, width, hidden)
    rng = np.random.default_rng(0)
    parameter, gradient = rng.normal(size=(2, *shape)).astype(np.float32)
    changed = gradient.copy()
    changed[0] *= rng.random((width, hidden))

    def ours(gradient):
        axes = ("expert", "embed", "mlp")
        updates, state = updates_of(GSHARD, [{"w": named(gradient, *axes)}], {"w": named(parameter, *axes)})
        return updates[0]["w"], state

    optaxs = optax.adafactor(learning_rate=0.1, min_dim_size_to_factor=1)
    theirs = functools.partial(optaxs.update, state=optaxs.init(parameter), params=parameter)
    shapes = {np.shape(leaf) for leaf in jax.tree.leaves(ours(gradient)[1]) if np.size(leaf) > 1}
    assert shapes == {(experts, width), (experts, hidden)}
    its_shapes = {np.shape(leaf) for leaf in jax.tree.leaves(optaxs.init(parameter)) if np.size(leaf) > 1}
    assert its_shapes == {(experts, width), (width, hidden)}
    # Another gradient of one expert: the others move as before.
    np.testing.assert_array_equal(ours(gradient)[0][1:], ours(changed)[0][1:])
    assert np.abs(theirs(gradient)[0][1:] - theirs(changed)[0][1:]).max() > 1e-3


@pytest.mark.parametrize(("name", "beta1"), [("adafactor", 0.0), ("lamb", 0.9)])
def test_a_stack_is_updated_as_its_layers_are_one_by_one(name, beta1):
    config = OptimizerConfig(name=name, beta1=beta1, clip_norm=None, weight_decay=0.1)
    everything, some_gradients = adafactor_case()
    parameters, *gradients = (
        {name: some[name] for name in ("wi", "queries", "norm")} for some in (everything, *some_gradients)
    )
    stacked, _ = updates_of(config, [trees_of(some) for some in gradients], trees_of(parameters))

    def layers(arrays):
        return {
            f"{name}.{i}": named(array[i], *SHAPES[name][0][1:]) for name, array in arrays.items() for i in range(2)
        }

    single, _ = updates_of(config, [layers(some) for some in gradients], layers(parameters))
    for one, many in zip(stacked, single, strict=True):
        for path, update in many.items():
            name, i = path.split(".")
            np.testing.assert_allclose(one[name][int(i)], update, rtol=1e-5, atol=1e-7, err_msg=path)


def test_an_expert_that_wakes_up_moves_no_more_than_the_others():
    rng = np.random.default_rng(0)
    axes, shape = ("expert", "embed", "mlp"), (8, 6, 10)
    gradients = rng.normal(size=(60, *shape))
    gradients[1:-1, 0] = 0.0  # meanwhile its second moments decay
    parameter = {"w": named(np.ones(shape), *axes)}
    updates, _ = updates_of(GSHARD, [{"w": named(g, *axes)} for g in gradients], parameter, rate=1.0)
    assert not updates[-2]["w"][0].any()
    moved = np.sqrt(np.square(updates[-1]["w"]).mean(axis=(1, 2)))
    assert moved[0] == pytest.approx(1.0, rel=1e-4)  # clipped
    assert moved[1:].min() > 0.7


def test_the_state_carries_logical_axes():
    parameters = trees_of({name: np.zeros(SHAPES[name][1]) for name in ("wi", "keys", "norm")})
    state = make_optimizer(GSHARD.model_copy(update={"beta1": 0.9}), lambda step: 0.1).init(parameters)
    variables = [
        leaf
        for leaf in jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, nnx.Variable))
        if isinstance(leaf, nnx.Variable)
    ]
    axes = [(variable.get_metadata()["logical_axes"], np.shape(variable[...])) for variable in variables]
    wi, keys, norm = (SHAPES[name][:2] for name in ("wi", "keys", "norm"))
    assert sorted(axes, key=str) == sorted(
        [
            *(wi, keys, norm),  # momentum
            *((("layers", "expert", "embed"), (2, 6, 4)), (("layers", "expert", "mlp"), (2, 6, 5))),
            *((("layers", "embed"), (2, 4)), (("layers", None, "heads", None), (2, 2, 3, 2))),
            norm,  # whole
        ],
        key=str,
    )


def test_every_parameter_of_a_model_is_factored_or_small():
    _, parameters = abstract_model(toy.model_config(), toy.SIZES)
    for path, variable in nnx.to_flat_state(parameters):
        whole = factoring(variable.get_metadata()["logical_axes"]) is None
        assert whole == any(word in path for word in ("scale", "router")), path


# Memory


def memory(optimizer, **train):
    return measure(toy.recipe(optimizer=optimizer, **train), toy.SIZES)


def test_memory_of_optimizers():
    count = 4  # bytes; the counts of steps done
    weights = memory(OptimizerConfig(), ema_decay=None).weights
    for name, moments in {"adam": 2, "lamb": 2, "lion": 1}.items():
        assert weights * moments <= memory(OptimizerConfig(name=name)).optimizer <= weights * moments + 2 * count
    _, parameters = abstract_model(toy.model_config(), toy.SIZES)
    wanted = 0
    for path, variable in nnx.to_flat_state(parameters):
        axes, shape = variable.get_metadata()["logical_axes"], variable.get_value().shape
        batch = math.prod(n for axis, n in zip(axes, shape, strict=True) if axis in ("layers", "expert"))
        width, rest = toy.model_config().width, math.prod(shape) // batch // toy.model_config().width
        wanted += batch * (width * rest if "scale" in path or "router" in path else width + rest)
    of_adafactor = memory(GSHARD).optimizer
    assert 4 * wanted <= of_adafactor <= 4 * wanted + 2 * count
    with_momentum = memory(GSHARD.model_copy(update={"beta1": 0.9})).optimizer
    assert with_momentum == of_adafactor + weights


def test_accumulating_takes_a_second_gradient_and_fewer_activations():
    whole, parts = memory(GSHARD), memory(GSHARD, accumulate=4)
    assert parts.gradients == 2 * whole.gradients
    assert parts.activations == pytest.approx(whole.activations / 4)
