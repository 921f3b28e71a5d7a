"""Packages of Debian and distributions derived from it, downloaded by apt-get; it needs no root and installs nothing.

apt's lists of packages are fetched into a temporary folder: those of the system may be old or, in a container, missing.
"""

import fnmatch
import re
import shutil
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_obtain import DebianPackages
from nmt.corpora.obtain import client
from nmt.corpora.obtain.cache import Download, Obtained, Watch, content_key, corpus_folder
from nmt.corpora.obtain.kind import FetchedKind, Scratch
from nmt.corpora.obtain.repack import repack
from nmt.errors import UserError

_URI = re.compile(r"^'([^']+)' (\S+) (\d+)", re.MULTILINE)
_ERROR = re.compile(r"^(?:E|Err):\d* ?(.*\S)", re.MULTILINE)


class Apt:
    """apt-get with its lists of packages in a given folder.

    Args:
      folder: new.
      what: begins messages, as `corpus NAME`.

    Raises:
      UserError: there is no apt-get.
    """

    def __init__(self, folder: Path, what: str) -> None:
        if shutil.which("apt-get") is None:
            raise UserError(f"{what} comes from Debian, and there is no apt-get here: fetch it on Debian or Ubuntu")
        self._what = what
        (folder / "lists" / "partial").mkdir(parents=True)
        (folder / "cache" / "archives" / "partial").mkdir(parents=True)
        self.lists = folder / "lists"
        self._options = [
            f"-oDir::State::Lists={folder / 'lists'}",
            f"-oDir::Cache={folder / 'cache'}",
            "-oAcquire::GzipIndexes=false",
            "-oAcquire::Retries=2",
        ]

    def update(self, languages: Sequence[str], watch: Watch | None = None) -> Self:
        """Fetch the lists, with the descriptions of packages in some languages."""
        self._options.append(f"-oAcquire::Languages={','.join(languages) or 'none'}")
        self.run("apt-get", "update", "-q", watch=watch)
        return self

    def run(self, program: str, *arguments: str, folder: Path | None = None, watch: Watch | None = None) -> str:
        """Run a program of apt's, and return its standard output.

        Raises:
          UserError: it fails; the message has its first error.
        """
        command = [program, *self._options, *arguments]
        status, output, messages = client.run_client(
            command,
            {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
            folder,
            lambda: watch(client.all_file_bytes(folder or self.lists)) if watch else None,
        )
        if status:
            said = _ERROR.findall(messages) or _ERROR.findall(output) or [f"exit status {status}"]
            raise UserError(
                f"cannot fetch {self._what}: {program}: {said[0][: client.LONGEST_REASON]}; check the network and "
                "apt's sources (apt-get update)"
            )
        return output


@dataclass(frozen=True)
class DebianDownload(Download):
    """A package, of which those files are kept that `read` asks for."""

    package: str
    version: str
    apt: Apt
    patterns: tuple[str, ...]

    def _fetch(self, temporary: Path, watch: Watch) -> Obtained:
        (debs := temporary / "apt").mkdir()
        self.apt.run("apt-get", "download", "-q", self.package, folder=debs, watch=watch)
        if len(found := sorted(debs.glob("*.deb"))) != 1:
            raise UserError(f"corpus {self.corpus}: apt-get gave {len(found)} files instead of one for {self.package}")
        sha256 = self.check_sha256(found[0], None, "")
        size = found[0].stat().st_size
        watch(size)
        # A package may have no such file, such as a language without translations.
        repack(found, self.patterns, packed := temporary / "packed.zip", f"corpus {self.corpus}", some=False)
        return self.keep(packed, f"Debian {self.package}", self.version, (sha256, size))


class DebianKind(FetchedKind):
    """Packages of the person's Debian release, in whatever version it has."""

    section = DebianPackages
    has_versions = False

    def origin(self, spec: CorpusSpec) -> str:
        """Return the first package, and how many more there are."""
        first, *others = _packages(spec)
        return f"Debian {first}" + (f" and {len(others)} more" if others else "")

    def plan(self, spec: CorpusSpec, scratch: Scratch) -> list[DebianDownload]:
        """Return the downloads of a corpus's packages, one each; apt's lists are fetched once for all corpora.

        Raises:
          UserError: there is no apt-get, or one of the names fits no package of the person's release.
        """
        apt = _apt(spec, scratch)
        names = [name for pattern in _packages(spec) for name in _names(spec, pattern, apt)]
        listed = apt.run("apt-get", "download", "-q", "--print-uris", *dict.fromkeys(names))
        downloads = []
        for _, file, size in _URI.findall(listed):
            package, version, _ = urllib.parse.unquote(file).removesuffix(".deb").split("_", 2)
            kept = corpus_folder(spec) / f"{package}_{version.replace(':', '%3a')}-{content_key(spec)}.zip"
            title, patterns = f"{package} {version}", spec.read.patterns
            downloads.append(DebianDownload(spec.name, title, kept, int(size), package, version, apt, patterns))
        return downloads


def _packages(spec: CorpusSpec) -> tuple[str, ...]:
    assert isinstance(spec.obtain, DebianPackages)
    return spec.obtain.packages


def _apt(spec: CorpusSpec, scratch: Scratch) -> Apt:
    shared = scratch.shared.get("apt")
    if shared is None:
        shared = scratch.shared["apt"] = Apt(scratch.folder("apt") / "apt", f"corpus {spec.name}").update(())
    assert isinstance(shared, Apt)
    return shared


def _names(spec: CorpusSpec, pattern: str, apt: Apt) -> list[str]:
    known = apt.run("apt-cache", "pkgnames", pattern.split("*")[0]).split()
    if not (fitting := sorted(fnmatch.filter(known, pattern))):
        raise UserError(f"corpus {spec.name}: the release that apt knows has no package {pattern}")
    return fitting
