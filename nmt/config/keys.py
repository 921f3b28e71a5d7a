"""The table of all keys of a recipe, derived from the schema: type in plain words, default, description."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from nmt.config.documents import KeyPath, dump_value
from nmt.config.schema import Recipe

# Keys that may change between two starts of one run: they touch neither the training text nor the arithmetic of a step
# from given weights. A section stands for all its keys. A run cannot be resumed with another value of any other key,
# nor of any key yet to come.
RESUMABLE = (
    "name",
    "description",
    "run_dir",
    "model.moe.router_init_scale",
    "train.steps",  # where the schedule does not depend on it: see `resume_conflicts`
    "train.max_minutes",
    "train.log_every",
    "train.dev_batches",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "mesh",
    "decode",
    "evaluate",
)

_LIKE = 0.55  # least likeness of a key that is suggested for another


@dataclass(frozen=True)
class Key:
    """One key of a recipe, or one section of keys."""

    name: str  # dotted, such as train.optimizer.beta1
    kind: str  # "section", or the JSON type: string, integer, number, boolean, array
    type: str  # in plain words
    nullable: bool
    options: tuple[str, ...]  # the values allowed, where they are few
    default: str | None  # as YAML; None: the key must be given
    description: str

    @property
    def resumable(self) -> bool:
        """Whether a run that has begun may go on with another value."""
        return any(self.name == name or self.name.startswith(f"{name}.") for name in RESUMABLE)


# Not of the schema: it is gone from the resolved recipe.
BASE = Key(
    name="model.base",
    kind="string",
    type="text, or null",
    nullable=True,
    options=(),
    default="null",
    description="A model, by name (of its file under models/) or path, whose values are the defaults of this section.",
)


@cache
def recipe_keys() -> tuple[Key, ...]:
    """Return every key and section of a recipe, in the order of the schema, a section before its keys."""
    schema = Recipe.model_json_schema()
    keys = list(_keys(schema, schema["$defs"], ""))
    keys.insert([key.name for key in keys].index("model") + 1, BASE)
    return tuple(keys)


@cache
def keys_by_name() -> dict[str, Key]:
    """Return the keys and sections of `recipe_keys` by their dotted names."""
    return {key.name: key for key in recipe_keys()}


def unknown_key(path: KeyPath) -> str:
    """Return an explanation why a key is unknown to the schema, or an empty string when it is known."""
    name, known = ".".join(path), keys_by_name()
    if name in known and not any("." in word for word in path):
        return ""
    if name in known:
        return f"unknown key {path[-1]!r}: write it nested, {': {'.join(path[-1].split('.'))}: ..."
    for end in range(len(path) - 1, 0, -1):
        around = known.get(".".join(path[:end]))
        if around and around.kind != "section":
            return f"unknown key {name}: {around.name} holds one value ({around.type}), not a section"
    return f"unknown key {name}{nearest_keys(name)}"


def nearest_keys(wrong: str, most: int = 3) -> str:
    """Return `"; did you mean a.b, c.b?"`, or an empty string when no key is like `wrong` or ends like it."""
    scores = {name: _likeness(wrong.lower(), name) for name in keys_by_name()}
    best = max(scores.values())
    near = [name for name in scores if scores[name] >= max(_LIKE, best - 0.2)]
    near.sort(key=lambda name: -scores[name])
    return f"; did you mean {', '.join(near[:most])}?" if near else ""


def _likeness(wrong: str, name: str) -> float:
    """Return the likeness, from 0 to 1, of a key and the text written; the last word of the key counts twice."""
    wrong_word, word = wrong.rpartition(".")[2], name.rpartition(".")[2]
    shared = not {*wrong_word.split("_")}.isdisjoint(word.split("_"))
    words = max(_ratio(wrong_word, word), 0.8 if shared else 0.0)
    whole = _ratio(wrong, name)
    return (whole + 2 * words) / 3 if words >= 0.75 else min(whole, words)


def _ratio(left: str, right: str) -> float:
    return difflib.SequenceMatcher(None, left, right).ratio()


def _keys(section: dict[str, Any], definitions: dict[str, Any], prefix: str) -> Iterator[Key]:
    required = section.get("required", ())
    for word, field in section["properties"].items():
        variants = field.get("anyOf", [field])
        nullable = {"type": "null"} in variants
        main = next(variant for variant in variants if variant != {"type": "null"})
        below = definitions[main["$ref"].rpartition("/")[2]] if "$ref" in main else None
        kind = "section" if below else main["type"]
        yield Key(
            name=prefix + word,
            kind=kind,
            type=_words(main) + (", or null" if nullable else ""),
            nullable=nullable,
            options=tuple(main.get("enum", ())),
            default=None if word in required else _default(field.get("default"), kind),
            description=field.get("description") or (below or {})["description"],
        )
        if below:
            yield from _keys(below, definitions, f"{prefix}{word}.")


def _default(value: object, kind: str) -> str:
    return "" if kind == "section" and value is not None else dump_value(value)


def _words(schema: dict[str, Any]) -> str:
    """Return the type that a JSON schema describes, in plain words: `whole number, at least 1`."""
    if "$ref" in schema:
        return "section"
    if "enum" in schema:
        return f"one of {', '.join(schema['enum'])}"
    if schema["type"] == "array":
        items = schema["items"].get("type", "section").replace("string", "text")
        return f"list of {items}s" + _bounds(schema)
    plain = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
    return plain[schema["type"]] + _bounds(schema)


def _bounds(schema: dict[str, Any]) -> str:
    words = {
        "minimum": "at least {:g}",
        "exclusiveMinimum": "above {:g}",
        "maximum": "at most {:g}",
        "exclusiveMaximum": "below {:g}",
        "minItems": "at least {:g}",
        "minLength": "at least {:g} character",
    }
    return "".join(", " + text.format(schema[bound]) for bound, text in words.items() if bound in schema)
