"""What may come of an input: an answer that a check finds right, or one refusal that says what to change."""

from collections.abc import Iterable
from random import Random
from typing import Any

from huggingface_hub.errors import StrictDataclassError


REFUSALS = (ValueError, TypeError, NotImplementedError, StrictDataclassError)
# numbers and other things that no field, or hardly one, can take
ODD = (None, True, False, -1, 0, 1, 2, 3, 7, 10**9, 10**30, 0.0, 0.5, 1.0, 1.5, -0.5, 1e-300, 1e300)
ODD += (float("nan"), float("inf"), float("-inf"), "", "3", "text", "é\n", [], [1, 2], {}, {"a": 1}, b"3", (1,))
# the same as words of a command line
ODD_WORDS = ("", " ", "-1", "0", "1", "2", "3", "7", "1.5", "0.5", "-0.5", "1e400", "1e-300", "nan", "inf", "-inf")
ODD_WORDS += ("1000000000000000000000000", "text", "é", "a b", "None", "true", "[1]", "{}", "1,2", "--", "1\n2", "..")


class Fault(AssertionError):
    """An outcome that no input may have."""


def check(holds: bool, what: str):
    """Raise [`Fault`] unless it holds."""
    if not holds:
        raise Fault(what)


def check_message(message: str, names: Iterable[str] = ()):
    """A refusal is one line of text, not a traceback, and says one of `names` where there are any."""
    text = message.strip()
    check(bool(text), "an empty error")
    check("\n" not in text and "Traceback" not in text, f"an error of several lines: {text!r:.300}")
    names = list(names)
    check(not names or any(name in text for name in names), f"an error that names none of {names}: {text!r:.300}")


def describe(value: Any) -> str:
    """A short form of an input for a report."""
    return f"{value!r:.400}"


def some(rng: Random, values: Iterable[Any], most: int) -> list[Any]:
    """One to `most` different values."""
    values = list(values)
    return rng.sample(values, rng.randint(1, min(most, len(values))))
