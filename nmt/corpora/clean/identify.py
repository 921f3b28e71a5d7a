"""Identification of languages, an option, by py3langid; its package contains a model of 139 languages."""

from typing import Any

from nmt import languages
from nmt.errors import UserError

# Shorter texts are too uncertain.
FEWEST_CHARACTERS = 20


class Identifier:
    """Identifies texts in another language than the expected one.

    Args:
      confidence: least probability of the other language.
    """

    def __init__(self, confidence: float) -> None:
        """Load the model. Raises UserError when py3langid is not installed."""
        try:
            # mypy sees the optional package or does not, by where it runs.
            from py3langid.langid import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
                MODEL_FILE,
                LanguageIdentifier,
            )
        except ImportError:
            raise UserError(
                "data.clean.language_confidence needs py3langid: pip install 'nmt-moe[langid]', or set it to null"
            ) from None
        self._model: Any = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        self._known = set(self._model.nb_classes)
        self._confidence = confidence

    def other(self, text: str, language: str) -> bool:
        """Return whether a text is in another language than `language` (canonical code), with enough confidence.

        False for a text of fewer than 20 characters, and for a language that the model does not know.
        """
        wanted = self._label(language)
        if wanted is None or len(text) < FEWEST_CHARACTERS:
            return False
        found, probability = self._model.classify(text)
        return found != wanted and probability >= self._confidence

    def _label(self, language: str) -> str | None:
        """Return the model's label of a language, without script and region: its code, or an alias (no for nb)."""
        known = languages.get(language)
        names = (language.partition("-")[0], known.iso639_3, *known.aliases)
        return next((name for name in names if name in self._known), None)
