"""Corpora: from a declaration in data/ to cleaned pairs in splits that share nothing.

`load_pairs` does it all; `spec` is the declaration, `identity` what determines the text, `fetch` obtains the files,
`opening` opens a corpus for reading, `sieve` cleans rows, `resolve` deduplicates and splits, `cleaned` is the result on
disk.
"""

from nmt.corpora.cleaned.corpus import Corpus
from nmt.corpora.declare.spec import SPLITS, CorpusSpec, MixtureSpec, Split, load_declaration, load_spec, load_specs
from nmt.corpora.load import inputs_digest, load_pairs
from nmt.corpora.opening import Corpora, open_corpora, open_corpus
from nmt.corpora.readers.read import Provenance, Row, Source

__all__ = [
    "SPLITS",
    "Corpora",
    "Corpus",
    "CorpusSpec",
    "MixtureSpec",
    "Provenance",
    "Row",
    "Source",
    "Split",
    "inputs_digest",
    "load_declaration",
    "load_pairs",
    "load_spec",
    "load_specs",
    "open_corpora",
    "open_corpus",
]
