"""Reads the arguments of a command from its signature and its docstring."""

from __future__ import annotations

import contextlib
import inspect
import json
import sys
from typing import TYPE_CHECKING, Any, get_args, get_origin

from jsonargparse import ArgumentError, ArgumentParser

from anomalib_synth.commands.suggestions import suggest_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

GENERATOR = "generator"  # parsed separately: its class decides which arguments it takes, and takes seconds to import
_WORDS = {"true", "false", "yes", "no"}
_ALONE = {"help", "print_config"}


def parse_arguments(function: Callable[..., None], name: str, given: Sequence[str]) -> dict[str, Any]:
    """Return the arguments with which a command is called.

    In the names of options, hyphens count as underscores. A switch needs no value. A list `[a, b]` may be written
    `a,b`. A configuration is a file, or the name of one that comes with the package.

    Args:
        function: The command.
        name: Its name.
        given: The arguments of the command line.

    Raises:
        SystemExit: With status 2 and a message if they cannot be parsed, with status 0 after help.
        ValueError: If the generator cannot be built.
    """
    parameters = inspect.signature(function, eval_str=True).parameters
    with _refusing(name):
        tokens = list(_tidy(given, parameters))
        mine = [token for token in tokens if not token.startswith((f"--{GENERATOR}=", f"--{GENERATOR}."))]
        others = [token for token in tokens if token not in mine] if GENERATOR in parameters else []
        if any(token.startswith(f"--{GENERATOR}.help") for token in others):
            _read_generator(others)  # prints and ends
        _check_required(tokens, parameters)
        parser = _make_parser(function, name)
        found = parser.parse_args(mine if others else tokens)
        arguments = {key: getattr(parser.instantiate_classes(found), key) for key in parameters}
        section = arguments.get(GENERATOR)
        if section is not None:
            others.insert(0, f"--{GENERATOR}={section if isinstance(section, str) else json.dumps(section)}")
        reading = _read_generator(others) if others else None
    if reading is not None:
        parser, found = reading
        arguments[GENERATOR] = getattr(parser.instantiate_classes(found), GENERATOR)
    return arguments


def _check_required(tokens: Sequence[str], parameters: Mapping[str, inspect.Parameter]) -> None:
    """Refuse a command line without a required option, unless a configuration may hold it.

    Raises:
        ArgumentError: If a required option is missing.
    """
    given = {token[2:].partition("=")[0].partition(".")[0] for token in tokens}
    if given & {"config", *_ALONE}:
        return
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in given:
            raise ArgumentError(None, f"`--{name}` must be given.")


def _make_parser(function: Callable[..., None], name: str) -> ArgumentParser:
    parser = ArgumentParser(prog=f"anomalib-synth {name}", exit_on_error=False)
    text = "YAML file with any of these options, or the name of one that `anomalib-synth configs` lists."
    parser.add_argument("--config", action="config", help=text)
    parser.add_function_arguments(function, as_positional=False)
    return parser


def _read_generator(tokens: Sequence[str]) -> tuple[ArgumentParser, Any]:
    """Return the parser of the generator, and what it has parsed."""
    from anomalib_synth.generators import AnomalyGenerator

    parser = ArgumentParser(prog="anomalib-synth", exit_on_error=False)
    parser.add_argument(f"--{GENERATOR}", type=AnomalyGenerator, enable_path=True)
    return parser, parser.parse_args(list(tokens))


@contextlib.contextmanager
def _refusing(name: str) -> Iterator[None]:
    """Turn the parser's error about wrong arguments into one message.

    Raises:
        SystemExit: With status 2.
    """
    try:
        yield
    except ArgumentError as error:
        print(f"anomalib-synth {name}: {error}\n`anomalib-synth {name} --help` lists its options.", file=sys.stderr)
        raise SystemExit(2) from error


def _tidy(given: Sequence[str], parameters: Mapping[str, inspect.Parameter]) -> Iterator[str]:
    """Yield every option as one token ``--name=value``, with its real name.

    Raises:
        ArgumentError: If a token is not an option of the command, or an option has no value.
    """
    left = list(given)
    while left:
        token = left.pop(0)
        if token == "-h":
            token = "--help"
        if not token.startswith("--"):
            raise ArgumentError(None, f"{token!r} belongs to no option. Options are written `--name value`.")
        name, has_value, value = token[2:].partition("=")
        name = _find_name(name, parameters)
        if name in _ALONE:
            yield token
            continue
        if not has_value:
            if _is_switch(name, parameters) and (not left or left[0].lower() not in _WORDS):
                value = "true"
            elif left and not left[0].startswith("--"):
                value = left.pop(0)
            else:
                raise ArgumentError(None, f"`--{name}` must have a value, got none.")
        if name == "config":
            from anomalib_synth.commands.configs import find_config

            value = str(find_config(value))
        elif not value.lstrip().startswith("["):
            value = _write_list(value, parameters[name].annotation if name in parameters else None)
        yield f"--{name}={value}"


def _find_name(given: str, parameters: Mapping[str, inspect.Parameter]) -> str:
    first, dot, rest = given.partition(".")
    name = first.replace("-", "_")
    known = [*parameters, "config", *_ALONE]
    if name not in known:
        raise ArgumentError(None, f"there is no option `--{first}`.{suggest_names(name, known)}")
    return name + dot + (rest if _is_mapping(name, parameters) else rest.replace("-", "_"))


def _is_mapping(name: str, parameters: Mapping[str, inspect.Parameter]) -> bool:
    """Return whether an option is a mapping, so that the user chooses the keys after its name."""
    kind = parameters[name].annotation if name in parameters else None
    return dict in {get_origin(each) for each in (kind, *get_args(kind))}


def _write_list(value: str, kind: Any) -> str:
    """Return `a,b` as `[a, b]` for an option that takes several words or numbers."""
    if get_origin(kind) not in {list, tuple} or get_args(kind)[0] not in {str, int, float}:
        return value
    parts = [part.strip() for part in value.split(",") if part.strip()]
    return json.dumps(parts) if get_args(kind)[0] is str else f"[{', '.join(parts)}]"


def _is_switch(name: str, parameters: Mapping[str, inspect.Parameter]) -> bool:
    return name in parameters and parameters[name].annotation is bool
