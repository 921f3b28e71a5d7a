"""The part of the sections on how a corpus is read that all kinds share: patterns of paths, and the key language.

Paths are patterns. In them `{language}` is the corpus's code of a language, `{component}` a part of the corpus (texts
of one component are never divided among splits), `{path}` the same with slashes, `{source}` and `{target}` the
languages of a direction, `{side}` the word src or trg (or source, tgt, target, ref, reference) that stands for one of
these two, `*` any part of a name, `**` any number of folders, and `$NAME` a variable of the environment.
"""

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from nmt.config import Section

_FIELDS = ("language", "component", "path", "source", "target", "side")
_FIELD = re.compile(r"\{([^{}]*)\}")


def _check_patterns(patterns: Any) -> Any:
    """Check a path or several in one place, since an error of a union would name the kinds that it could be."""
    listed = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(listed, list | tuple) or not listed or not all(isinstance(one, str) and one for one in listed):
        raise ValueError(f"a path is needed, or a list of paths, not {patterns!r}")
    for pattern in listed:
        for name in _FIELD.findall(pattern):
            if name not in _FIELDS:
                known = ", ".join(f"{{{field}}}" for field in _FIELDS)
                raise ValueError(f"{pattern!r} has {{{name}}}, which is none of {known}")
        if "{side}" in pattern and not ("{source}" in pattern and "{target}" in pattern):
            raise ValueError(
                f"{pattern!r} has {{side}}, which is src or trg, but not the languages of these: say them in the path, "
                "as in {source}-{target}/train.{side}, or write {language} and languages: {src: de, trg: en}"
            )
    return patterns


Patterns = Annotated[str | tuple[str, ...], BeforeValidator(_check_patterns)]


def list_patterns(patterns: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return all patterns of a key."""
    return (patterns,) if isinstance(patterns, str) else patterns


KEY_LANGUAGE = "Language that all others are translated from; its text identifies a row."


class ReadSection(Section):
    """The part that all kinds have in common.

    Attributes:
      texts: whether a corpus of this kind has pairs, single texts (monolingual: true), or either.
    """

    texts: ClassVar[Literal["pairs", "single", "either"]] = "either"

    @property
    def companions(self) -> tuple[str, ...]:
        """Patterns of further files, which those of `files` go with."""
        return ()


class PatternSection(ReadSection):
    """The part that all kinds that read files by a pattern have in common."""

    files: Patterns = Field(description="Path of a file, as a pattern; the first of several that fits a path counts.")
    key_language: str = Field(description=KEY_LANGUAGE)

    @property
    def patterns(self) -> tuple[str, ...]:
        """All patterns of `files`."""
        return list_patterns(self.files)

    def require_once(self, *names: str) -> None:
        """Raise a ValueError where a pattern does not have each of some fields once."""
        for pattern in self.patterns:
            if any(pattern.count(f"{{{name}}}") != 1 for name in names):
                raise ValueError(f"{pattern!r} does not have {' and '.join(f'{{{name}}}' for name in names)} once each")
