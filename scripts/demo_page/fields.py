"""How the page reads what a visitor has typed into a field."""

from typing import Any


def read_number(name: str, value: Any, low: float, high: float, whole: bool = False) -> float:
    """
    Read what was typed into a field.

    Args:
        name (`str`):
            The field, as the page calls it.
        value:
            What it holds: anything.
        low (`float`), high (`float`):
            The range, both ends included.
        whole (`bool`, defaults to `False`):
            Whether it must be an integer, which is then returned as one.

    Raises:
        `ValueError`: it is not such a number; the message is written for the visitor.
    """
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if not low <= number <= high or (whole and number % 1):
        kind, got = "a whole number" if whole else "a number", "nothing" if value in (None, "") else f"{value!r:.40}"
        raise ValueError(f"{name} must be {kind} from {low} to {high}, got {got}.")
    return int(number) if whole else number
