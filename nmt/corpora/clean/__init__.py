"""Cleaning: one normal form for all text, and the checks that reject a text or a pair, each with its reason.

| module | contents |
|---|---|
| `text` | normal forms |
| `scripts` | letters and lengths of scripts |
| `han` | Simplified and Traditional characters |
| `signs` | signs of text that was tokenised, or is otherwise not what it is taken for |
| `filters` | the checks of a row |
| `overlap` | the check against held-out text |
| `identify` | identification of languages, an option |

None of it runs when a model translates.
"""

from nmt.corpora.clean.filters import Filters
from nmt.corpora.clean.reasons import Reason
from nmt.corpora.clean.text import digit_template, fold, normalise

__all__ = ["Filters", "Reason", "digit_template", "fold", "normalise"]
