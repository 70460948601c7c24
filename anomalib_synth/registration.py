"""Registers the bundled backbone with timm: now if timm is there, else as soon as someone imports it.

So `import anomalib_synth` is enough for a config to name the backbone, and takes no seconds where nobody does.
"""

from __future__ import annotations

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

BACKBONE_NAME = "efficientnet_lite0_bundled"
_HOST, _OURS = "timm", "anomalib_synth.models.bundled_backbone"


def register_backbone() -> None:
    """Register it, or see to it that it will be."""
    if _HOST in sys.modules:
        importlib.import_module(_OURS)
    elif not any(isinstance(finder, _Waiting) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Waiting())


class _Waiting(MetaPathFinder):
    """Adds to what timm's own loader does. Who only asks whether timm is there changes nothing."""

    def __init__(self) -> None:
        self._asking = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find timm as anyone else would."""
        if fullname != _HOST or self._asking:
            return None
        self._asking = True
        try:
            spec = find_spec(fullname)
        finally:
            self._asking = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Registering(spec.loader)
        return spec


class _Registering(Loader):
    """A loader that registers the backbone once its module is complete."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        """Be the other loader in all else, such as reading its files."""
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Make the module."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module, then register."""
        spec = module.__spec__
        if spec is not None:
            spec.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        importlib.import_module(_OURS)
