"""Multilingual neural machine translation with sparse mixture-of-experts Transformers, in JAX."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nmt.decode.translator import Translator

__version__ = "0.1.0"
__all__ = ["Translator", "__version__"]


def __getattr__(name: str) -> Any:
    # Importing JAX takes seconds; `import nmt` must not.
    if name == "Translator":
        from nmt.decode.translator import Translator

        return Translator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
