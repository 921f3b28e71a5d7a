"""Phrases that several messages have in common."""

from collections.abc import Sequence


def count_phrase(count: int, noun: str) -> str:
    """Return a number with its noun: `1 direction`, `2 directions`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def damaged_files(notes: Sequence[str]) -> str:
    """Return the warning about files that are damaged, as `CorpusReader.unreadable` notes them."""
    shown = "; ".join(notes[:3]) + ("; ..." if len(notes) > 3 else "")
    return f"{count_phrase(len(notes), 'damaged file')}: {shown}"


def unknown_languages(corpus: str, codes: Sequence[str]) -> str:
    """Return the warning about text that is left out because the registry does not know its language."""
    shown = ", ".join(codes[:10]) + (", ..." if len(codes) > 10 else "")
    return (
        f"left out of {corpus}: {count_phrase(len(codes), 'unknown language')} ({shown}); `languages` in its "
        "declaration can say which they are"
    )
