"""Keys of nmt-train that place this process among those of a run.

They belong to the command and not to the recipe: they differ from process to process and from start to start, so
RUN/recipe.yaml does not have them.
"""

from collections.abc import Mapping
from typing import NamedTuple

from nmt.errors import UserError

PREFIX = "distributed."
KEYS = {
    f"{PREFIX}coordinator": "HOST:PORT of process 0, the same for all processes",
    f"{PREFIX}process": "the number of this process, from 0",
    f"{PREFIX}processes": "how many processes there are; 1: look for no others",
    f"{PREFIX}join_timeout": "seconds to wait for the others to come (300)",
    f"{PREFIX}heartbeat_timeout": "seconds without a sign of life until a host is given up (100)",
}


class LaunchKeys(NamedTuple):
    """The keys, as `nmt.sharding.hosts.Launch` takes them."""

    coordinator: str | None = None
    process: int | None = None
    processes: int | None = None
    join_timeout: float = 300.0
    heartbeat_timeout: float = 100.0


def parse_launch(given: Mapping[str, str]) -> LaunchKeys:
    """Return the keys from their texts.

    Raises:
      UserError: a number that is none or out of range, an address without a port, some keys without the others.
    """
    values = {name.removeprefix(PREFIX): text for name, text in given.items()}
    join = _number("join_timeout", values.get("join_timeout", "300"), 1)
    heartbeat = _number("heartbeat_timeout", values.get("heartbeat_timeout", "100"), 1)
    processes = _number("processes", values["processes"], 1) if "processes" in values else None
    if processes == 1 and values.get("process", "0") == "0":
        return LaunchKeys(None, None, 1, join, heartbeat)
    named = [name for name in ("coordinator", "process", "processes") if name in values]
    if not named:
        return LaunchKeys(None, None, None, join, heartbeat)
    missing = [f"{PREFIX}{name}" for name in ("coordinator", "process", "processes") if name not in values]
    if missing or processes is None:
        have = " and ".join(f"{PREFIX}{name}" for name in named)
        raise UserError(f"{have} without {' and '.join(missing)}: give all three, or none to let JAX find them")
    process = _number("process", values["process"], 0)
    if process >= processes:
        raise UserError(
            f"{PREFIX}process={process} is out of range: with {PREFIX}processes={processes} it is 0 to {processes - 1}"
        )
    return LaunchKeys(_address(values["coordinator"]), process, processes, join, heartbeat)


def _number(name: str, text: str, least: int) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) < least:
        raise UserError(f"{PREFIX}{name} must be a whole number from {least} (not {text!r})")
    return int(text)


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise UserError(f"{PREFIX}coordinator must be HOST:PORT, such as 10.0.0.2:8476 (not {text!r})")
    return text
