"""Patterns of paths, such as `{component}/{language}.mo`: which paths fit, and which text each field has in them."""

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from nmt.config.standins import VARIABLE
from nmt.corpora.declare.divisions import CODE_FIELDS, Division, choose_division
from nmt.errors import UserError

# Endings of archives, whose members a pattern names behind a slash: `de-en.txt.zip/{component}.{language}`.
ARCHIVES = (
    *(".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz"),
    *(".tar.bz2", ".tbz2", ".tbz", ".tar.zst", ".tzst"),
)

_TOKEN = re.compile(r"\*\*/|\*\*|\*|\{[a-z]+\}")
# Regular expressions of what is not literal; ? stands where a lazy one has it.
_WILD = {"**/": r"(?:[^/]+/)*~", "**": r".*~", "*": r"[^/]*~"}
# A code with its subtags, so that {source}-{target} is divided where a code may end.
_CODE = r"[A-Za-z]{2,3}~(?:[-_@][A-Za-z0-9]+~)*~"
# What {side} stands for: the source, or the target.
_SOURCE_SIDES = ("src", "source")
_TARGET_SIDES = ("trg", "tgt", "target", "ref", "reference")
SIDES = (*_SOURCE_SIDES, *_TARGET_SIDES)
_FIELDS = {"language": r"[^/]+~", "component": r"[^/]+~", "path": r".+~", "source": _CODE, "target": _CODE}
_FIELDS["side"] = f"(?:{'|'.join(SIDES)})"


@dataclass(frozen=True)
class MatchedPath:
    """A path that a pattern fits, and the texts of its fields; those that the pattern does not have are empty."""

    name: str  # the whole path
    language: str
    component: str
    source: str
    target: str
    rest: tuple[str, ...]  # the path without {language} or {side}, in pieces


@dataclass(frozen=True)
class _Part:
    """A piece of a pattern: literal text, a wild card or a field."""

    field: str  # its name; empty: it is none
    form: str  # the regular expression of its texts; with ~ where a lazy one has ?
    literal: bool

    @property
    def free(self) -> bool:
        """Whether it stands for any text, and not for a code of a language."""
        return not self.literal and self.field not in CODE_FIELDS

    def expression(self, name: str = "", lazy: bool = False) -> str:
        """Return the regular expression, of a group of this name where there is one."""
        form = self.form if self.literal else self.form.replace("~", "?" if lazy else "")
        return f"(?P<{name}>{form})" if name else f"({form})"


class PathPattern:
    """A compiled pattern of paths."""

    def __init__(self, pattern: str) -> None:
        self.text = pattern
        self.parts = list(_divide(pattern))
        self._greedy, self._lazy = (re.compile(self._expression(self.parts, lazy)) for lazy in (False, True))
        self._alone = [re.compile(part.expression()) for part in self.parts]
        # What each piece and those behind it fit, whatever a field stood for before.
        self._ends = [
            re.compile("".join(part.expression() for part in self.parts[place:])) for place in range(len(self.parts))
        ]

    @staticmethod
    def _expression(parts: Sequence[_Part], lazy: bool) -> str:
        seen: set[str] = set()
        pieces = []
        for part in parts:
            pieces.append(f"((?P={part.field}))" if part.field in seen else part.expression(part.field, lazy))
            seen |= {part.field} - {""}
        return "".join(pieces)

    def fits(self, name: str) -> bool:
        """Return whether a path fits."""
        return self._greedy.fullmatch(name) is not None

    def divisions(self, name: str) -> Iterator[tuple[str, ...]]:
        """Yield the ways in which the pieces of the pattern stand for a path; those with longer first pieces first.

        Of ways that differ in nothing but what stands beside the codes of languages, it is the first one only.
        """
        first, last = self._greedy.fullmatch(name), self._lazy.fullmatch(name)
        if first is None or last is None:
            return
        if first.groups() == last.groups():  # the first and the last way in alphabetical order: there is one
            yield first.groups()
            return
        yield from self._walk(name, (), set())

    def _walk(self, name: str, texts: tuple[str, ...], seen: set[tuple[object, ...]]) -> Iterator[tuple[str, ...]]:
        """Yield the ways that begin with some texts, and were not `seen`."""
        start, place = sum(map(len, texts)), len(texts)
        bound = {part.field: text for part, text in zip(self.parts, texts, strict=False) if part.field}
        codes = {field: text for field, text in bound.items() if field in CODE_FIELDS}
        again = {part.field: bound[part.field] for part in self.parts[place:] if part.field in bound}
        state = (place, start, *sorted({**codes, **again}.items()))
        if state in seen:
            return
        seen.add(state)
        if place == len(self.parts):
            if start == len(name):
                yield texts
            return
        if self._ends[place].fullmatch(name, start) is None:
            return
        part, alone = self.parts[place], self._alone[place]
        for end in range(len(name), start - 1, -1):
            text = name[start:end]
            if bound.get(part.field, text) == text and alone.fullmatch(text):
                yield from self._walk(name, (*texts, text), seen)


