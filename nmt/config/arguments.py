"""The arguments of a command that set keys of a recipe: `train.steps=100`, `model.moe={experts: 4}`."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from nmt.config.documents import KeyPath, MalformedError, leaves, parse_value
from nmt.config.keys import Key, keys_by_name, unknown_key
from nmt.errors import UserError


class Given(NamedTuple):
    """A value and the argument that gave it."""

    value: Any
    argument: str


def read_arguments(arguments: Sequence[str]) -> dict[KeyPath, Given]:
    """Return the value of every key that the arguments set, in their order; sections are taken apart.

    Raises:
      UserError: not `key=value`, an unknown key, a value that is not YAML, a key given twice; one line per mistake.
    """
    known: dict[KeyPath, Given] = {}
    mistakes: list[str] = []
    for argument in arguments:
        try:
            for path, value in _read(argument).items():
                _check_against(known, path, Given(value, argument))
                known[path] = Given(value, argument)
        except UserError as error:
            mistakes.append(str(error))
    if mistakes:
        raise UserError("\n".join(mistakes))
    return known


def _read(argument: str) -> dict[KeyPath, Any]:
    name, equals, text = argument.partition("=")
    path = tuple(name.split("."))
    if not equals or not all(path):
        raise UserError(f"argument {argument!r} is not of the form key=value")
    if not argument.isprintable():
        raise UserError(f"argument {argument!r} has characters that cannot be printed")
    if problem := unknown_key(path):
        raise UserError(f"argument {argument}: {problem}")
    try:
        value = _parse(text, keys_by_name()[name])
    except MalformedError as error:
        raise UserError(f"argument {argument}: {error}") from None
    if not isinstance(value, dict) or not value:
        return {path: value}
    given = {(*path, *below): leaf for below, leaf in leaves(value)}
    if problems := [problem for below in given if (problem := unknown_key(below))]:
        raise UserError("\n".join(f"argument {argument}: {problem}" for problem in problems))
    return given


def _parse(text: str, key: Key) -> Any:
    """Return the value of an argument; where text is asked for, it is taken as it stands, `no` and `1e3` too."""
    if key.kind == "string":
        return None if key.nullable and text == "null" else text
    if key.kind == "array" and not text.startswith("["):
        return tuple(item.strip() for item in text.split(",")) if text else ()
    if not text:
        raise MalformedError(f"no value after the equals sign ({key.type})", 1)
    return parse_value(text)


def _check_against(known: dict[KeyPath, Given], path: KeyPath, given: Given) -> None:
    for other, earlier in known.items():
        if other == path:
            raise UserError(f"{'.'.join(path)} is given twice: {earlier.argument} and {given.argument}")
        outer = earlier if len(other) < len(path) else given
        nested = other == path[: len(other)] or path == other[: len(path)]
        if nested and outer.value != {}:
            raise UserError(f"{earlier.argument} and {given.argument} contradict each other")
