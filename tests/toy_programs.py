"""Small programs whose FLOPs and collectives are known, compiled for eight simulated devices, or for TPUs.

This file is a script, run in a process of its own: `toy_programs.py cpu OUT`, `toy_programs.py tpu OUT`. It writes the
text of every compiled program to OUT/NAME.txt, and XLA's own count of its FLOPs and bytes to OUT/costs.json.
"""

import json
import os
import sys
from functools import partial
from pathlib import Path

ROWS, WIDTH, LAYERS, INNER = 32, 64, 5, 3


def programs(mesh):
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding
    from jax.sharding import PartitionSpec as P

    def array(shape, *axes, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, P(*axes)))

    def layer(x, w):
        return jnp.tanh(jax.lax.dot_general(x, w, (((1,), (0,)), ((), ())))), None

    def scan(x, ws):
        return jax.lax.scan(layer, x, ws)[0]

    def nested(x, w):
        def outer(x, _):
            return jax.lax.fori_loop(2, 2 + INNER, lambda _, x: layer(x, w)[0], x), None

        return jax.lax.scan(outer, x, None, LAYERS)[0]

    def unknown(x, w):
        return jax.lax.while_loop(lambda x: x.sum() < 1e3, lambda x: layer(x, w)[0], x)

    def batched(x, w):
        return jnp.einsum("brk,bkc->brc", x, w)

    @partial(jax.shard_map, mesh=mesh, in_specs=P("a", "b"), out_specs=P("a", "b"))
    def exchange(x):
        x = jax.lax.all_to_all(x, "b", 0, 0, tiled=True)
        gathered = jax.lax.all_gather(x, "a", tiled=True)
        x = jnp.sin(jax.lax.psum_scatter(jnp.sin(gathered), "a", tiled=True))
        x = jax.lax.ppermute(x, "b", [(i, (i + 1) % 4) for i in range(4)])
        return x + jax.lax.psum(x, ("a", "b"))

    x, w = array((ROWS, WIDTH)), array((WIDTH, 2 * WIDTH))
    square, stack = array((WIDTH, WIDTH)), array((LAYERS, WIDTH, WIDTH))
    split = array((ROWS, WIDTH), "a")
    return {
        "matmul": (lambda x, w: layer(x, w)[0], (x, w)),
        "batched": (batched, (array((3, ROWS, WIDTH)), array((3, WIDTH, 2 * WIDTH)))),
        "scan": (scan, (x, stack)),
        "nested": (nested, (x, square)),
        "unknown": (unknown, (x, square)),
        "gradient": (jax.grad(lambda ws, x: scan(x, ws).sum()), (stack, split)),
        "exchange": (exchange, (array((ROWS, WIDTH), "a", "b"),)),
        "gathered": (lambda x, w: layer(x, w)[0], (x, array((WIDTH, 2 * WIDTH), "a"))),
    }


def tpu_mesh():
    import numpy as np
    from jax.experimental import topologies
    from jax.sharding import Mesh

    devices = topologies.get_topology_desc(platform="tpu", topology_name="v3:2x2").devices
    return Mesh(np.array(devices).reshape(2, 4), ("a", "b"))


def main(platform, out):
    import jax
    import numpy as np
    from jax.sharding import Mesh

    mesh = tpu_mesh() if platform == "tpu" else Mesh(np.array(jax.devices()).reshape(2, 4), ("a", "b"))
    costs = {}
    for name, (function, arguments) in programs(mesh).items():
        compiled = jax.jit(function).lower(*arguments).compile()
        costs[name] = {key: compiled.cost_analysis().get(key, 0.0) for key in ("flops", "bytes accessed")}
        (Path(out) / f"{name}.txt").write_text(compiled.as_text())
    (Path(out) / "costs.json").write_text(json.dumps(costs))


if __name__ == "__main__":
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)  # what is compiled for other devices cannot be read back
    main(*sys.argv[1:])
