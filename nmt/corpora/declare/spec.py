"""The schema of a declaration (data/NAME.yaml): a corpus with its source, form and splits, or a mixture of corpora."""

import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Self, get_args

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from nmt.config import Section
from nmt.config.documents import Document, read_document
from nmt.corpora.declare.spec_obtain import MtdataSets, Obtain, TfdsData
from nmt.corpora.declare.spec_read import Read
from nmt.corpora.declare.spec_split import FORMS, NOTHING_HELD_OUT, SplitRule
from nmt.errors import UserError, did_you_mean
from nmt.files import find_declaration

_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+!-]*$")]


def _compiles(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from None
    return text


_Regex = Annotated[str, AfterValidator(_compiles)]
# What the kind of a section is called in the place of an error, and a person has not written there.
_TAGS = {"obtain": "kind", "read": "kind", "split": "by"}


class CorpusSpec(Section):
    """A corpus: one file data/NAME.yaml.

    Another way to obtain or to read corpora is one more section in `spec_obtain` or `spec_read`, with a `kind` of its
    own, and a line in the table of nmt/corpora/obtain/kinds.py or nmt/corpora/readers/kinds.py.
    """

    name: _Name = Field(description="Name of the corpus.")
    licence: str = Field(min_length=1, description="SPDX identifier of the text's licence.")
    homepage: str = Field("", description="Where the corpus is described.")
    description: str = Field("", description="What kind of text it is, and how much.")
    obtain: Obtain = Field(description="Where the corpus comes from.")
    read: Read = Field(description="How the corpus is read.")
    languages: dict[str, str | None] = Field(
        {},
        description="Language of a code that the corpus uses, where the registry does not know it or takes it for "
        "another; null: not used. Codes that are not listed go through the registry.",
    )
    replace: dict[_Regex, str] = Field(
        {},
        description="What is replaced in every text before it is cleaned: regular expressions, in order, and what "
        "stands in place of what they match, such as references in a text of verses.",
    )
    covers: tuple[str, ...] = Field(
        (), description="Languages that *-en among data.directions stands for, such as those with enough text."
    )
    instead: str | None = Field(
        None,
        description="Corpus or mixture that recipes learn from, with the languages that it covers, while a variable of "
        "the environment in the paths of this one is not set. Null: the variable must be set.",
    )
    domain: _Name | None = Field(
        None, description="Kind of text, such as legal, that data.domain_tags marks sources with in training."
    )
    synthetic: bool = Field(
        False,
        description="A model made the text of all languages but the key language (back-translation): its pairs train "
        "directions into the key language only, and <bt> follows the tag of their sources.",
    )
    monolingual: bool = Field(
        False,
        description="Every text stands for itself, whatever it is a translation of: data.denoise learns from it. "
        "Nothing of it is held out, so there is no `split`.",
    )
    split: SplitRule = Field(description="How rows are held out.")

    @model_validator(mode="before")
    @classmethod
    def _expand_mtdata(cls, values: Any) -> Any:
        """Spell out `obtain: {mtdata: [...]}`, and how its files are read."""
        obtain = values.get("obtain") if isinstance(values, dict) else None
        if not isinstance(obtain, dict):
            return values
        if "mtdata" in obtain and "kind" not in obtain:
            others = {key: value for key, value in obtain.items() if key != "mtdata"}
            values = {**values, "obtain": {"kind": "mtdata", "datasets": obtain["mtdata"], **others}}
        if values["obtain"].get("kind") == "mtdata" and "read" not in values:
            pairs = {"kind": "tsv", "files": "{source}-{target}/{component}.tsv"}
            alone = {"kind": "text", "files": "{language}/{component}.txt"}
            values = {**values, "read": alone if values.get("monolingual") else pairs}
        return values

    @model_validator(mode="before")
    @classmethod
    def _read_prepared(cls, values: Any) -> Any:
        """Let `read` of `obtain: {kind: tfds, name: NAME}` be left out, or its `files`."""
        obtain = values.get("obtain") if isinstance(values, dict) else None
        if not (isinstance(obtain, dict) and obtain.get("kind") == "tfds" and obtain.get("name")):
            return values
        read = values.get("read", {"kind": "tfds"})
        if isinstance(read, dict) and "files" not in read:
            try:
                return {**values, "read": {**read, "files": TfdsData.model_validate(obtain).dataset}}
            except ValidationError:
                return values  # the section's own check tells it with its place
        return values

    @model_validator(mode="after")
    def _languages_of_mtdata(self) -> Self:
        if isinstance(self.obtain, MtdataSets):
            for dataset in self.obtain.datasets:
                if (dataset.count("-") == 3) != self.monolingual:
                    which = "one language: say monolingual: true" if dataset.count("-") == 3 else "two languages"
                    raise ValueError(f"obtain.mtdata: {dataset} is of {which}")
        return self

    @model_validator(mode="before")
    @classmethod
    def _alone(cls, values: Any) -> Any:
        if not (isinstance(values, dict) and values.get("monolingual") is True):
            return values
        if values.get("synthetic"):
            raise ValueError("monolingual: true has no translations that could be synthetic")
        if values.get("split") not in (None, NOTHING_HELD_OUT):
            raise ValueError("monolingual: true is text for training only: leave split out")
        return {**values, "split": NOTHING_HELD_OUT}

    @model_validator(mode="after")
    def _read_alone(self) -> Self:
        kind, texts = self.read.kind, self.read.texts
        if texts == "single" and not self.monolingual:
            raise ValueError(f"read.kind: {kind} has no translations: say monolingual: true")
        if texts == "pairs" and self.monolingual:
            raise ValueError(f"read.kind: {kind} is of pairs: monolingual text by lines is read.kind: text")
        return self

    def identity(self) -> dict[str, Any]:
        """Return the keys that determine the text: the declaration, as it is written, without its descriptive keys."""
        keys = {"name", "obtain", "read", "languages", "replace", "synthetic", "monolingual"}
        declared = self.model_dump(mode="json", include=keys, exclude_unset=True)
        if isinstance(self.obtain, TfdsData):
            declared["obtain"].pop("data_dir", None)  # a place, not a text
        return {"languages": {}, **declared, "split": self.split.identity()}


class MixtureSpec(Section):
    """A mixture of corpora: a data/NAME.yaml that names others."""

    name: _Name = Field(description="Name of the mixture.")
    description: str = Field("", description="What it is for, and how much text it has.")
    mixture: tuple[str, ...] = Field(
        min_length=1, description="Corpora or mixtures; where they share texts, the first one has them."
    )
    covers: tuple[str, ...] = Field(
        (), description="Languages that *-en among data.directions stands for. Empty: those of the parts."
    )


def load_spec(name: str) -> CorpusSpec:
    """Return the declaration of one corpus, by name (of data/NAME.yaml) or by path.

    Raises:
      UserError: there is none, it is wrong (the message has the file and the key), or it is a mixture.
    """
    declaration = load_declaration(name)
    if isinstance(declaration, MixtureSpec):
        raise UserError(f"{name} is a mixture of corpora ({', '.join(declaration.mixture)}); name one of them")
    return declaration


def load_specs(names: Iterable[str]) -> list[CorpusSpec]:
    """Return the declarations of corpora and of the parts of mixtures, each corpus once, in order.

    Raises:
      UserError: as `load_spec`, two corpora share a name, or a mixture is part of itself.
    """
    found: dict[str, CorpusSpec] = {}
    for spec in _corpora(names, ()):
        if found.setdefault(spec.name, spec) != spec:
            raise UserError(f"two different corpora are called {spec.name}; give one of them another name")
    return list(found.values())


def load_declaration(name: str) -> CorpusSpec | MixtureSpec:
    """Return the declaration of a corpus or mixture, by name (of data/NAME.yaml) or by path.

    Raises:
      UserError: there is none, or it is wrong; the message has the file and the key.
    """
    document = read_document(find_declaration("data", name))
    kind: type[CorpusSpec] | type[MixtureSpec] = MixtureSpec if "mixture" in document.values else CorpusSpec
    try:
        return kind.model_validate(document.values)
    except ValidationError as error:
        raise UserError("; ".join(_explain(one, document, kind) for one in error.errors())) from None


def _corpora(names: Iterable[str], within: tuple[str, ...]) -> Iterator[CorpusSpec]:
    for name in names:
        if name in within:
            raise UserError(f"mixture {name} is part of itself ({' has '.join((*within, name))})")
        declaration = load_declaration(name)
        if isinstance(declaration, MixtureSpec):
            yield from _corpora(declaration.mixture, (*within, name))
        else:
            yield declaration


def _explain(error: ErrorDetails, document: Document, kind: type[Section]) -> str:
    path = tuple(str(part) for part in error["loc"])
    if path and path[0] in _TAGS:
        tagged = document.values.get(path[0])
        if len(path) > 1 and isinstance(tagged, dict) and path[1] in (tagged.get(_TAGS[path[0]]), "hash"):
            path = (path[0], *path[2:])
        if error["type"] in ("union_tag_invalid", "union_tag_not_found") and isinstance(tagged, dict):
            path = (*path, _TAGS[path[0]])
    key = ".".join(path) or "the corpus"
    while path and path not in document.lines:
        path = path[:-1]
    where = f"{document.path}:{document.lines.get(path, 1)}"
    match error["type"]:
        case "extra_forbidden":
            return f"{where}: unknown key {key}{_known_keys(key, document, kind)}"
        case "missing" | "union_tag_not_found":
            return f"{where}: key {key} is missing" + (f"; {FORMS}" if key == "split" else "")
        case "union_tag_invalid":
            return f"{where}: {key}: Input should be {error['ctx']['expected_tags']}, not {error['ctx']['tag']!r}"
        case "dict_type" | "model_attributes_type":
            return f"{where}: {key}: names with values are needed, as in {key.rpartition('.')[2]}: {{NAME: VALUE}}"
        case "value_error":
            return f"{where}: {key}: {error['ctx']['error']}"
    return f"{where}: {key}: {error['msg']}, not {error['input']!r}"


def _known_keys(key: str, document: Document, kind: type[Section]) -> str:
    """Return the end of a message on an unknown key: the nearest keys, of a section with kinds those that its kind has.

    A key of another kind is said to be one.
    """
    name, _, rest = key.partition(".")
    tagged = document.values.get(name)
    if name not in _TAGS or not isinstance(tagged, dict):
        return did_you_mean(key, [one for one in _keys(kind) if one != key])
    tag, chosen = _TAGS[name], tagged.get(_TAGS[name])
    sections = {str(value): one for one in _tagged(kind, name) for value in get_args(one.model_fields[tag].annotation)}
    others = sorted(other for other, section in sections.items() if rest in section.model_fields)
    if str(chosen) not in sections:
        return ""
    known = sections[str(chosen)].model_fields
    shown = f"{chosen} has {', '.join(one for one in known if one != tag)}"
    if others:
        return f"; it is a key of {name}.{tag}: {', '.join(others)}, and {shown}"
    return did_you_mean(rest, known) or f"; {name}.{tag}: {shown}"


def _tagged(kind: type[Section], name: str) -> Iterator[type[Section]]:
    tag = _TAGS[name]
    return (one for one in _sections(kind.model_fields[name].annotation) if tag in one.model_fields)


def _keys(section: type[Section], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, field in section.model_fields.items():
        keys.append(prefix + name)
        for part in _sections(field.annotation):
            keys += _keys(part, f"{prefix}{name}.")
    return list(dict.fromkeys(keys))


def _sections(annotation: Any) -> Iterator[type[Section]]:
    """Yield the sections of an annotation, which may be a union of them."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)
