"""Makes the pages of commands and configurations from the package itself, when the documentation is built."""

from __future__ import annotations

import ast
import inspect
import re
from typing import TYPE_CHECKING

import docstring_parser

from anomalib_synth.cli import COMMANDS, PROGRAM, load
from anomalib_synth.commands.configs import list_configs

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMANDS_HERE = "<!-- commands -->"
CONFIGS_HERE = "<!-- configs -->"
_KINDS = {"compare": "Comparisons", "synthesis": "Overlays", "train": "Complete configurations"}
_CONFIG_LINK = re.compile(r"\]\((?:\.\./)+configs/(\w+)/(\w+)\.yaml\)")


def fill_page(name: str, source: list[str]) -> None:
    """Put what is made from the package into a page, and turn links to configuration files into links to its page.

    Args:
        name: Name of the page.
        source: Its text, alone in a list, as Sphinx hands it out.
    """
    text = _CONFIG_LINK.sub(r"](#config-\1-\2)", source[0])
    if name == "reference/commands":
        text = text.replace(COMMANDS_HERE, "\n".join(describe_commands()))
    elif name == "reference/configs":
        text = text.replace(CONFIGS_HERE, "\n".join(describe_configs()))
    source[0] = text


def describe_commands() -> Iterator[str]:
    """Yield the lines of a section for each command: what its function's signature and docstring say."""
    for name, command in COMMANDS.items():
        function = load(name)
        parsed = docstring_parser.parse(function.__doc__ or "")
        yield from ("", f"(command-{name})=", f"## {name}", "", parsed.short_description or "", "")
        yield from (parsed.long_description or "").splitlines()
        parameters = inspect.signature(function).parameters
        required = [each for each in parameters.values() if each.default is each.empty]
        words = [f"--{each.name} {each.name.upper()}" for each in required]
        more = ["[--option value ...]"] if len(required) < len(parameters) else []
        yield from ("", "```text", " ".join([PROGRAM, name, *words, *more]), "```", "")
        explained = {each.arg_name: each.description or "" for each in parsed.params}
        for each in parameters.values():
            meaning = " ".join(explained[each.name].split())
            yield from (f"`--{each.name}` {_describe_value(each)}", f": {meaning}", "")
        yield from (f"Stopped by Ctrl-C: {command.stopped}", "")


def describe_configs() -> Iterator[str]:
    """Yield the lines of a section for each configuration: the comment it begins with, then the rest of the file."""
    kind = ""
    for name, path in list_configs().items():
        if name.partition("/")[0] != kind:
            kind = name.partition("/")[0]
            yield from ("", f"## {_KINDS[kind]}")
        lines = path.read_text(encoding="utf-8").splitlines()
        body = next(number for number, line in enumerate(lines) if not line.startswith("#"))
        yield from ("", f"(config-{name.replace('/', '-')})=", f"### {name}", "")
        for line in lines[:body]:
            text = line.removeprefix("#").removeprefix(" ")
            yield f"\n    {text.strip()}\n" if text.startswith("  ") else _as_plain_text(text)
        yield from ("", "```yaml", *lines[body:], "```")


def _describe_value(parameter: inspect.Parameter) -> str:
    """Return what kind of value an option takes, and what it is unless given."""
    kind = str(parameter.annotation).removesuffix(" | None")
    if kind == "Any":
        kind = "generator"
    elif kind.startswith("Literal["):
        kind = " or ".join(ast.literal_eval(f"({kind[8:-1]},)"))
    if parameter.default is parameter.empty:
        return f"({kind}, must be given)"
    if kind == "bool" and parameter.default is False:
        return "(switch)"
    if parameter.default is None:
        return f"({kind})"
    return f"({kind}, {parameter.default} unless given)"


def _as_plain_text(line: str) -> str:
    """Return a line of a comment as Markdown that shows it as it is."""
    return re.sub(r"([*_<>\[\]\\])", r"\\\1", line)
