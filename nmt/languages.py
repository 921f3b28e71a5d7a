"""The language registry over data/languages.tsv: which languages there are, and every way to write them.

A row is a language in a script. Its `code` is the shortest usual BCP 47 tag: ISO 639-1 where the language, or the
macrolanguage it stands for in FLORES-200, has such a code, else ISO 639-3; a script or region subtag follows only
where a second entry needs it (`ace-Arab`, `pt-BR`; Chinese always names its script). `flores` is the code of
FLORES-200 and NLLB-200, empty for the others. It is an opaque name: FLORES-200 calls Santali `sat_Beng` though its
text is in Ol Chiki, and `ajp` has been part of `apc` in ISO 639-3 since 2023.

`tokenizer` is the one of sacreBLEU's for BLEU into that language, such that no score needs the network or another
package: `zh` for Chinese in Han script, which splits ideographs and keeps other words whole; `char` for scripts that
put no spaces between words (Japanese, Thai, Lao, Khmer, Burmese and Shan, Tibetan and Dzongkha), whose words by `13a`
would be whole sentences; `13a`, sacreBLEU's default, for all others. Korean has `13a` too: it spaces its phrases, so
its word n-grams mean as much as those of other agglutinative languages; `ko-mecab` would need a dictionary.

An alias with a region names the entry of the script that is usual there, where it is another than elsewhere: `kk-CN` is
Kazakh in Arabic script. These are all of the likely subtags of CLDR (as in Babel 2.19) for these languages. Such an
alias, and one with a script, holds for every ISO code of its language: `kaz-CN` as well.

A languages.tsv in ./data adds rows to those shipped, and replaces those with the same code.
"""

import difflib
import functools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from nmt.errors import UserError
from nmt.files import declaration_dirs

FILE_NAME = "languages.tsv"
COLUMNS = ("code", "flores", "iso639_3", "script", "english", "native", "aliases", "tokenizer")
TOKENIZERS = ("13a", "char", "flores101", "flores200", "intl", "ja-mecab", "ko-mecab", "none", "zh")

_FORMS = {
    "code": re.compile(r"[a-z]{2,3}(-[A-Z][a-z]{3})?(-([A-Z]{2}|[0-9]{3}))?"),
    "flores": re.compile(r"([a-z]{3}_[A-Z][a-z]{3})?"),
    "iso639_3": re.compile(r"[a-z]{3}"),
    "script": re.compile(r"[A-Z][a-z]{3}"),
    "english": re.compile(r".*\w.*"),
    "native": re.compile(r".*\w.*"),
    "tokenizer": re.compile("|".join(TOKENIZERS)),
}
_BARE = re.compile(r"[a-z]{2,3}")
_WITH_SUBTAG = re.compile(r"[a-z]{2,3}-([A-Z][a-z]{3}|[A-Z]{2})")
_ANY_REGION = re.compile(r"[-_]([A-Za-z]{2}|[0-9]{3})$")
_UPPER_REGION = re.compile(r"[-_]([A-Z]{2}|[0-9]{3})$")


@dataclass(frozen=True)
class Language:
    """A language in a script: one row of languages.tsv."""

    code: str  # canonical: names directions, files, vocabulary tags
    flores: str | None  # FLORES-200 code, such as deu_Latn; None: not in FLORES-200
    iso639_3: str
    script: str  # ISO 15924
    english: str
    native: str
    aliases: tuple[str, ...]  # those of the file, beyond what follows from the other columns
    tokenizer: str  # sacreBLEU's, for BLEU into this language

    @property
    def spellings(self) -> tuple[str, ...]:
        """Every way to write this language, region subtags without an entry of their own aside.

        A bare ISO code belongs to the entry whose code has no subtag; an entry for a region has no script variants.
        """
        base, *subtags = self.code.split("-")
        derived = [self.code, self.flores or self.code, self.english, self.native]
        if not subtags:
            derived.append(self.iso639_3)
        if not subtags or subtags == [self.script]:
            derived += [f"{base}-{self.script}", f"{self.iso639_3}-{self.script}"]
        return (*dict.fromkeys(derived), *self.aliases)


class Direction(NamedTuple):
    """A translation direction, in canonical codes; as text `de-en`."""

    source: str
    target: str

    def __str__(self) -> str:
        return f"{self.source}-{self.target}"

    @property
    def denoises(self) -> bool:
        """Whether this is denoising of text of one language, such as de-de, instead of translation."""
        return self.source == self.target


class Certainty(IntEnum):
    """How surely a text is the code of a language, the surest first."""

    EXACT = 0  # one of its spellings
    USUAL_REGION = 1  # with a region in the usual capitals behind it
    ANY_REGION = 2  # with a region in small letters behind it
    UNLIKELY = 3  # known, but not where it stands: both sides of a direction are the same
    UNKNOWN = 4


