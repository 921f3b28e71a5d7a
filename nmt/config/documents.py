"""YAML as declarations use it: read with line numbers by the core schema of YAML 1.2, written so that it reads back.

PyYAML follows YAML 1.1, where `no` (Norwegian) is false, `1e-3` is text, `010` is eight and `12:30` is 750, and lets
the second of two equal keys win in silence. Here only `true` and `false` are truth values, numbers are what they look
like, and a key given twice is an error. Source: YAML 1.2.2, section 10.3, "Core Schema".
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from etils import epath

from nmt.errors import UserError

KeyPath = tuple[str, ...]

_DEEPEST = 12
_TAG = "tag:yaml.org,2002:"
# Tag, pattern, and the characters with which such a scalar may begin ("" stands for the empty scalar).
_CORE_SCALARS = (
    ("null", r"(?:~|null|Null|NULL|)", ["", "~", "n", "N"]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)", list("tTfF")),
    ("int", r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)", list("-+0123456789")),
    ("float", r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?)", list("-+.0123456789")),
    ("float", r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))", list("-+.")),
)


class MalformedError(ValueError):
    """Text that is not YAML, or not YAML of this kind; `line` counts from 1."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class Document:
    """The content of a YAML file, with the line of every key."""

    path: str  # as it is shown: relative where it lies below the working directory
    values: dict[str, Any]  # nested; lists are tuples
    lines: dict[KeyPath, int]  # of every key, from 1


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own attribute


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # PyYAML breaks single-quoted text at Unicode's other line ends, which changes it.
    style = '"' if set(text) & set("\x85\u2028\u2029") else None
    return dumper.represent_scalar(f"{_TAG}str", text, style=style)


_Dumper.add_representer(str, _represent_text)
for _tag, _pattern, _first in _CORE_SCALARS:
    _Loader.add_implicit_resolver(_TAG + _tag, re.compile(rf"^{_pattern}$"), _first)
    # Added to those of YAML 1.1, so that text which either version takes for something else gets quotes.
    _Dumper.add_implicit_resolver(_TAG + _tag, re.compile(rf"^{_pattern}$"), _first)


def read_document(path: os.PathLike[str] | str) -> Document:
    """Return the mapping that a YAML file holds.

    Raises:
      UserError: unreadable, not UTF-8, not YAML, not a mapping, or with a key given twice; names file and line.
    """
    shown = _below_here(os.fspath(path))
    try:
        text = epath.Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read {shown}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{shown}:{line}: not UTF-8 text") from None
    lines: dict[KeyPath, int] = {}
    try:
        values = _value(_compose(text), (), lines)
    except MalformedError as error:
        raise UserError(f"{shown}:{error.line}: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{shown}:1: a file of `key: value` lines is expected, this one is {_kind(values)}")
    return Document(shown, values, lines)


def parse_value(text: str) -> Any:
    """Return the value that a piece of YAML stands for, such as `1e-3`, `null`, `[de-en, en-de]` or `{experts: 4}`.

    Raises:
      MalformedError: it is not YAML.
    """
    return _value(_compose(text), (), {})


def dump_document(values: Mapping[str, Any]) -> str:
    """Return `values` as YAML in their own order; `read_document` and any YAML 1.1 reader give them back."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def dump_value(value: Any) -> str:
    """Return `value` as YAML on one line."""
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=True, width=1 << 20)
    return text.removesuffix("\n").removesuffix("\n...")


def leaves(values: Mapping[str, Any], path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Yield the path and value of everything in nested mappings that is no mapping itself, or an empty one."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def _below_here(path: str) -> str:
    return os.path.relpath(path) if path.startswith(os.getcwd() + os.sep) else path


def _compose(text: str) -> yaml.Node | None:
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        raise MalformedError(f"not valid YAML: {problem}", line) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, int(error.position)) + 1
        raise MalformedError(f"not valid YAML: {error.reason}", line) from None
    except RecursionError:
        raise MalformedError("not valid YAML: nested too deeply", 1) from None
    return node


def _value(node: yaml.Node | None, path: KeyPath, lines: dict[KeyPath, int]) -> Any:
    """Return the value of a node below `path`, and note the line of every key in `lines`."""
    if node is None:
        return None
    if len(path) > _DEEPEST:  # also where an alias refers to what it is part of
        raise MalformedError("nested too deeply", _line(node))
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, lines)
    if isinstance(node, yaml.SequenceNode):
        return tuple(_value(item, (*path, str(index)), {}) for index, item in enumerate(node.value))
    try:
        return _scalar(node.tag, node.value)
    except (KeyError, ValueError):
        tag = node.tag.replace(_TAG, "!!")
        raise MalformedError(f"{node.value!r} with the tag {tag} is not understood", _line(node)) from None


def _mapping(node: yaml.MappingNode, path: KeyPath, lines: dict[KeyPath, int]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    first_lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise MalformedError("a key must be a word, not a list or a section", _line(key_node))
        key = str(key_node.value)
        if key in mapping:
            dotted = ".".join((*path, key))
            raise MalformedError(f"key {dotted} is given twice, first on line {first_lines[key]}", _line(key_node))
        first_lines[key] = lines[*path, key] = _line(key_node)
        mapping[key] = _value(value_node, (*path, key), lines)
    return mapping


def _scalar(tag: str, text: str) -> str | int | float | bool | None:
    match tag.removeprefix(_TAG):
        case "str":
            return text
        case "null":
            return None
        case "bool":
            return {"true": True, "false": False}[text.lower()]
        case "int":
            return int(text, 0) if text.startswith(("0o", "0x")) else int(text)
        case "float":
            return _number(text)
    raise KeyError(tag)


def _number(text: str) -> int | float:
    """Return a float, but a whole number for `1e6`: people write so where a whole number is asked for."""
    value = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    exact = "." not in text and value.is_integer() and abs(value) < 2**53
    return int(value) if exact else value


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _kind(value: object) -> str:
    if value is None:
        return "empty"
    return "a list" if isinstance(value, tuple) else f"the single value {dump_value(value)}"
