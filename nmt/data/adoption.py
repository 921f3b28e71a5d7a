"""SentencePiece models of other makers, rewritten to the ids that vocabularies of this toolkit have:

    padding, begin, end, unknown, tags, other control symbols, then the pieces as they were, then bytes if they had none

The model still normalises and divides text as before; only ids change.
"""

from collections.abc import Sequence

import sentencepiece

from nmt.data.vocab import BEGIN, END, PAD, UNKNOWN, is_toolkit_vocabulary
from nmt.errors import UserError

_SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")


def adopt(model: bytes, name: str, languages: Sequence[str], symbols: Sequence[str] = ()) -> bytes:
    """Add tags and control symbols to a SentencePiece model, and return its bytes.

    A vocabulary of this toolkit that has the tags already is returned unchanged.

    Args:
      model: the bytes of a SentencePiece model.
      name: name of the model in errors.
      languages: canonical codes that need a tag, in order.
      symbols: other control symbols, in order.

    Raises:
      UserError: the bytes are no SentencePiece model.
    """
    wanted = [*(f">>{language}<<" for language in languages), *symbols]
    if is_toolkit_vocabulary(model, tagged=bool(wanted)):
        return model
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2 as protocol

    try:
        whole = protocol.ModelProto.FromString(model)
        sentencepiece.SentencePieceProcessor(model_proto=model)
    except (DecodeError, RuntimeError):
        whole = protocol.ModelProto()
    if not whole.pieces:
        raise UserError(f"{name} is no SentencePiece model")
    kinds = protocol.ModelProto.SentencePiece
    taken = {*_SPECIALS, *wanted}
    pieces = [one for one in whole.pieces if one.type not in (kinds.CONTROL, kinds.UNKNOWN) and one.piece not in taken]
    head = [
        kinds(piece=piece, score=0.0, type=kinds.UNKNOWN if piece == _SPECIALS[UNKNOWN] else kinds.CONTROL)
        for piece in (*_SPECIALS, *wanted)
    ]
    has_bytes = any(one.type == kinds.BYTE for one in pieces)
    tail = [] if has_bytes else [kinds(piece=f"<0x{byte:02X}>", score=0.0, type=kinds.BYTE) for byte in range(256)]
    del whole.pieces[:]
    whole.pieces.extend([*head, *pieces, *tail])
    trainer = whole.trainer_spec
    trainer.vocab_size, trainer.byte_fallback = len(whole.pieces), True
    trainer.pad_id, trainer.bos_id, trainer.eos_id, trainer.unk_id = PAD, BEGIN, END, UNKNOWN
    trainer.pad_piece, trainer.bos_piece, trainer.eos_piece, trainer.unk_piece = _SPECIALS
    del trainer.control_symbols[:]
    trainer.control_symbols.extend(wanted)
    return bytes(whole.SerializeToString(deterministic=True))
