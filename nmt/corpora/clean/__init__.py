"""Cleaning: one normal form for all text, and the reason why a text or a pair is not kept.

`text` has normal forms, `scripts` what is known of scripts, `filters` the checks of a row, `overlap` those against
held-out text, `identify` the optional identification of languages. None of it runs when a model translates.
"""

from nmt.corpora.clean.filters import Filters
from nmt.corpora.clean.reasons import Reason
from nmt.corpora.clean.text import digit_template, fold, normalise

__all__ = ["Filters", "Reason", "digit_template", "fold", "normalise"]
