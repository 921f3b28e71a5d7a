"""The launchers of many processes that JAX recognises, from its private module `jax._src.clusters`.

JAX has no public way to detect a launcher without also connecting, whose failures it reports with a stack trace.
"""

from typing import Any

import jax

from nmt.errors import UserError


def known_clusters() -> tuple[Any, ...]:
    """Return JAX's classes of launchers, in the order in which they are asked: Open MPI, Slurm, GKE, Google Cloud TPU.

    Raises:
      UserError: the JAX that is installed has them no longer.
    """
    try:
        from jax._src.clusters import GceTpuCluster, GkeTpuCluster, OmpiCluster, SlurmCluster
    except ImportError:
        raise UserError(
            f"jax {jax.__version__} no longer has jax._src.clusters, by which nmt finds the other processes of a run: "
            "install a tested version (pip install -c constraints.txt jax), or give distributed.coordinator, "
            "distributed.process and distributed.processes; distributed.processes=1 is a process on its own"
        ) from None
    return OmpiCluster, SlurmCluster, GkeTpuCluster, GceTpuCluster
