"""A generator as the YAML that the commands take, with a placeholder for the chosen families."""

from __future__ import annotations

import json
import re
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from anomalib_synth.generators import RuleBasedGenerator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anomalib_synth.generators import AnomalyGenerator

_ROOM = "@families@"
_OVERLAY = """\
trainer:
  callbacks+:
    - class_path: anomalib_synth.callbacks.SynthesisCallback
      init_args:
        generator:
{generator}
        probability: 0.5
"""


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """The two files that use a generator.

    Args:
        generator: What ``anomalib-synth generate --generator FILE`` takes.
        overlay: What ``anomalib train --config YOUR.yaml --config FILE`` takes.
        entries: The line of each family, by name; a line ``@families@`` in both texts stands for the chosen ones.
            Empty for a generator that is not rule-based.
    """

    generator: str
    overlay: str
    entries: dict[str, str]

    def fill(self, text: str, chosen: Sequence[str] | None = None) -> str:
        """Return one of the texts with the chosen families, by default all of them."""
        names = self.entries if chosen is None else chosen
        return re.sub(
            rf"^( *){_ROOM}$",
            lambda found: "\n".join(found[1] + self.entries[name] for name in names),
            text,
            count=1,
            flags=re.MULTILINE,
        )


def describe_generator(generator: AnomalyGenerator) -> GeneratorConfig:
    """Return the files for a generator, without arguments that have their default."""
    config = json.loads(json.dumps(generator.config, default=str))
    if not isinstance(generator, RuleBasedGenerator):
        text = _dump(config)
        return GeneratorConfig(generator=text, overlay=_wrap(text), entries={})
    arguments = dict(config["init_args"])
    weights = arguments.pop("families")
    if type(generator) is RuleBasedGenerator:  # the user's subclass may have other defaults
        defaults = json.loads(json.dumps(RuleBasedGenerator().init_args))
        arguments = {name: value for name, value in arguments.items() if value != defaults[name]}
    alike = len(set(weights.values())) == 1
    entries = {name: _dump([name] if alike else {name: weight}).strip() for name, weight in weights.items()}
    text = f"class_path: {config['class_path']}\ninit_args:\n  families:\n    {_ROOM}\n"
    text += textwrap.indent(_dump(arguments), "  ") if arguments else ""
    return GeneratorConfig(generator=text, overlay=_wrap(text), entries=entries)


def _wrap(generator: str) -> str:
    return _OVERLAY.format(generator=textwrap.indent(generator.rstrip("\n"), 10 * " "))


def _dump(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=10**6)
