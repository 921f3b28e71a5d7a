"""Corpora: from a declaration in data/ to cleaned pairs in splits that share nothing.

`load_pairs` does it all; `spec` is the declaration, `fetch` obtains the file, `read` aligns its texts, `sieve` cleans,
deduplicates and splits.
"""

from nmt.data.corpora.load import Corpus, Provenance, inputs_digest, load_pairs
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
