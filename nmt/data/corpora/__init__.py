"""Corpora: from a declaration in data/ to cleaned pairs in splits that share nothing.

`load_pairs` does it all; `spec` is the declaration, `fetch` obtains the file, `read` aligns its texts, `sieve` cleans
rows, `resolve` deduplicates and splits, `cleaned` is the result on disk.
"""

from nmt.data.corpora.cleaned import Corpus
from nmt.data.corpora.load import inputs_digest, load_pairs
from nmt.data.corpora.read import Provenance
from nmt.data.corpora.spec import SPLITS, CorpusSpec, Split, load_spec

__all__ = [
    "SPLITS",
    "Corpus",
    "CorpusSpec",
    "Provenance",
    "Split",
    "inputs_digest",
    "load_pairs",
    "load_spec",
]
