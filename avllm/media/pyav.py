"""What differs between the releases of PyAV, 17 to 19."""

from fractions import Fraction
from typing import Any

import av

# Up to 18 a title that is no UTF-8 stops the opening unless told otherwise; 19 never does, and dropped the argument.
OPENING: dict[str, Any] = {} if int(av.__version__.partition(".")[0]) >= 19 else {"metadata_errors": "replace"}


def as_fraction(rational: Any) -> Fraction | None:
    """A clock or a rate of PyAV; None where the file does not say.

    Up to 18 it is a `Fraction` or None; 19 has a type of its own, 0 for None, whose products are rounded to 32 bits.
    """
    return Fraction(rational.numerator, rational.denominator) if rational else None
