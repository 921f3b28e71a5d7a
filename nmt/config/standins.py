"""Corpora that stand in for those whose files a person has not named.

A declaration may have its paths in a variable of the environment, as data/m4.yaml has, and say with `instead` which
corpus recipes learn from for as long as that variable is not set.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from nmt.config.documents import leaves, read_document
from nmt.errors import UserError
from nmt.files import find_declaration

VARIABLE = re.compile(r"\$(?:\{([A-Z_][A-Z0-9_]*)\}|([A-Z_][A-Z0-9_]*))")


def replace_unset_corpora(
    corpora: Sequence[str], say: Callable[[str], object], environment: Mapping[str, str] = os.environ
) -> tuple[str, ...]:
    """Return the corpora, with each whose variable is not set replaced by the one that its declaration names.

    Args:
      corpora: names or paths of declarations.
      say: called with one line for every replacement.
      environment: the variables.

    Corpora without a declaration that can be read stay: whoever needs them reports it.
    """
    replaced = []
    for name in corpora:
        try:
            values = read_document(find_declaration("data", name)).values
        except UserError:
            values = {}
        instead = values.get("instead")
        unset = [one for one in _variables(values) if not environment.get(one)] if isinstance(instead, str) else []
        if unset:
            say(f"corpus {name} is replaced by {instead}, since the environment variable {unset[0]} is not set")
            replaced.append(str(instead))
        else:
            replaced.append(name)
    return tuple(replaced)


def _variables(declaration: Mapping[str, Any]) -> Iterator[str]:
    """Yield the variables of the environment in the paths of a declaration."""
    for section in ("obtain", "read"):
        for _, value in leaves({section: declaration.get(section)}):
            for text in value if isinstance(value, tuple) else (value,):
                if isinstance(text, str):
                    yield from (found[1] or found[2] for found in VARIABLE.finditer(text))
