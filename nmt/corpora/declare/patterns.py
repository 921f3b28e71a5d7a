"""Patterns of paths, such as `{component}/{language}.mo`: which paths fit, and which text each field has in them."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from nmt.config.standins import VARIABLE
from nmt.errors import UserError

# Endings of archives, whose members a pattern names behind a slash: `de-en.txt.zip/{component}.{language}`.
ARCHIVES = (
    *(".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz"),
    *(".tar.bz2", ".tbz2", ".tbz", ".tar.zst", ".tzst"),
)

_TOKEN = re.compile(r"\*\*/|\*\*|\*|\{[a-z]+\}")
_WILD = {"**/": r"((?:[^/]+/)*)", "**": r"(.*)", "*": r"([^/]*)"}
# A code with its subtags, so that {source}-{target} is divided where a code may end.
_CODE = r"[A-Za-z]{2,3}(?:[-_@][A-Za-z0-9]+)*"
_FIELDS = {"language": r"[^/]+", "component": r"[^/]+", "path": r".+", "source": _CODE, "target": _CODE}


@dataclass(frozen=True)
class MatchedPath:
    """A path that a pattern fits, and the texts of its fields; those that the pattern does not have are empty."""

    name: str
    language: str
    component: str
    source: str
    target: str
    rest: tuple[str, ...]  # the texts of all fields and wild cards but {language}


def match_path(pattern: re.Pattern[str], name: str) -> MatchedPath | None:
    """Return a path with the texts of its fields, or None if the compiled pattern does not fit it."""
    if (fit := pattern.fullmatch(name)) is None:
        return None
    fields = fit.groupdict(default="")
    component = fields.get("path") or fields.get("component", "")
    at = pattern.groupindex.get("language")
    rest = tuple(text for place, text in enumerate(fit.groups(), 1) if place != at)
    language, source, target = (fields.get(field, "") for field in ("language", "source", "target"))
    return MatchedPath(name, language, component, source, target, rest)


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return the regular expression of a pattern; a field that comes again stands for the same text."""
    parts, end, seen = [], 0, set()
    for token in _TOKEN.finditer(pattern):
        parts.append(re.escape(pattern[end : token.start()]))
        end = token.end()
        if (wild := _WILD.get(token[0])) is not None:
            parts.append(wild)
        elif (name := token[0][1:-1]) in seen:
            parts.append(f"(?P={name})")
        else:
            seen.add(name)
            parts.append(f"(?P<{name}>{_FIELDS[name]})")
    return re.compile("".join([*parts, re.escape(pattern[end:])]))


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
