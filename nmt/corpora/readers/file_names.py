"""Names of files of test sets, divided into their parts: `newstest2019-ref.deu.txt` is the reference in German.

Published sets name their files in many ways, with the language between two dots: `deu_Latn.devtest`, `dev.deu_Latn`,
`newstest2014-deen-src.de.sgm`, `test.en.ref0`.
"""

import re
from dataclasses import dataclass
from typing import Literal

from nmt import languages
from nmt.corpora.readers.compressed import stem
from nmt.languages import Language

_ROLE = re.compile(r"(?:(.*)[-_.])?(src|source|ref|refs|reference)[-_]?([0-9]*|[A-Z])", re.IGNORECASE)
_CODE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]+)*")
_REGION = re.compile(r"[-_]([A-Z]{2}|[0-9]{3})$")
_VARIETY = re.compile(r"[-_]([a-z]{4}[0-9]{4}|[a-z]{5,8})$")  # a Glottocode, as FLORES+ has them, or a word


@dataclass(frozen=True)
class NameParts:
    """The parts of a file's name.

    Attributes:
      group: the name without language and role; files with the same one belong together.
      language: canonical code of the language; empty where the name has none that is known.
      region: whether it is the language of a region or a variety of it, as in `eng-US` and `cat_Latn_vale1252`.
      role: whether it is the source or a reference; None where the name does not say it.
      number: what tells several references apart, such as `0` or `A`.
    """

    group: str
    language: str
    region: bool
    role: Literal["source", "reference"] | None
    number: str


def divide_name(name: str) -> NameParts:
    """Return the parts of a name without folders; the ending of its compression does not count."""
    parts = stem(name).split(".")
    role, number = None, ""
    for place, part in enumerate(parts):
        if found := _ROLE.fullmatch(part):
            role, number = _role(found[2]), found[3]
            parts[place] = found[1] or ""
    for place in reversed(range(len(parts))):
        known = languages.registry()
        if not _CODE.fullmatch(parts[place]) or not (language := known.find(parts[place], _REGION)):
            continue
        itself = known.find(parts[place]) is not None and not _is_variety(parts[place], language)
        rest = [part for part in (*parts[:place], *parts[place + 1 :]) if part]
        return NameParts(".".join(rest), language.code, not itself, role, number)
    return NameParts(".".join(filter(None, parts)), "", False, role, number)


def _is_variety(code: str, language: Language) -> bool:
    shorter = _VARIETY.sub("", code)
    return shorter != code and languages.registry().find(shorter, _REGION) == language


def _role(word: str) -> Literal["source", "reference"]:
    return "source" if word.lower() in ("src", "source") else "reference"
