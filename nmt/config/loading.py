"""Loading a recipe: its YAML file over the model that it is based on, then `key=value` arguments, checked as a whole.

    models/NAME.yaml  <  recipes/NAME.yaml  <  key=value

A model's file has the keys of `model`, and under `vocab` the sizes of the vocabularies that its parameters are counted
with.

Sections merge key by key; anything else, null included, replaces. A later key inside a section that was null brings
the section back with its defaults. Every mistake is reported with the key, the file and line or the argument, and
the values that are valid.
"""

import json
import os
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from nmt.config.arguments import Given, read_arguments
from nmt.config.directions import expand_directions, expand_languages
from nmt.config.documents import Document, KeyPath, read_document
from nmt.config.keys import keys_by_name, recipe_keys, unknown_key
from nmt.config.presets import chosen_preset
from nmt.config.schema import Recipe
from nmt.config.standins import replace_unset_corpora
from nmt.errors import UserError, did_you_mean
from nmt.files import MESHES, find_declaration

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_SIZES = ("size", "target_size")  # of `vocab`, in the declaration of a model
# What runs did before there was a key for it, where the key's default is another.
_BEFORE_KEYS: dict[KeyPath, Any] = {("vocab", "normalisation"): "nfkc"}


@dataclass
class _Settings:
    """The values merged so far, and where each was given."""

    recipe: str  # the file, for mistakes that have no single place
    values: dict[str, Any] = field(default_factory=dict)
    layers: list[dict[str, Any]] = field(default_factory=list)  # all that were merged, the later over the earlier
    origins: dict[KeyPath, str] = field(default_factory=dict)

    def merge(self, document: Document, section: KeyPath = ()) -> None:
        self._add(_nested(section, document.values))
        self.origins |= {(*section, *path): f"{document.path}:{line}" for path, line in document.lines.items()}

    def set(self, arguments: Mapping[KeyPath, Given]) -> None:
        together: dict[str, Any] = {}
        for path, given in arguments.items():
            together = _merged(together, _nested(path, given.value))
            self.origins[path] = f"argument {given.argument}"
        self._add(together)

    def _add(self, layer: dict[str, Any]) -> None:
        self.layers.append(layer)
        self.values = _merged(_without(self.values, chosen_preset(_layer_moe(layer))), layer)

    def layer(self, key: str) -> int:
        """Return the number of the last layer that gave a key of `model.moe`; -1 if none did."""
        return max((number for number, layer in enumerate(self.layers) if key in _layer_moe(layer)), default=-1)

    def origin(self, path: KeyPath) -> str:
        """Return where the value at `path` was given, or the section nearest around it."""
        around = (path[:end] for end in range(len(path), 0, -1))
        return next((self.origins[part] for part in around if part in self.origins), self.recipe)


def _say_nothing(line: str) -> None:
    pass


def load_recipe(
    name_or_path: str, overrides: Sequence[str] = (), say: Callable[[str], object] = _say_nothing
) -> Recipe:
    """Return the recipe of that name (or in that YAML file) with `key=value` arguments applied.

    A corpus whose files a person has not named is replaced by the one that stands in for it (`nmt.config.standins`).

    Args:
      name_or_path: a name under recipes/, or a path ending in .yaml.
      overrides: arguments such as `train.steps=100`, `data.directions=de-en,en-de` or `model.moe=null`.
      say: called with one line for every corpus that is replaced.

    Raises:
      UserError: an unknown recipe, model or key, a wrong value, a key given twice; one line per mistake.
    """
    settings = _merge(find_declaration("recipes", name_or_path), overrides)
    recipe = _effective(_resolved(settings, lambda corpora: replace_unset_corpora(corpora, say)), settings)
    try:
        find_declaration(MESHES, recipe.mesh.preset)
    except UserError as error:
        raise UserError(f"{settings.origin(('mesh', 'preset'))}: mesh.preset: {error}") from None
    return recipe


def load_recipe_file(path: os.PathLike[str]) -> Recipe:
    """Return the recipe in the file of a run, wherever `etils.epath` reaches.

    A key that the file lacks has the value that runs had before the key was there. Unlike `load_recipe` this does
    not ask for the mesh preset, which a run may have brought from another machine, and replaces no corpus.
    """
    settings = _merge(path)
    for key, value in _BEFORE_KEYS.items():
        settings.values = _merged(_nested(key, value), settings.values)
    return _resolved(settings)


def _merge(path: os.PathLike[str], overrides: Sequence[str] = ()) -> _Settings:
    document = read_document(path)
    _check_keys(document)
    arguments = read_arguments(overrides)
    settings = _Settings(document.path, values={"name": PurePath(document.path).stem})
    if base := _base_model(document, arguments):
        model, vocabulary = _split_sections(base)
        settings.merge(model, ("model",))
        settings.merge(vocabulary, ("vocab",))
    settings.merge(document)
    settings.set(arguments)
    return settings


def _resolved(
    settings: _Settings, choose_corpora: Callable[[tuple[str, ...]], tuple[str, ...]] = lambda corpora: corpora
) -> Recipe:
    values = dict(settings.values)
    if isinstance(model := values.get("model"), dict):
        values["model"] = {key: value for key, value in model.items() if key != "base"}
    try:
        recipe = Recipe.model_validate(values, strict=True)
    except ValidationError as error:
        raise UserError("\n".join(_explain(mistake, settings) for mistake in error.errors())) from None
    data = recipe.data
    data = data.model_copy(update={"corpora": choose_corpora(data.corpora)})
    directions = expand_directions(data.directions, data.corpora)
    denoise = data.denoise.model_copy(update={"languages": expand_languages(data.denoise.languages, data.corpora)})
    return recipe.model_copy(
        update={
            "run_dir": recipe.run_dir.replace("{name}", recipe.name),
            "data": data.model_copy(update={"directions": directions, "denoise": denoise}),
        }
    )


