"""Names of the precisions of inference; imports no JAX, so that commands check them first."""

from typing import Literal, get_args

from nmt.errors import UserError, did_you_mean

Precision = Literal["float32", "bfloat16", "int8"]

PRECISIONS: dict[str, Precision] = {name: name for name in get_args(Precision)}
AUTO = "auto"  # the fastest on the devices there are


def check_precision(name: str | None) -> None:
    """Check the name of a precision, `auto`, or None, the recipe's.

    Raises:
      UserError: there is no such precision.
    """
    known = (AUTO, *PRECISIONS)
    if name is not None and name not in known:
        raise UserError(f"precision must be one of {', '.join(known)} (not {name}){did_you_mean(name, known)}")
