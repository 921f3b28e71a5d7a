"""Directions written as patterns: `*-en` is every language that the corpora cover, into English.

Patterns of directions stand for the languages of the parallel corpora, patterns of denoising for those of the
monolingual ones.
"""

from collections.abc import Iterator, Sequence

from nmt.config.documents import read_document
from nmt.errors import UserError
from nmt.files import find_declaration

ANY = "*"


def expand_directions(directions: Sequence[str], corpora: Sequence[str]) -> tuple[str, ...]:
    """Return the directions with `*-xx`, `xx-*` and `*-*` spelt out, each direction once, in order.

    The languages are those under `covers:` in the declarations of the corpora, or of the parts of a mixture.

    Raises:
      UserError: there is a pattern, and the corpora do not say what they cover; or one of them is unknown.
    """
    if not any(_is_pattern(direction) for direction in directions):
        return tuple(directions)
    covered = list(dict.fromkeys(code for name in corpora for code in _covered(name)))
    expanded = dict.fromkeys(one for direction in directions for one in _expand(direction, covered))
    if not expanded or not covered:
        raise UserError(
            f"data.directions={','.join(directions)}: the declarations of {', '.join(corpora)} have no list covers: of "
            "languages, so directions are to be written one by one"
        )
    return tuple(expanded)


def expand_languages(languages: Sequence[str], corpora: Sequence[str]) -> tuple[str, ...]:
    """Return the languages of denoising with `*` spelt out, each once, in order.

    Raises:
      UserError: there is a `*`, and no monolingual corpus says what it covers; or a corpus is unknown.
    """
    if ANY not in languages:
        return tuple(languages)
    covered = [code for name in corpora for code in _covered(name, monolingual=True)]
    if not covered:
        raise UserError(
            f"data.denoise.languages={','.join(languages)}: no declaration of a monolingual corpus among "
            f"{', '.join(corpora)} has a list covers: of languages, so they are to be written one by one"
        )
    return tuple(dict.fromkeys(code for one in languages for code in (covered if one == ANY else [one])))


def _is_pattern(direction: str) -> bool:
    return direction.startswith(f"{ANY}-") or direction.endswith(f"-{ANY}")


def _expand(direction: str, covered: Sequence[str]) -> Iterator[str]:
    if not _is_pattern(direction):
        yield direction
        return
    first, last = direction.startswith(f"{ANY}-"), direction.endswith(f"-{ANY}")
    # A code may itself have a hyphen (zh-Hans), so the pattern is cut off at its own end.
    given = direction.removeprefix(f"{ANY}-").removesuffix(f"-{ANY}")
    for source in covered if first else [given]:
        for target in covered if last else [given]:
            if source != target:
                yield f"{source}-{target}"


def _covered(corpus: str, monolingual: bool = False) -> list[str]:
    values = read_document(find_declaration("data", corpus)).values
    # The list of a mixture is about its directions.
    if (codes := values.get("covers")) and bool(values.get("monolingual")) == monolingual:
        return [str(code) for code in codes]
    return [code for part in values.get("mixture") or () for code in _covered(str(part), monolingual)]