def _effective(recipe: Recipe, settings: _Settings) -> Recipe:
    """Return the recipe without values of `model.moe` that have no effect.

    What an earlier layer set gives way to the key that takes its effect away.

    Raises:
      UserError: a value is given beside or above the key that takes its effect away.
    """
    moe = recipe.model.moe
    idle = [] if moe is None else list(moe.without_effect())
    problems = [
        f"{settings.origin(('model', 'moe', key))}: model.moe.{key} has no effect here: {why}; leave it out"
        for key, because, why in idle
        if settings.layer(key) >= max(map(settings.layer, because))
    ]
    if problems:
        raise UserError("\n".join(problems))
    if moe is None or not idle:
        return recipe
    usual = type(moe)(preset=moe.preset)
    plain = moe.model_copy(update={key: getattr(usual, key) for key, _, _ in idle})
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"moe": plain})})


def _base_model(document: Document, arguments: Mapping[KeyPath, Given]) -> Document | None:
    """Return the declaration of the model that `model.base` names, if it is given."""
    path = ("model", "base")
    if path in arguments:
        name, argument = arguments[path]
        origin = f"argument {argument}"
    elif path in document.lines:
        name, origin = document.values["model"]["base"], f"{document.path}:{document.lines[path]}"
    else:
        return None
    if name is None:
        return None
    if not isinstance(name, str):
        raise UserError(f"{origin}: model.base must be the name of a model (not {_shown(name)})")
    try:
        file = find_declaration("models", name)
    except UserError as error:
        raise UserError(f"{origin}: {error}") from None
    base = read_document(file)
    model, vocabulary = _split_sections(base)
    _check_keys(model, ("model",))
    _check_keys(vocabulary, ("vocab",))
    return base


def _split_sections(base: Document) -> tuple[Document, Document]:
    """Split a model's declaration into the values of `model` and the sizes of `vocab`.

    Raises:
      UserError: `vocab` says more than sizes.
    """
    values, sizes = dict(base.values), base.values.get("vocab", {})
    values.pop("vocab", None)
    if not isinstance(sizes, dict) or not sizes.keys() <= set(_SIZES):
        line = base.lines[("vocab",)]
        raise UserError(f"{base.path}:{line}: vocab of a model is a section of {' and '.join(_SIZES)} alone")
    lines = {path: line for path, line in base.lines.items() if path[0] != "vocab"}
    below = {path[1:]: line for path, line in base.lines.items() if path[0] == "vocab" and len(path) > 1}
    return Document(base.path, values, lines), Document(base.path, sizes, below)


def _check_keys(document: Document, section: KeyPath = ()) -> None:
    """Raise UserError when a document has keys that the schema does not know."""
    known = keys_by_name()
    problems = []
    for path, line in document.lines.items():
        around = known.get(".".join((*section, *path[:-1])))
        if len(path) > 1 and (around is None or around.kind != "section" or "." in "".join(path[:-1])):
            continue  # the mistake is the section around it, which is reported
        if problem := unknown_key((*section, *path)):
            problems.append(f"{document.path}:{line}: {problem}")
    if problems:
        raise UserError("\n".join(problems))


def _explain(mistake: "ErrorDetails", settings: _Settings) -> str:
    """Return one line with the place, the key, the value given and the value expected."""
    path = tuple(part for part in mistake["loc"] if isinstance(part, str))
    name, origin, value = ".".join(path), settings.origin(path), mistake["input"]
    key = keys_by_name().get(name)
    if mistake["type"] == "value_error" or key is None:
        message = mistake["msg"].removeprefix("Value error, ")
        if key is None or key.kind == "section":  # of several keys together, which may come from several places
            return f"{settings.recipe}, arguments included: {f'{name}: ' if name else ''}{message}"
        return f"{origin}: {message}"
    if mistake["type"] == "missing":
        needed = [key.name for key in recipe_keys() if key.default is None and key.name.startswith(f"{name}.")]
        what = f"with {' and '.join(needed)}" if needed else f"({key.description.rstrip('.')})"
        return f"{origin}: {name} is missing, {_article(key.type)} {what}"
    expected, subject = key.type, name
    if len(path) < len(mistake["loc"]):
        subject, expected = f"item {int(mistake['loc'][-1]) + 1} of {name}", "text"
    hint = did_you_mean(value, key.options) if key.options and isinstance(value, str) else ""
    if expected.startswith("text") and isinstance(value, bool | int | float):
        hint = "; text that looks like something else is to be quoted"
    return f"{origin}: {subject} must be {_article(expected)} (not {_shown(value)}{hint})"


def _article(words: str) -> str:
    return words if words.startswith(("one of", "text")) else f"a {words}"


def _shown(value: object, most: int = 60) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= most else f"{text[:most]}..."


def _nested(path: KeyPath, value: Any) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    return dict(value)


def _layer_moe(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mixture-of-experts section of a recipe's values, empty where there is none."""
    model = values.get("model")
    moe = model.get("moe") if isinstance(model, dict) else None
    return moe if isinstance(moe, dict) else {}


def _without(values: dict[str, Any], keys: Container[str]) -> dict[str, Any]:
    """Return a recipe's values without these keys of the mixture-of-experts section."""
    moe = _layer_moe(values)
    left = {key: value for key, value in moe.items() if key not in keys}
    return {**values, "model": {**values["model"], "moe": left}} if moe else values


def _merged(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `defaults` updated by `values`, section by section."""
    merged = dict(defaults)
    for key, value in values.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged
