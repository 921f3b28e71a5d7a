"""The table of the kinds of reading, by the `read.kind` of a declaration.

Another kind is a module of this folder with a subclass of `CorpusReader`, a section in the union of
nmt/corpora/declare/spec_read.py, a line here, and an entry in tests/corpora/test_reader_contract.py, which holds every
reader to the same promises.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nmt.config import Section
from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_read import (
    AnyPairs,
    Descriptions,
    Gettext,
    HtmlTables,
    JsonTables,
    ParallelText,
    PlainText,
    Read,
    Sqlite,
    TfdsDataset,
)
from nmt.corpora.declare.spec_read_columns import Arrow, Csv, Json, Jsonl, Parquet, Tsv
from nmt.corpora.declare.spec_read_links import OpusXml, Tatoeba
from nmt.corpora.declare.spec_read_testsets import Wmt
from nmt.corpora.declare.spec_read_units import Localisation, Tbx, Tmx, Xliff
from nmt.corpora.readers.any import resolve_pairs
from nmt.corpora.readers.arrow import ArrowReader, resolve_folders
from nmt.corpora.readers.csv import CsvReader
from nmt.corpora.readers.ddtp import DdtpReader
from nmt.corpora.readers.gettext import open_gettext
from nmt.corpora.readers.html import HtmlReader
from nmt.corpora.readers.json import JsonReader
from nmt.corpora.readers.json_tables import JsonTablesReader
from nmt.corpora.readers.jsonl import JsonlReader
from nmt.corpora.readers.localisation import open_localisation
from nmt.corpora.readers.opus_xml import OpusXmlReader
from nmt.corpora.readers.parallel_text import ParallelTextReader
from nmt.corpora.readers.parquet import ParquetReader
from nmt.corpora.readers.reader import CorpusReader
from nmt.corpora.readers.sqlite import SqliteReader
from nmt.corpora.readers.tatoeba import TatoebaReader
from nmt.corpora.readers.tbx import TbxReader
from nmt.corpora.readers.text import TextReader
from nmt.corpora.readers.tfds import TfdsReader, dataset_files, default_folder
from nmt.corpora.readers.tmx import TmxReader
from nmt.corpora.readers.tree import Tree
from nmt.corpora.readers.tsv import TsvReader
from nmt.corpora.readers.wmt import WmtReader
from nmt.corpora.readers.xliff import XliffReader
from nmt.errors import UserError

Patterns = tuple[str, ...]


def _same(pattern: str) -> str:
    return pattern


def _working_directory() -> str:
    return ""


@dataclass(frozen=True)
class ReaderKind:
    """A kind of reading.

    Attributes:
      section: the section of a declaration that has this `kind`.
      reader: opens a corpus, given the declaration, its section, the files, and the patterns that they fit; None: the
        kind stands for others, and `resolve` says for which.
      resolve: returns the section and the patterns by which a person's own files are read, given those of the
        declaration.
      files: returns the pattern of all files of a corpus that a person has, given one of the declaration.
      default_folder: returns the folder of a person's files where the declaration names none; empty: the working
        directory.
    """

    section: type[Section]
    reader: Callable[[CorpusSpec, Any, Tree, Patterns], CorpusReader] | None
    resolve: Callable[[CorpusSpec, Any, Patterns], tuple[Read, Patterns]] | None = None
    files: Callable[[str], str] = _same
    default_folder: Callable[[], str] = _working_directory


READER_KINDS: dict[str, ReaderKind] = {
    "json_tables": ReaderKind(JsonTables, JsonTablesReader),
    "gettext": ReaderKind(Gettext, open_gettext),
    "html": ReaderKind(HtmlTables, HtmlReader),
    "ddtp": ReaderKind(Descriptions, DdtpReader),
    "sqlite": ReaderKind(Sqlite, SqliteReader),
    "parallel_text": ReaderKind(ParallelText, ParallelTextReader),
    "text": ReaderKind(PlainText, TextReader),
    "tsv": ReaderKind(Tsv, TsvReader),
    "csv": ReaderKind(Csv, CsvReader),
    "jsonl": ReaderKind(Jsonl, JsonlReader),
    "json": ReaderKind(Json, JsonReader),
    "parquet": ReaderKind(Parquet, ParquetReader),
    "arrow": ReaderKind(Arrow, ArrowReader, resolve=resolve_folders),
    "tfds": ReaderKind(TfdsDataset, TfdsReader, files=dataset_files, default_folder=default_folder),
    "tmx": ReaderKind(Tmx, TmxReader),
    "xliff": ReaderKind(Xliff, XliffReader),
    "tbx": ReaderKind(Tbx, TbxReader),
    "localisation": ReaderKind(Localisation, open_localisation),
    "opus_xml": ReaderKind(OpusXml, OpusXmlReader),
    "tatoeba": ReaderKind(Tatoeba, TatoebaReader),
    "wmt": ReaderKind(Wmt, WmtReader),
    "any": ReaderKind(AnyPairs, None, resolve=resolve_pairs),
}


def resolve_reading(spec: CorpusSpec, patterns: Patterns) -> tuple[Read, Patterns]:
    """Return the section and the patterns by which a corpus is read.

    Args:
      spec: the declaration.
      patterns: those of its section, without variables.

    Raises:
      UserError: the patterns do not say which kind they are of.
    """
    kind = READER_KINDS[spec.read.kind]
    return (spec.read, patterns) if kind.resolve is None else kind.resolve(spec, spec.read, patterns)


def open_files(spec: CorpusSpec, read: Read, tree: Tree, patterns: Patterns) -> CorpusReader:
    """Return the open corpus of some files; they are closed with it, or now if it cannot be opened.

    Args:
      spec: the declaration.
      read: the section by which it is read.
      tree: the files.
      patterns: those that the files fit, without variables.

    Raises:
      UserError: the kind does not go with how the corpus is obtained, or no file fits.
    """
    try:
        if (reader := READER_KINDS[read.kind].reader) is None:
            raise UserError(
                f"corpus {spec.name}: read.kind: {read.kind} does not go with obtain.kind: {spec.obtain.kind}"
            )
        tree.declared = frozenset(spec.languages)
        opened = reader(spec, read, tree, patterns)
    except UserError as error:
        tree.close()
        if tree.damaged:
            raise UserError(f"{error}; {'; '.join(tree.damaged)}") from None
        raise
    opened.note_damaged(tree.damaged)
    return opened
