"""Descriptions of Debian packages and their translations (DDTP), as apt-get update fetches them.

The index of a language is a list of stanzas in no useful order. They are divided by the first letter of the package's
name, and sorted, so that two languages can be aligned letter by letter, in little memory.
"""

import hashlib
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_obtain import DebianDescriptions
from nmt.corpora.obtain.cache import Download, Obtained, Watch, content_key, corpus_folder
from nmt.corpora.obtain.debian import Apt
from nmt.corpora.obtain.kind import FetchedKind, Scratch
from nmt.corpora.obtain.repack import add_member
from nmt.errors import UserError

_PACKAGE = re.compile(r"^Package: (\S+)", re.MULTILINE)


@dataclass(frozen=True)
class DescriptionsDownload(Download):
    """All indexes of a release, kept as members LETTER/LANGUAGE.txt."""

    obtain: DebianDescriptions

    def _fetch(self, temporary: Path, watch: Watch) -> Obtained:
        what = f"corpus {self.corpus}"
        (folder := temporary / "apt").mkdir()
        apt = Apt(folder, what).update(self.obtain.languages, watch)
        indexes = _indexes(apt)
        if len(indexes) < 2:
            raise UserError(f"{what}: apt's sources have no translated descriptions (Translation-de and the like)")
        digest, size, version = hashlib.sha256(), 0, ""
        packed = temporary / "packed.zip"
        with zipfile.ZipFile(packed, "w") as zipped:
            for language, files in sorted(indexes.items()):
                letters: dict[str, list[str]] = defaultdict(list)
                for codename, file in files:
                    content = file.read_bytes()
                    digest.update(content)
                    size += len(content)
                    version = version or codename
                    for package, stanza in _stanzas(content.decode("utf-8", "replace")):
                        letters[_letter(package)].append(stanza)
                for letter, stanzas in sorted(letters.items()):
                    add_member(zipped, f"{letter}/{language}.txt", "\n\n".join(sorted(stanzas)).encode())
        watch(self.bytes)
        return self.keep(packed, "Debian package descriptions", version, (digest.hexdigest(), size))


def _indexes(apt: Apt) -> dict[str, list[tuple[str, Path]]]:
    """Return the release and file of every index that was fetched, by language."""
    form = "--format=$(LANGUAGE)\t$(CODENAME)\t$(FILENAME)"
    found: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for line in apt.run("apt-get", "indextargets", form, "Created-By: Translations").splitlines():
        language, codename, name = line.split("\t")
        if (file := Path(name)).is_file():
            found[language].append((codename, file))
    return {language: sorted(files) for language, files in found.items()}


def _stanzas(text: str) -> Iterator[tuple[str, str]]:
    for stanza in text.split("\n\n"):
        if package := _PACKAGE.search(stanza):
            yield package[1], stanza.strip("\n")


def _letter(package: str) -> str:
    """Return the folder of a package as in Debian's pool: its first letter, or lib and one letter more."""
    return package[:4] if package.startswith("lib") and len(package) > 3 else package[:1]


class DescriptionsKind(FetchedKind):
    """Descriptions of the packages of a Debian release."""

    section = DebianDescriptions
    has_versions = False

    def origin(self, spec: CorpusSpec) -> str:
        """Return the name of the collection."""
        return "Debian package descriptions"

    def plan(self, spec: CorpusSpec, scratch: Scratch) -> list[DescriptionsDownload]:
        """Return the one download of all languages."""
        obtain = spec.obtain
        assert isinstance(obtain, DebianDescriptions)
        path = corpus_folder(spec) / f"descriptions-{content_key(spec)}.zip"
        title = f"package descriptions in {len(obtain.languages)} languages"
        return [DescriptionsDownload(spec.name, title, path, obtain.bytes, obtain)]
