"""Datasets that mtdata knows (https://github.com/thammegowda/mtdata), downloaded by it from where they are published.

mtdata runs as a program: its requirements need not go with ours, so it may live in an environment of its own.
`mtdata echo` writes a dataset as lines, with a tab between the sides, whatever form it was published in.
"""

import os
import re
import shutil
import sys
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path

from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_obtain import MtdataSets
from nmt.corpora.obtain import client
from nmt.corpora.obtain.cache import FORMAT, Download, Obtained, Watch, corpus_folder
from nmt.corpora.obtain.contents import file_sha256
from nmt.corpora.obtain.kind import FetchedKind, Scratch
from nmt.errors import UserError
from nmt.files import cache_dir

EXTRA = "pip install 'nmt-moe[mtdata]', or pipx install mtdata"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_BLOCK = 1 << 20
# Exceptions of requests, mtdata's HTTP library, when a server cannot be reached.
_UNREACHABLE = re.compile(r"(?:ConnectionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError)\b.*?host='([^']+)'")
# Runs one at a time: the first one makes an index, and all share a folder of originals.
_alone = threading.Lock()


@dataclass(frozen=True)
class MtdataDownload(Download):
    """One dataset, kept as GROUP-NAME-VERSION.tsv (of one language: .txt) in a folder named after its languages."""

    dataset: str

    def _fetch(self, temporary: Path, watch: Watch) -> Obtained:
        program = find_mtdata(self.corpus)
        environment = {"MTDATA": os.environ.get("MTDATA") or str(cache_dir("mtdata"))}
        lines = temporary / "lines"
        with _alone:
            version = client.run_client([program, "--version"], environment)[1].split()[1:2]
            command = [program, "-no-pb", "-ll", "WARNING", "echo", self.dataset]
            with lines.open("wb") as file:
                status, _, messages = client.run_client(
                    command, environment, temporary, lambda: watch(client.largest_file_bytes(temporary)), file
                )
        if status:
            raise self._failure(messages, status)
        if not (size := lines.stat().st_size):
            raise UserError(f"corpus {self.corpus}: mtdata gave no text of {self.dataset}")
        watch(size)
        with zipfile.ZipFile(packed := temporary / "packed.zip", "w") as archive:
            entry = zipfile.ZipInfo(member_name(self.dataset), _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            with lines.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, _BLOCK)
        found = file_sha256(lines), size
        return self.keep(packed, f"mtdata {self.dataset}", "".join(version), found)

    def _failure(self, messages: str, status: int) -> UserError:
        """Return the error that explains why mtdata failed, and the remedy."""
        self.check_room()
        last = [line for line in messages.splitlines() if line.strip()][-1:] or [f"exit status {status}"]
        if found := _UNREACHABLE.search(messages):
            reason = f"{found[1]} cannot be reached; check the network"
        elif last[0].strip() == "AssertionError" and "in INDEX" in messages:
            reason = "mtdata does not know it; `mtdata list -id` has what it knows"
        elif "No space left on device" in messages:
            return self.no_room()
        else:
            reason = f"mtdata: {last[0].strip()[: client.LONGEST_REASON]}"
        return UserError(f"cannot fetch {self.dataset} of corpus {self.corpus}: {reason}")


def find_mtdata(corpus: str) -> str:
    """Return the program: that of this environment, else the first on the path.

    Raises:
      UserError: it is not installed.
    """
    beside = shutil.which("mtdata", path=str(Path(sys.executable).parent))
    if (found := beside or shutil.which("mtdata")) is None:
        raise UserError(f"corpus {corpus} is fetched with mtdata, which is not installed: {EXTRA}")
    return found


def member_name(dataset: str) -> str:
    """Return the path of a dataset in the archive: deu-eng/Statmt-news_commentary-16.tsv."""
    group, name, version, *languages = dataset.split("-")
    ending = "tsv" if len(languages) > 1 else "txt"
    return f"{'-'.join(languages)}/{group}-{name}-{version}.{ending}"


class MtdataKind(FetchedKind):
    """Datasets that mtdata knows."""

    section = MtdataSets

    def origin(self, spec: CorpusSpec) -> str:
        """Return the first dataset, and how many more there are."""
        first, *others = _datasets(spec).datasets
        return f"mtdata {first}" + (f" and {len(others)} more" if others else "")

    def plan(self, spec: CorpusSpec, scratch: Scratch) -> list[MtdataDownload]:
        """Return the downloads of a corpus's datasets, one each."""
        find_mtdata(spec.name)
        obtain, folder = _datasets(spec), corpus_folder(spec)
        size = max(1, obtain.bytes // len(obtain.datasets))
        return [MtdataDownload(spec.name, one, folder / f"{one}-{FORMAT}.zip", size, one) for one in obtain.datasets]


def _datasets(spec: CorpusSpec) -> MtdataSets:
    assert isinstance(spec.obtain, MtdataSets)
    return spec.obtain
