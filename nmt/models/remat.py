"""Rematerialisation: the backward pass computes again instead of keeping (Chen et al. 2016, arXiv:1604.06174).

| `model.remat` | kept of a block of layers |
|---|---|
| `none` | all that its derivatives need |
| `full` | its input |
| `local` | its input, and the tokens that were sent to experts and came back: nothing is sent again |
| `dots` | its input, and results of products with weights |
| `moe` | as `none`, but of mixture-of-experts layers only their input |
| `offload_moe` | the same, and on the host the results of their products |
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

from nmt.errors import UserError
from nmt.models.numerics import MOVED, PRODUCT
from nmt.sharding import platform

HOST = "pinned_host"

P = ParamSpec("P")
R = TypeVar("R")

_POLICIES = jax.checkpoint_policies
_BLOCK = {
    "full": _POLICIES.nothing_saveable,
    "local": _POLICIES.save_only_these_names(MOVED),
    "dots": _POLICIES.save_only_these_names(PRODUCT),
}
_EXPERTS = {
    "moe": _POLICIES.nothing_saveable,
    "offload_moe": _POLICIES.save_and_offload_only_these_names(
        names_which_can_be_saved=[], names_which_can_be_offloaded=[PRODUCT], offload_src="device", offload_dst=HOST
    ),
}


def wrap_block(remat: str, run: Callable[P, R], unrolled: bool = False) -> Callable[P, R]:
    """Return the function of a block of layers under the policy of `model.remat`.

    Args:
      remat: value of `model.remat`.
      run: the function.
      unrolled: whether it is called outside of a scan, which by itself keeps XLA from computing things once only.
    """
    return jax.checkpoint(run, policy=_BLOCK[remat], prevent_cse=unrolled) if remat in _BLOCK else run


def wrap_experts(remat: str, run: Callable[P, R]) -> Callable[P, R]:
    """Return the function of a mixture-of-experts layer under the policy of `model.remat`.

    Raises:
      UserError: the devices cannot reach the memory of the host.
    """
    if remat not in _EXPERTS:
        return run
    if remat == "offload_moe":
        _check_host_memory()
    return jax.checkpoint(run, policy=_EXPERTS[remat])


def _check_host_memory() -> None:
    if platform() != jax.default_backend():
        return  # compiled for devices that are elsewhere, which is for the compiler to judge
    device = jax.devices()[0]
    if HOST not in (memory.kind for memory in device.addressable_memories()):
        raise UserError(
            f"model.remat=offload_moe keeps values in the memory of the host, which a {device.device_kind} device of "
            f"{device.platform} cannot address: use model.remat=moe"
        )
