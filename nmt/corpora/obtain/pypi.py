"""A file of a Python package, downloaded by pip."""

import errno
import importlib.util
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_obtain import PypiPackage
from nmt.corpora.obtain import client
from nmt.corpora.obtain.cache import Download, Obtained, Watch, content_key, corpus_folder, explain_unusable, megabytes
from nmt.corpora.obtain.contents import known_sha256
from nmt.corpora.obtain.kind import FetchedKind, Scratch
from nmt.corpora.obtain.repack import repack
from nmt.errors import UserError

# A wheel is only read here, so it may require a newer Python than the one that runs this.
PYTHON_VERSION = "3.14"
# These override settings of the person that would forbid a download outside an environment, or hide its messages.
ENVIRONMENT = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_QUIET": "0"}
# Message of pip -vv about an index that it skips; an answer of 404 only means that the index lacks the package.
_SKIPPED = re.compile(r"Could not fetch URL (\S+): (?!404 )(.*) - skipping")
_ERROR = re.compile(r"^(?:ERROR:|×) (.*?)\.?$", re.MULTILINE)


@dataclass(frozen=True)
class PypiDownload(Download):
    """A wheel, kept as it is, or a source distribution, of which those files are kept that `read` asks for."""

    package: PypiPackage
    patterns: tuple[str, ...]

    def _fetch(self, temporary: Path, watch: Watch) -> Obtained:
        package = self.package
        downloaded = self._download(temporary, watch)
        sha256 = self.check_sha256(
            downloaded, package.sha256, f"the package index served another {package.file}, which was not kept"
        )
        source, size = f"PyPI {package.package}", downloaded.stat().st_size
        if package.file.endswith(".whl"):
            downloaded.replace(self.path)
            return Obtained(self.path, source, package.version, sha256, size)
        repack([downloaded], self.patterns, packed := temporary / "packed.zip", f"corpus {self.corpus}")
        return self.keep(packed, source, package.version, (sha256, size))

    def _download(self, temporary: Path, watch: Watch) -> Path:
        """Let pip download the file into `temporary`; the size of pip's temporary files there is its progress."""
        (working := temporary / "pip").mkdir()
        package = self.package
        command = [*self._pip(), "download", f"{package.package}=={package.version}", f"--dest={temporary}"]
        command += ["--no-deps", "--progress-bar=off", "--no-color", "-vv"]
        if package.file.endswith(".whl"):
            command += ["--only-binary=:all:", f"--python-version={PYTHON_VERSION}"]
        else:
            command += ["--no-binary=:all:"]
        status, output, messages = client.run_client(
            command, {**ENVIRONMENT, "TMPDIR": str(working)}, poll=lambda: watch(client.largest_file_bytes(temporary))
        )
        if status:
            raise self._failure(output + messages, status)
        if not (downloaded := temporary / package.file).is_file():
            others = ", ".join(sorted(entry.name for entry in temporary.iterdir() if entry != working)) or "nothing"
            raise UserError(f"corpus {self.corpus}: the package index served {others} instead of {package.file}")
        watch(package.bytes)
        return downloaded

    def _pip(self) -> list[str]:
        if importlib.util.find_spec("pip"):
            return [sys.executable, "-m", "pip"]
        if command := shutil.which("pip") or shutil.which("pip3"):
            return [command]
        raise UserError(
            f"corpus {self.corpus} is fetched with pip, which is not installed: python -m ensurepip, "
            "or uv pip install pip"
        )

    def _failure(self, messages: str, status: int) -> UserError:
        """Return the error that explains why pip failed, and the remedy."""
        package = self.package
        self.check_room()
        if f"[Errno {errno.ENOSPC}]" in messages:
            return self.no_room()
        if "No matching distribution found" not in messages:
            reason = f"pip: {[f'exit status {status}', *_ERROR.findall(messages)][-1][: client.LONGEST_REASON]}"
        elif skipped := _SKIPPED.search(messages):
            reason = f"{skipped[1]} cannot be reached ({skipped[2][: client.LONGEST_REASON]})"
        else:
            reason = "the package index does not have this version"
        place = f", or put {package.file} ({megabytes(package.bytes)} MB) at {self.path}"
        return UserError(
            f"cannot fetch corpus {self.corpus} ({package.package} {package.version}): {reason}; check the network and "
            f"pip's index (pip config set global.index-url URL){place if package.file.endswith('.whl') else ''}"
        )


class PypiKind(FetchedKind):
    """Python packages. A wheel is cached as published, so the declaration's SHA-256 identifies it without an index."""

    section = PypiPackage

    def origin(self, spec: CorpusSpec) -> str:
        """Return package and version."""
        package = _package(spec)
        return f"PyPI {package.package} {package.version}"

    def plan(self, spec: CorpusSpec, scratch: Scratch) -> list[PypiDownload]:
        """Return the download of the one file."""
        package = _package(spec)
        name = package.file if _is_wheel(package) else f"{package.file}-{content_key(spec)}.zip"
        title = f"{package.package} {package.version}"
        return [PypiDownload(spec.name, title, corpus_folder(spec) / name, package.bytes, package, spec.read.patterns)]

    def cached(self, spec: CorpusSpec) -> tuple[Obtained, ...] | None:
        """Return the file in the cache: a wheel by its SHA-256, whoever put it there."""
        package = _package(spec)
        if not _is_wheel(package):
            return super().cached(spec)
        folder = corpus_folder(spec)
        path = folder / package.file
        with explain_unusable(folder):
            if not path.is_file():
                return None
            found = known_sha256(path)
        if found != package.sha256:
            raise UserError(
                f"corpus {spec.name}: {path} is not the pinned file; delete it to have it fetched again "
                f"(SHA-256 {found}, not {package.sha256})"
            )
        return (Obtained(path, f"PyPI {package.package}", package.version, found, package.bytes),)

    def note_fetched(self, spec: CorpusSpec, files: Sequence[Obtained]) -> None:
        """Note a source distribution; a wheel needs no note."""
        if not _is_wheel(_package(spec)):
            super().note_fetched(spec, files)


def _package(spec: CorpusSpec) -> PypiPackage:
    assert isinstance(spec.obtain, PypiPackage)
    return spec.obtain


def _is_wheel(package: PypiPackage) -> bool:
    return package.file.endswith(".whl")