@dataclass(frozen=True)
class Registry:
    """Languages in order of their codes, and the index of their spellings, normalised."""

    languages: tuple[Language, ...]
    index: Mapping[str, Language]

    def find(self, text: str, region: re.Pattern[str] | None = None) -> Language | None:
        """Return the language written so, or so without a final subtag that `region` matches; None: there is none."""
        found = self.index.get(_key(text))
        if found is None and region is not None:
            return self.index.get(_key(region.sub("", text.strip())))
        return found

    def find_with_region(self, text: str) -> Language | None:
        """Return the language written so, whatever final region subtag stands behind it, or None."""
        return self.find(text, _ANY_REGION)

    def certainty(self, text: str) -> Certainty:
        """Return how surely a text is the code of a language."""
        for certainty, region in enumerate((None, _UPPER_REGION, _ANY_REGION)):
            if self.find(text, region) is not None:
                return Certainty(certainty)
        return Certainty.UNKNOWN

    def nearest(self, text: str, most: int = 3) -> str:
        """Return `"; did you mean de (German)?"`, or advice when no spelling is near `text`."""
        key = _key(text)
        keys = difflib.get_close_matches(key, self.index, n=4 * most, cutoff=0.6)
        likeness = [difflib.SequenceMatcher(None, other, key).ratio() for other in keys]
        # German is meant by "germn"; "grn" and "low german" are near enough only where nothing is nearer.
        keys = [other for other, ratio in zip(keys, likeness, strict=True) if ratio > max(likeness) - 0.1]
        if (base := key.split("-")[0]) in self.index:
            keys.insert(0, base)
        near = list(dict.fromkeys(self.index[other] for other in keys))[:most]
        if not near:
            return f"; a language that is new needs a row in ./data/{FILE_NAME}"
        return f"; did you mean {', '.join(f'{one.code} ({one.english})' for one in near)}?"


class _Row(NamedTuple):
    language: Language
    place: str  # file:line, for errors


def _key(text: str) -> str:
    """Fold differences that do not tell languages apart: case, `_` or space for `-`, compatible Unicode forms."""
    # Dotless i is a letter of Crimean Tatar and others; its capital is the I of everybody else.
    folded = unicodedata.normalize("NFKC", text).casefold().replace("ı", "i")
    return re.sub(r"[\s_]+", "-", folded.strip())


def _parse_row(line: str, place: str) -> Language:
    fields = line.split("\t")
    if len(fields) != len(COLUMNS):
        raise UserError(f"{place}: {len(fields)} columns instead of {len(COLUMNS)} ({', '.join(COLUMNS)})")
    row = dict(zip(COLUMNS, fields, strict=True))
    for column, form in _FORMS.items():
        if not form.fullmatch(row[column]):
            allowed = f"; one of {', '.join(TOKENIZERS)}" if column == "tokenizer" else ""
            raise UserError(f"{place}: {row[column]!r} cannot be a {column}{allowed}")
    aliases = tuple(alias.strip() for alias in row["aliases"].split(",") if alias.strip())
    flores = row["flores"] or None
    return Language(
        row["code"], flores, row["iso639_3"], row["script"], row["english"], row["native"], aliases, row["tokenizer"]
    )


def _read_rows(path: Path) -> Iterator[_Row]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if tuple(lines[0].rstrip("\r").split("\t")) != COLUMNS:
        raise UserError(f"{path}:1: the header is not, separated by tabs: {', '.join(COLUMNS)}")
    seen: dict[str, str] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        language = _parse_row(line.rstrip("\r"), place)
        if (first := seen.setdefault(language.code, place)) != place:
            raise UserError(f"{place}: {language.code} has a row already, {first}")
        yield _Row(language, place)


def read_registry(paths: Sequence[Path]) -> Registry:
    """Read language files; where several have a row for a code, the first of them counts.

    Raises:
      UserError: a file cannot be read, a row is malformed, or two languages share a spelling; names file and line.
    """
    rows: dict[str, _Row] = {}
    for path in reversed(paths):
        rows.update((row.language.code, row) for row in _read_rows(path))
    owners: dict[str, _Row] = {}
    bare = _group_codes(row.language for row in rows.values())
    for row in rows.values():
        for spelling in (*row.language.spellings, *_derive_spellings(row.language, bare)):
            owner = owners.setdefault(_key(spelling), row)
            if owner is not row:
                raise UserError(
                    f"{row.place}: {spelling!r} of {row.language.code} is {owner.language.code} already, {owner.place}"
                )
    languages = sorted((row.language for row in rows.values()), key=lambda language: language.code)
    return Registry(tuple(languages), {key: row.language for key, row in owners.items()})


def _group_codes(known: Iterable[Language]) -> dict[str, set[str]]:
    """Return, for each code without subtags, all codes that mean the same: `uz`, `uzb` and `uzn`."""
    groups: dict[str, set[str]] = defaultdict(set)
    for language in known:
        base, *subtags = language.code.split("-")
        if not subtags or subtags == [language.script]:
            groups[base] |= {base, language.iso639_3, *filter(_BARE.fullmatch, language.aliases)}
    return {code: group for group in groups.values() for code in group}


