"""Identity of a corpus: the facts that determine its text, of which digests are made."""

from typing import Any

from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.obtain.kinds import has_own_files
from nmt.corpora.obtain.own import own_files
from nmt.progress import SILENT, Reporter

# To be raised whenever the same declarations and files give other pairs than before.
CODE_VERSION = 4


def corpus_identity(spec: CorpusSpec, progress: Reporter = SILENT) -> dict[str, Any]:
    """Return the facts that determine a corpus's text, as JSON: the declaration, and hashes of the person's own files.

    Args:
      spec: the declaration.
      progress: shows the hashing of large files, which happens once.

    Raises:
      UserError: the declaration's path has a variable that is not set in the environment.
    """
    found: dict[str, Any] = {}
    if has_own_files(spec):
        found = {"found": [(one.name, one.size, one.sha256 or one.modified) for one in own_files(spec, progress)]}
    return {**spec.identity(), **found}
