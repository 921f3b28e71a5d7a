"""Phrases that several messages have in common."""

from collections.abc import Sequence


def count_phrase(count: int, noun: str) -> str:
    """Return a number with its noun: `1 direction`, `2 directions`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def damaged_files(notes: Sequence[str]) -> str:
    """Return the warning of files that could not be read, or not to their end; see `Source.unreadable`."""
    shown = "; ".join(notes[:3]) + ("; ..." if len(notes) > 3 else "")
    return f"{count_phrase(len(notes), 'damaged file')}: {shown}"


def unknown_languages(corpus: str, codes: Sequence[str]) -> str:
    """Return the warning of codes of a corpus that the registry does not know, whose text is left out."""
    shown = ", ".join(codes[:10]) + (", ..." if len(codes) > 10 else "")
    return (
        f"left out of {corpus}: {count_phrase(len(codes), 'unknown language')} ({shown}); `languages` in its "
        "declaration can say which they are"
    )
