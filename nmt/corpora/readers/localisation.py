"""Localisation files of programs (`read.kind: localisation`), whose form follows from the ending of their names."""

import re

from nmt.corpora.declare.patterns import MatchedPath
from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_read_units import Localisation
from nmt.corpora.readers.compressed import stem
from nmt.corpora.readers.localised_strings import FORMS
from nmt.corpora.readers.qt import QtReader
from nmt.corpora.readers.reader import CorpusReader
from nmt.corpora.readers.tables import Table, TableReader
from nmt.corpora.readers.tree import Tree
from nmt.errors import UserError

_QT = "ts"
_ANDROID_REGION = re.compile(r"([a-z]{2,3})-r([A-Z]{2}|\d{3})")
_OTHER_KINDS = {"po": "gettext", "mo": "gettext", "json": "json_tables", "xlf": "xliff", "xliff": "xliff", "tmx": "tmx"}


def open_localisation(spec: CorpusSpec, read: Localisation, tree: Tree, patterns: tuple[str, ...]) -> CorpusReader:
    """Return the open corpus of localisation files.

    Raises:
      UserError: the patterns do not say of which form the files are, or are of several; or as the readers raise.
    """
    endings = {stem(pattern).rpartition(".")[2] for pattern in patterns}
    if len(endings) > 1:
        shown = ", ".join(sorted(endings))
        raise UserError(f"corpus {spec.name}: files of several forms ({shown}) need a corpus each")
    (ending,) = endings
    if ending == _QT:
        return QtReader(spec, tree, patterns)
    if ending not in FORMS:
        known = ", ".join(f".{one}" for one in sorted((*FORMS, _QT)))
        other = f"; .{ending} is read.kind: {_OTHER_KINDS[ending]}" if ending in _OTHER_KINDS else ""
        raise UserError(f"corpus {spec.name}: {patterns[0]} ends in none of {known}{other}")
    return LocalisationReader(spec, tree, patterns, ending)


class LocalisationReader(TableReader):
    """An open corpus of localisation files, a file for each language, aligned by the keys of strings."""

    def __init__(self, spec: CorpusSpec, tree: Tree, patterns: tuple[str, ...], ending: str) -> None:
        self._form = FORMS[ending]
        super().__init__(spec, tree, patterns)

    def _code(self, found: MatchedPath) -> str:
        """Return the code of a file's language; a path without one, such as values/strings.xml, is of the key language.

        Android writes `pt-rBR` and `b+sr+Latn` for pt-BR and sr-Latn.
        """
        code = found.language or self.spec.read.key_language
        if code.startswith("b+"):
            return code.removeprefix("b+").replace("+", "-")
        return _ANDROID_REGION.sub(r"\1-\2", code)

    def _parse(self, content: bytes, name: str) -> Table:
        table: Table = {}
        for string in self._form(content):
            place = f"{name}: {' '.join(string.key)}"
            if string.left_out:
                self._skip(string.left_out, place)
            elif not string.text or string.text.isspace():
                self._skip("string without text", place)
            else:
                if string.key in table:
                    self._skip("string whose key comes again", place)
                table[string.key] = string.text
        return table
