"""Layouts of published test sets: which directions some files have, by their names and their first bytes.

de-en.tsv, de-en.jsonl                           a file a direction
deu_Latn.devtest, eng_Latn.devtest, ...          a file a language: every direction between them
newstest2019-src.eng.txt, newstest2019-ref.deu.txt   the same, where the name says which is the source
test.de, test.en.ref0, test.en.ref1              several references
newstest2014-deen-src.de.sgm, ...-ref.en.sgm     WMT until 2020, and IWSLT
newstest2021.en-de.xml                           WMT since 2021
test.en-am.tsv                                   TICO-19, with the languages in its lines
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from etils import epath

from nmt.corpora.readers.compressed import stem
from nmt.corpora.readers.file_names import NameParts, divide_name
from nmt.corpora.readers.files import canonical_code
from nmt.corpora.readers.wmt_text import is_wmt
from nmt.errors import UserError
from nmt.evaluate.language_files import AlignedFiles, LanguageFile, TextCache
from nmt.evaluate.pairs import PAIR_ENDINGS, TICO_COLUMNS, PairFile, PairSource, TicoFile, open_plain, pair_ending
from nmt.evaluate.wmt_files import open_wmt
from nmt.languages import Direction, parse_direction

_HEAD = 4096
_ABOUT = re.compile(r"readme|licen[cs]e|metadata|changelog|citation", re.IGNORECASE)  # names of what is no test set
_SHOWN = 6


@dataclass
class Arrangement:
    """The directions of some files, and notes on what is left out, each a line."""

    sources: dict[Direction, PairSource] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, direction: Direction, source: PairSource) -> None:
        """Add a direction. Raises UserError: other files have it as well."""
        if direction in self.sources:
            raise UserError(f"{self.sources[direction]} and {source} are both for {direction}: remove one")
        self.sources[direction] = source


def arrange_folder(paths: Iterable[epath.Path]) -> Arrangement:
    """Return the directions of the files of a folder, or of those that a pattern fits; none if it has no test set.

    Raises:
      UserError: two files are for one direction or language, the files are of several test sets, or one is not named
        after a direction or language.
    """
    found = Arrangement()
    wmt: list[epath.Path] = []
    rest: list[epath.Path] = []
    for path in sorted(one for one in paths if not one.name.startswith(".") and not _ABOUT.match(one.name)):
        head = _head(path)
        if is_wmt(head):
            wmt.append(path)
        elif not _add_tico(found, path, head):
            rest.append(path)
    for _, group in groupby(sorted(wmt, key=_group), key=_group):
        _add_wmt(found, list(group))
    pairs = [path for path in rest if pair_ending(path) in PAIR_ENDINGS]
    if pairs and not all(map(_names_language, pairs)):
        for direction, file in arrange_directions(pairs).sources.items():
            found.add(direction, file)
    elif not found.sources:
        _add_languages(found, rest)
    return found


def arrange_directions(paths: Iterable[epath.Path]) -> Arrangement:
    """Return the directions of files of pairs that are named after them; raises UserError as `arrange_folder`."""
    found = Arrangement()
    for path in sorted(paths):
        found.add(_direction(path), PairFile(path))
    return found


def arrange_tico(path: epath.Path) -> Arrangement:
    """Return the directions of a file of TICO-19; none if it is another file."""
    found = Arrangement()
    _add_tico(found, path, _head(path))
    return found


def arrange_list(paths: Sequence[epath.Path], wanted: Sequence[str] | None) -> Arrangement:
    """Return the directions of files in a list: the source, then its references.

    Args:
      paths: two or more.
      wanted: the directions that are asked for; one, where the names of the files do not say their languages.

    Raises:
      UserError: the languages are not known.
    """
    found = Arrangement()
    heads = [_head(path) for path in paths]
    if all(map(is_wmt, heads)):
        _add_wmt(found, list(paths))
        return found
    kept = TextCache()
    first, *others = (LanguageFile(path, kept) for path in paths)
    languages = [divide_name(path.name).language for path in paths]
    if not all(languages):
        if wanted is None or len(wanted) != 1:
            raise UserError(
                f"{', '.join(map(str, paths))}: the names do not say which languages these are: say it with exactly "
                "one pair, such as --pairs de-en"
            )
        found.add(parse_direction(wanted[0]), AlignedFiles(first, tuple(others)))
        return found
    references: dict[str, list[LanguageFile]] = defaultdict(list)
    for language, file in zip(languages[1:], others, strict=True):
        references[language].append(file)
    for language, files in references.items():
        if language == languages[0]:
            raise UserError(f"{first} and {files[0]} are both {language}: the first is to be the source of the others")
        found.add(Direction(languages[0], language), AlignedFiles(first, tuple(files)))
    return found


def _head(path: epath.Path) -> bytes:
    with open_plain(path) as file:
        return file.read(_HEAD)


def _group(path: epath.Path) -> str:
    return divide_name(path.name).group


def _direction(path: epath.Path) -> Direction:
    try:
        return parse_direction(epath.Path(stem(path.name)).stem)
    except UserError as error:
        raise UserError(f"{path} is not named after a direction: {error}") from None


def _names_language(path: epath.Path) -> bool:
    """Return whether a file is named after one language, as `pt-BR.tsv` is, and not after a direction."""
    parts = divide_name(path.name)
    if not parts.language or not parts.region:
        return bool(parts.language)
    try:
        _direction(path)
    except UserError:
        return True
    return False


def _add_tico(found: Arrangement, path: epath.Path, head: bytes) -> bool:
    """Add the two directions of a file of TICO-19; return whether it is one."""
    heading, _, lines = head.decode(errors="replace").removeprefix("\ufeff").partition("\n")
    names = heading.rstrip("\r").split("\t")
    if pair_ending(path) != ".tsv" or not all(name in names for name in TICO_COLUMNS):
        return False
    cells = dict(zip(names, lines.split("\n")[0].split("\t"), strict=False))
    codes = [cells.get(name, "") for name in TICO_COLUMNS[:2]]
    known = [canonical_code(code) for code in codes]
    if all(known):
        source, target = map(str, known)
        found.add(Direction(source, target), TicoFile(path, swapped=False))
        found.add(Direction(target, source), TicoFile(path, swapped=True))
    else:
        unknown = " and ".join(repr(code) for code, one in zip(codes, known, strict=True) if not one)
        found.notes.append(f"left out: {path}, of an unknown language ({unknown})")
    return True


def _add_wmt(found: Arrangement, paths: Sequence[epath.Path]) -> None:
    opened = list(open_wmt(paths))
    if not opened:
        shown = " and ".join(map(str, paths[:_SHOWN]))
        found.notes.append(
            f"left out: {shown}, without a segment that has a source and, by document and id, a reference"
        )
    for one in opened:
        found.add(one.direction, one)
        if note := one.left_out():
            found.notes.append(f"left out: {note}")


def _add_languages(found: Arrangement, paths: Sequence[epath.Path]) -> None:
    """Add every direction between files of a language each."""
    named = [(path, divide_name(path.name)) for path in paths]
    files = [(path, parts) for path, parts in named if parts.language]
    groups = sorted({parts.group for _, parts in files})
    if len({parts.language for _, parts in files}) < 2:
        return
    if len(groups) > 1:
        raise UserError(
            f"{paths[0].parent} has several test sets ({', '.join(groups[:_SHOWN])}): name the files of one by a "
            f"pattern, such as --testset '{paths[0].parent}/*{groups[0]}*'"
        )
    if unnamed := [path.name for path, parts in named if not parts.language]:
        more = f" and {len(unnamed) - _SHOWN} more" if len(unnamed) > _SHOWN else ""
        found.notes.append(f"left out: {', '.join(unnamed[:_SHOWN])}{more}, not named after a language that is known")
    kept = TextCache()
    by_language: dict[str, list[tuple[LanguageFile, NameParts]]] = defaultdict(list)
    for path, parts in files:
        by_language[parts.language].append((LanguageFile(path, kept), parts))
    sides = {language: _sides(language, several, found.notes) for language, several in by_language.items()}
    _add_directions(found, sides)


def _add_directions(
    found: Arrangement, sides: Mapping[str, tuple[LanguageFile | None, tuple[LanguageFile, ...]]]
) -> None:
    for source, (file, _) in sides.items():
        for target, (_, references) in sides.items():
            if file and source != target:
                found.add(Direction(source, target), AlignedFiles(file, references))


def _sides(
    language: str, several: Sequence[tuple[LanguageFile, NameParts]], notes: list[str]
) -> tuple[LanguageFile | None, tuple[LanguageFile, ...]]:
    """Return the file of a language as a source, and its files as references.

    The only file of a language is source and reference, whatever its name says: NTREX-128 has the English source once,
    and one reference in every other language. A file of a region or a variety gives way to one of the language itself.
    """
    exact = [one for one in several if not one[1].region] or list(several)
    if dropped := [str(file.path.name) for file, parts in several if parts.region and len(exact) < len(several)]:
        notes.append(f"left out: {', '.join(dropped)}, since {exact[0][0].path.name} is {language} itself")
    sources = [file for file, parts in exact if parts.role == "source"]
    references = [file for file, parts in exact if parts.role == "reference"]
    plain = [file for file, parts in exact if parts.role is None]
    numbers = {parts.number for _, parts in exact if parts.role == "reference"}
    if len(sources) > 1 or len(plain) > 1 or len(numbers) < len(references):
        raise UserError(f"{' and '.join(str(file) for file, _ in exact)} are all {language}: remove all but one")
    candidates = sources or plain or (references if len(references) == 1 else [])
    source = candidates[0] if candidates else None
    return source, tuple(references or plain or sources)