def _divide(pattern: str) -> Iterator[_Part]:
    end = 0
    for token in _TOKEN.finditer(pattern):
        if literal := pattern[end : token.start()]:
            yield _Part("", re.escape(literal), True)
        end = token.end()
        field = token[0].strip("{}") if token[0].startswith("{") else ""
        yield _Part(field, _FIELDS[field] if field else _WILD[token[0]], False)
    if literal := pattern[end:]:
        yield _Part("", re.escape(literal), True)


def compile_pattern(pattern: str) -> PathPattern:
    """Return a pattern, compiled; a field that comes again stands for the same text."""
    return PathPattern(pattern)


def match_path(pattern: PathPattern, name: str, declared: Collection[str] = ()) -> MatchedPath | None:
    """Return a path with the texts of its fields, or None if the pattern does not fit it.

    Where the pattern divides the path in several ways, such as `en-pt-BR` by `{source}-{target}`, the codes of
    languages decide: see `divisions`.

    Args:
      pattern: compiled.
      name: the path.
      declared: codes that the declaration of the corpus says the language of.

    Raises:
      UserError: several ways are left that are of different languages; the message names them.
    """
    found = list(pattern.divisions(name))
    if not found:
        return None
    texts = found[0]
    if len(found) > 1:
        chosen = choose_division([_division(pattern, one) for one in found], declared, name, pattern.text)
        texts = found[chosen]
    fields = _fields(pattern, texts)
    language, source, target = (fields.get(field, "") for field in CODE_FIELDS)
    if side := fields.get("side"):
        language = source if side in _SOURCE_SIDES else target
    rest = [""]
    for part, text in zip(pattern.parts, texts, strict=True):
        if part.field in ("language", "side"):
            rest.append("")
        else:
            rest[-1] += text
    component = fields.get("path") or fields.get("component", "")
    return MatchedPath(name, language, component, source, target, tuple(rest))


def _fields(pattern: PathPattern, texts: Sequence[str]) -> dict[str, str]:
    return {part.field: text for part, text in zip(pattern.parts, texts, strict=True) if part.field}


def _division(pattern: PathPattern, texts: Sequence[str]) -> Division:
    fields = _fields(pattern, texts)
    before: dict[str, str] = {}
    for place, part in enumerate(pattern.parts):
        if place > 1 and part.field in CODE_FIELDS and pattern.parts[place - 2].free:
            before.setdefault(part.field, "".join(texts[place - 2 : place]))
    return Division({field: fields[field] for field in CODE_FIELDS if field in fields}, before)


def split_glob(pattern: str) -> tuple[str, str]:
    """Return the folder that a pattern begins with, and the glob below it that finds at least the pattern's paths."""
    glob = pattern.replace("{path}", "**/*")
    glob = _TOKEN.sub(lambda token: token[0] if token[0].startswith("*") else "*", glob)
    folders = glob.split("/")
    wild = next((place for place, part in enumerate(folders) if "*" in part), len(folders) - 1)
    return "/".join(folders[:wild]) or ("/" if glob.startswith("/") else ""), "/".join(folders[wild:])


def split_archive(pattern: str) -> tuple[str, str] | None:
    """Return the path of the archive that a pattern reaches into, and the whole of the pattern behind it.

    None if no part of it but the last is the name of an archive: `x.zip/a.de` reaches into one, `x.zip` does not.
    """
    parts = pattern.split("/")
    for place, part in enumerate(parts[:-1], start=1):
        if part.lower().endswith(ARCHIVES):
            return "/".join(parts[:place]), "/".join(parts[place:])
    return None


def expand_variables(text: str, owner: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return a path with `$NAME` replaced by variables of the environment, and `~` by the home folder.

    Args:
      text: the path.
      owner: the corpus or section that has the path, for the error.
      environment: the variables.

    Raises:
      UserError: a variable is not set.
    """

    def value(variable: re.Match[str]) -> str:
        name = variable[1] or variable[2]
        if not (given := environment.get(name)):
            raise UserError(f"{owner} is at {text}: set the environment variable {name}, such as {_example(name)}")
        return given

    return os.path.expanduser(VARIABLE.sub(value, text))


def _example(name: str) -> str:
    if name.endswith("FILES"):
        return f"export {name}='/corpora/{{source}}-{{target}}.tsv.gz'"
    return f"export {name}=/corpora"
