"""Routers: one module a kind of routing, named as in the table of `nmt/config/routers.py`."""

import importlib

from nmt.config import MoEConfig
from nmt.models.moe.routers.contract import Router


def make_router(config: MoEConfig, decoder: bool = False) -> Router:
    """Return the router of the layers of the encoder or of the decoder."""
    kind: type[Router] = importlib.import_module(f"{__name__}.{config.routing_kind(decoder)}").ROUTER
    return kind(config, decoder)
