"""The directions that a model can translate; imports no JAX, so that commands can check before they load anything."""

from nmt.data.vocab import Vocabulary
from nmt.errors import UserError
from nmt.languages import Direction, get


def resolve_direction(vocabulary: Vocabulary, source: str, target: str) -> Direction:
    """Return the direction of two languages in any spelling: `de`, `deu`, `de-DE`, `deu_Latn`, `German`.

    Args:
      vocabulary: the vocabulary of sources, which has the tags.
      source: language of the text.
      target: the language wanted.

    Raises:
      UserError: a language is unknown, or has no tag in the vocabulary, or both are the same.
    """
    direction = Direction(get(source).code, get(target).code)
    for code in direction:
        vocabulary.tag(code)
    if direction.source == direction.target:
        raise UserError(f"source and target language are the same: {direction.source}")
    return direction
