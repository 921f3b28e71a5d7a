"""The kinds of obtaining, by the `obtain.kind` of a declaration: the one table of them."""

from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.obtain.debian import DebianKind
from nmt.corpora.obtain.descriptions import DescriptionsKind
from nmt.corpora.obtain.kind import ObtainKind
from nmt.corpora.obtain.mtdata import MtdataKind
from nmt.corpora.obtain.npm import NpmKind
from nmt.corpora.obtain.own import FilesKind
from nmt.corpora.obtain.pypi import PypiKind
from nmt.corpora.obtain.tfds import TfdsKind

OBTAIN_KINDS: dict[str, ObtainKind] = {
    "pypi": PypiKind(),
    "npm": NpmKind(),
    "debian": DebianKind(),
    "ddtp": DescriptionsKind(),
    "mtdata": MtdataKind(),
    "files": FilesKind(),
    "tfds": TfdsKind(),
}


def obtain_kind(spec: CorpusSpec) -> ObtainKind:
    """Return the kind by which a corpus is obtained."""
    return OBTAIN_KINDS[spec.obtain.kind]


def has_own_files(spec: CorpusSpec) -> bool:
    """Return whether a person has the files of a corpus, so that nothing is fetched."""
    return obtain_kind(spec).has_own_files(spec)
