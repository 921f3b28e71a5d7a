"""The one exception class for mistakes that a person can put right."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what a person asked for: commands print it as one line and exit with status 2.

    Anything else that escapes a command is a bug of ours and keeps its traceback.
    """


def did_you_mean(wrong: str, known: Iterable[str], most: int = 3) -> str:
    """Return `"; did you mean a, b?"`, or an empty string when nothing known is near `wrong`."""
    candidates = list(known)
    folded = {name.lower(): name for name in candidates}
    near = difflib.get_close_matches(wrong.lower(), folded, n=most, cutoff=0.6)
    return f"; did you mean {', '.join(folded[name] for name in near)}?" if near else ""