def _derive_spellings(language: Language, bare: Mapping[str, set[str]]) -> Iterator[str]:
    """Yield every ISO code of a language with its script, and with the subtags of its aliases."""
    base, *subtags = language.code.split("-")
    if not subtags or subtags == [language.script]:
        yield from (f"{code}-{language.script}" for code in bare[base])
    for alias in filter(_WITH_SUBTAG.fullmatch, language.aliases):
        code, _, subtag = alias.partition("-")
        yield from (f"{other}-{subtag}" for other in bare.get(code, ()))


@functools.cache
def registry() -> Registry:
    """Return the registry of this process, read once.

    Raises:
      UserError: as `read_registry`, or there is no languages.tsv at all.
    """
    paths = [path for folder in declaration_dirs("data") if (path := folder / FILE_NAME).is_file()]
    if not paths:
        raise UserError(f"found no data/{FILE_NAME}, neither here nor with the package; install the package again")
    return read_registry(paths)


def all_languages() -> tuple[Language, ...]:
    """Return all languages in order of their codes."""
    return registry().languages


def get(code: str) -> Language:
    """Return the language written so: any code, name or alias; case, `-` and `_` do not matter.

    A final region without an entry of its own is dropped: `de-AT` is `de`, but `pt-BR` and `zh-TW` are not `pt`, `zh`.

    Raises:
      UserError: unknown; the message names the nearest languages.
    """
    known = registry()
    if (language := known.find_with_region(code)) is None:
        raise UserError(f"unknown language {code!r}{known.nearest(code)}")
    return language


def parse_direction(text: str) -> Direction:
    """Return the direction written SOURCE-TARGET in any spellings: `de-en`, `deu_Latn-eng_Latn`, `zh-Hans-pt-BR`.

    Every `-` is tried as the one between the languages. A reading that drops no region wins, then one that drops only
    regions in the usual capitals: `sl-SI-en` is Slovenian, not `sl` to Sinhala (`si`) of a region `en`.

    Raises:
      UserError: not of this form, an unknown language (names the nearest), twice the same, or several readings.
    """
    known = registry()
    splits = [(text[: dash.start()], text[dash.end() :]) for dash in re.finditer("-", text)]
    same = False
    for region in (None, _UPPER_REGION, _ANY_REGION):
        found = [(known.find(source, region), known.find(target, region)) for source, target in splits]
        pairs = {Direction(source.code, target.code) for source, target in found if source and target}
        readings = {pair for pair in pairs if pair.source != pair.target}
        if len(readings) == 1:
            return readings.pop()
        if readings:
            choice = " or ".join(sorted(map(str, readings)))
            raise UserError(f"direction {text!r} may be {choice}; write it as one of these")
        same = same or bool(pairs)
    if same:
        raise UserError(f"direction {text!r} has the same language on both sides")
    raise UserError(_unreadable(text, splits, known))


def parse_stream(text: str) -> Direction:
    """Return the direction written SOURCE-TARGET, or that of denoising, written LANGUAGE-LANGUAGE.

    Raises:
      UserError: as `parse_direction`.
    """
    half = text[: len(text) // 2]
    if text == f"{half}-{half}" and (language := registry().find_with_region(half)):
        return Direction(language.code, language.code)
    return parse_direction(text)


def _unreadable(text: str, splits: Sequence[tuple[str, str]], known: Registry) -> str:
    """Say which half of a direction is unknown: the shortest beside a known one, else the first."""
    halves = [
        half
        for source, target in splits
        for half, other in ((source, target), (target, source))
        if known.find_with_region(other)
    ]
    wrong = min(halves, key=len) if halves else splits[0][0] if splits else ""
    if not wrong.strip():
        return f"direction {text!r} is not SOURCE-TARGET, such as de-en"
    return f"direction {text!r}: unknown language {wrong!r}{known.nearest(wrong)}"


def parse_directions(texts: Iterable[str]) -> tuple[Direction, ...]:
    """Return the directions in their order.

    Raises:
      UserError: as `parse_direction`, or a direction is given twice (in whatever spelling).
    """
    written: dict[Direction, str] = {}
    for text in texts:
        direction = parse_direction(text)
        if direction in written:
            raise UserError(f"direction {direction} is given twice: {written[direction]!r} and {text!r}")
        written[direction] = text
    return tuple(written)


def is_pattern(text: str) -> bool:
    """Return whether a text stands for several directions: `*-en`, `en-*`, `*-*`."""
    return text.startswith("*-") or text.endswith("-*")


def fits_pattern(pattern: str, direction: Direction) -> bool:
    """Return whether a direction fits a pattern: `*-en`, `en-*`, `*-*`, or a direction in any spelling.

    Raises:
      UserError: the pattern has an unknown language.
    """
    if pattern.startswith("*-"):
        return pattern == "*-*" or direction.target == get(pattern.removeprefix("*-")).code
    if pattern.endswith("-*"):
        return direction.source == get(pattern.removesuffix("-*")).code
    return direction == parse_direction(pattern)
