"""Corpora: from a declaration in data/ to cleaned pairs in splits that share nothing.

`load_pairs` does it all. The folders, each of which imports only from those after it:

| folder or module | what is in it |
|---|---|
| `overview` | the list of all corpora, for `nmt-data list` |
| `cleaned` | cleaned corpora on disk: made from rows (`load`, `build`, `sieve`, `resolve`), read, counted, exported |
| `counts` | how much a corpus holds before cleaning |
| `opening` | corpora by name, obtained and opened for reading |
| `obtain` | files that are fetched, or found where a person has them; one module a kind |
| `clean` | the checks of a text and of a pair, normal forms, overlap with held-out text |
| `readers` | rows from files; one module a form |
| `declare` | a declaration, data/NAME.yaml |
"""

from nmt.corpora.cleaned.corpus import Corpus
from nmt.corpora.cleaned.load import inputs_digest, load_pairs
from nmt.corpora.declare.spec import CorpusSpec, MixtureSpec, load_declaration, load_spec, load_specs
from nmt.corpora.declare.spec_split import SPLITS, Split
from nmt.corpora.opening import Corpora, open_corpora, open_corpus
from nmt.corpora.readers.reader import CorpusReader, FileProvenance, Row

__all__ = [
    "SPLITS",
    "Corpora",
    "Corpus",
    "CorpusReader",
    "CorpusSpec",
    "FileProvenance",
    "MixtureSpec",
    "Row",
    "Split",
    "inputs_digest",
    "load_declaration",
    "load_pairs",
    "load_spec",
    "load_specs",
    "open_corpora",
    "open_corpus",
]
