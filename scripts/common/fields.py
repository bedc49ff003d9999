"""Fields of a program, grouped in dataclasses: from a recipe and the command line to checked values and back."""

import argparse
import difflib
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self, get_args

from huggingface_hub.errors import StrictDataclassError
from transformers import HfArgumentParser

from scripts.common.records import parse_recipe, read_recipe


LARGEST_INTEGER = 2**63 - 1
# what --help shows for the value of a field that is one
MAPPING, LIST = "MAPPING", "LIST"


def described(default: Any, text: str, **shown: str) -> Any:
    """
    A dataclass field with its `--help` line.

    With `metavar=MAPPING` its type is `Mapping | str | None`: a mapping in a recipe, YAML text as a flag. With
    `metavar=LIST` it is `Sequence | str | None`: a list in a recipe, JSON text as a flag.
    """
    return field(default=default, metadata={"help": text, **shown})


def read_mapping(name: str, given: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """
    Return the value of a field that is a mapping; numbers and truth values in it are parsed, all else stays text.

    Raises:
        `ValueError`: the field `name` is given something else.
    """
    return _values(parse_recipe(f"`{name}`", given) if isinstance(given, str) else given or {})


def read_integers(name: str, given: Sequence | str | None) -> list[int] | None:
    """
    Return the value of a field that is a list of integers, as it is or as JSON text; a recipe holds text.

    Raises:
        `ValueError`: the field `name` is given something else.
    """
    try:
        values = _values(json.loads(given) if isinstance(given, str) else given)
    except ValueError:
        values = given
    if values is not None and not (isinstance(values, list) and all(type(value) is int for value in values)):
        raise ValueError(f"`{name}` must be a list of integers, e.g. [2, 1], got {given!r}")
    return values


def _values(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {name: _values(value) for name, value in content.items()}
    if isinstance(content, list):
        return [_values(value) for value in content]
    try:
        value = json.loads(content) if isinstance(content, str) else content
    except ValueError:
        return content
    return value if isinstance(value, int | float) else content


def unknown(what: str, name: str, names: Iterable[str]) -> str:
    """Return the message about a name that is not one of `names`, with the closest of them."""
    close = difflib.get_close_matches(name, names, n=1)
    return f"{what} `{name}`" + (f", did you mean `{close[0]}`?" if close else "")


def _has_none(kind: Any) -> bool:
    """Whether the word none is a value of a field of this type, which its null is not."""
    return "none" in get_args(kind) or any(map(_has_none, get_args(kind)))


class _HelpFormatter(argparse.HelpFormatter):
    """Shows one spelling, the type and the default of each field."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=36)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if action.nargs == 0:  # --help
            return super()._format_action_invocation(action)
        metavar = action.metavar or (action.type.__name__ if action.choices is None else "...")
        return f"{action.option_strings[0]} {metavar}"

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help
        if action.choices is not None:
            text += f" One of {', '.join(map(str, action.choices))}."
        if action.required:
            return f"{text} Required."
        return text if action.nargs == 0 or action.default is None else f"{text} Default: %(default)s."


# what argparse says, and the same as all other errors say it
_MESSAGES = {
    r"argument --(\w+)[^:]*: invalid (\w+) value: (.*)": r"`\1` must be of type \2, got \3",
    r"argument --(\w+)[^:]*: invalid choice: (.*) \(choose from (.*)\)": r"`\1` must be one of \3, got \2",
    r"argument --(\w+)[^:]*: Truthy value expected: got (.*) but .*": r"`\1` must be true or false, got '\2'",
    r"argument --(\w+)[^:]*: expected one argument": r"`\1` must have a value, got none",
}


class _Parser(HfArgumentParser):
    def error(self, message: str):
        """Raise `ValueError` instead of ending the program: the fields may come from a recipe."""
        for pattern, ours in _MESSAGES.items():
            message = re.sub(f"^{pattern}$", ours, message)
        if missing := message.partition("the following arguments are required: ")[2]:
            names = [f"`{flag.split('/')[0].lstrip('-')}`" for flag in missing.split(", ")]
            message = f"{' and '.join(names)} must be given, by a recipe or as a flag"
        raise ValueError(message)


@dataclass
class FieldGroups:
    """
    Base of a dataclass whose fields are groups: dataclasses with a `_argument_group_name`, the title in --help.

    Fields that the program computes (`init=False`) are recorded, but cannot be given and are not read back.
    """

    @classmethod
    def parse(cls, argv: Sequence[str] | None, usage: str, description: str | None = None) -> Self:
        """
        Read `--recipe FILE` and flags, each flag winning over the recipe.

        Ends the program with status 2 and a message that names the field where one is unknown or cannot be used.
        """
        parser = cls._parser(usage, description)
        recipe_parser = _Parser(add_help=False, allow_abbrev=False)
        recipe_parser.add_argument("--recipe")
        try:
            known, flags = recipe_parser.parse_known_args(argv)
            if known.recipe is not None:
                flags = cls._flags(read_recipe(Path(known.recipe)), f"recipe {known.recipe}: ") + flags
            return cls._build(parser, flags)
        except ValueError as error:
            parser.print_usage(sys.stderr)
            parser.exit(2, f"{parser.prog}: error: {' '.join(str(error).split())}\n")

    @classmethod
    def from_dict(cls, recipe: Mapping[str, Any]) -> Self:
        """
        The inverse of `as_dict`; fields that a recipe of an older version lacks get their defaults.

        Raises:
            `ValueError`: a field is unknown or cannot be used; the message names it.
        """
        return cls._build(cls._parser(), cls._flags(recipe))

    def as_dict(self) -> dict[str, Any]:
        """All fields in one flat mapping, as a recipe holds them."""
        return {name: value for group in vars(self).values() for name, value in asdict(group).items()}

    @classmethod
    def _parser(cls, usage: str = "", description: str | None = None) -> _Parser:
        groups = [item.type for item in fields(cls)]
        parser = _Parser(groups, description=description, formatter_class=_HelpFormatter, allow_abbrev=False)
        parser.usage = f"%(prog)s {usage}"
        parser.add_argument("--recipe", metavar="FILE", type=str, help="YAML file of fields; flags win over it.")
        return parser

    @classmethod
    def _flags(cls, recipe: Mapping[str, Any], where: str = "") -> list[str]:
        known = {item.name: item for group in fields(cls) for item in fields(group.type)}
        flags = []
        for name, value in recipe.items():
            if name not in known:
                raise ValueError(f"{where}{cls._unknown_field(name)}")
            if isinstance(value, dict | list):
                if known[name].metadata.get("metavar") not in (MAPPING, LIST):
                    raise ValueError(f"{where}must give `{name}` one value, got a {type(value).__name__}")
                value = json.dumps(value)
            if value is None and _has_none(known[name].type):
                raise ValueError(f"{where}must give `{name}` a value, got null: write `none`, or leave it out")
            if value is not None and known[name].init:
                flags.append(f"--{name}={value}")
        return flags

    @classmethod
    def _build(cls, parser: _Parser, flags: Sequence[str]) -> Self:
        for flag in flags:
            if flag.endswith("=--"):  # argparse makes an empty list of it
                raise ValueError(f"{flag.partition('=')[0]} must have a value, got '--'")
        try:
            *groups, _, unknown = parser.parse_args_into_dataclasses(
                flags, return_remaining_strings=True, look_for_args_file=False
            )
            if unknown:
                raise ValueError(cls._unknown_field(unknown[0].lstrip("-").partition("=")[0]))
            for name, value in ((name, value) for group in groups for name, value in vars(group).items()):
                if isinstance(value, str) and not (value and value.isprintable()):
                    raise ValueError(f"`{name}` must be printable text, got {value!r}")
                if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
                    raise ValueError(f"`{name}` must be an integer of 64 bits, got one of {value.bit_length()}")
            return cls(*groups)
        except StrictDataclassError as error:
            raise ValueError(str(error.__cause__ or error)) from None

    @classmethod
    def _names(cls) -> list[str]:
        return [item.name for group in fields(cls) for item in fields(group.type) if item.init]

    @classmethod
    def _unknown_field(cls, name: str) -> str:
        return unknown("unknown field", name, cls._names())
