"""Colours of the heat map: from nearly white at 0 BLEU to a deep blue at `FULL`, the same in every report."""

FULL = 50.0  # BLEU from which cells get no darker
_LIGHT, _DEEP = (239, 246, 252), (8, 69, 128)


def background(bleu: float) -> str:
    """Return the colour of a cell, `#rrggbb`."""
    share = min(max(bleu / FULL, 0.0), 1.0)
    return "#" + "".join(
        f"{round(light + share * (deep - light)):02x}" for light, deep in zip(_LIGHT, _DEEP, strict=True)
    )


def foreground(bleu: float) -> str:
    """Return the colour of the text in a cell: of black and white the one with more contrast to its background."""
    return "#ffffff" if bleu > 0.7 * FULL else "#000000"
