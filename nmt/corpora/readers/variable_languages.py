"""Records whose languages differ: a list of languages beside a list of texts, or a list of texts with their languages.

Hugging Face's feature TranslationVariableLanguages is `{"language": ["de", "en"], "translation": ["Ja", "Yes"]}`;
others write `[{"language": "de", "text": "Ja"}, ...]`, and Arrow's maps are lists of pairs. Such a column is unfolded
into the form of a fixed translation: a mapping from languages to texts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from nmt.corpora.readers.cells import NESTED, Path, Record

_LANGUAGE_KEYS = ("language", "languages", "lang", "langs")
_TEXT_KEYS = ("translation", "translations", "text", "texts", "sentence")


def find_variable(records: Sequence[Record]) -> Path | None:
    """Return the path of the column whose languages differ from record to record: () is the record itself.

    None: records have no such column.
    """
    for record in records:
        if not isinstance(record, Mapping):
            return None
        if _has_lists(record):
            return ()
        for name, value in record.items():
            if _has_lists(value) or _has_objects(value) or _has_pairs(value):
                return (name,)
    return None


def texts_with_languages(record: Mapping[str, Any], path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the codes and the texts of a column that `find_variable` found, as they stand in a record."""
    value: Any = record.get(path[0]) if path else record
    if _has_lists(value):
        yield from zip(value[_key(value, _LANGUAGE_KEYS)], value[_key(value, _TEXT_KEYS)], strict=True)
    elif _has_objects(value):
        yield from ((one[_key(one, _LANGUAGE_KEYS)], one[_key(one, _TEXT_KEYS)]) for one in value)
    elif _has_pairs(value):
        yield from value


def unfold(
    record: Mapping[str, Any], path: Path, language_of: Callable[[str], str | None]
) -> tuple[dict[str, Any], bool]:
    """Return a record with its variable column as a mapping from canonical codes, and whether a language came again.

    Args:
      record: as it was read.
      path: of the variable column.
      language_of: returns the canonical code of one of the corpus, None if it is not used. Of several texts in one
        language the first stays.
    """
    texts: dict[str, Any] = {}
    again = False
    for code, text in texts_with_languages(record, path):
        if (language := language_of(code)) is not None:
            again = again or language in texts
            texts.setdefault(language, text)
    return {**record, unfolded_name(path): texts}, again


def unfolded_name(path: Path) -> str:
    """Return the name of the mapping that a variable column becomes."""
    return path[0] if path else NESTED[0]


def _key(value: Mapping[str, Any], keys: Sequence[str]) -> str:
    return next((key for key in keys if key in value), "")


def _has_lists(value: Any) -> bool:
    """Return whether a value is a list of languages beside a list of as many texts."""
    if not isinstance(value, Mapping):
        return False
    codes, texts = value.get(_key(value, _LANGUAGE_KEYS)), value.get(_key(value, _TEXT_KEYS))
    return isinstance(codes, list) and isinstance(texts, list) and len(codes) == len(texts) and _strings(codes)


def _has_objects(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(one, Mapping) and _key(one, _LANGUAGE_KEYS) and _key(one, _TEXT_KEYS) for one in value)
        and _strings([one[_key(one, _LANGUAGE_KEYS)] for one in value])
    )


def _has_pairs(value: Any) -> bool:
    """Return whether a value is a map of Arrow."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(one, tuple) and len(one) == 2 for one in value)
        and _strings([one[0] for one in value])
    )


def _strings(values: list[Any]) -> bool:
    return all(isinstance(one, str) for one in values)
