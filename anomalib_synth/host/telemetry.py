"""OpenVINO tells its makers over the network that it was imported, and that its converter was used.

openvino_telemetry 2025.2 does so unless its user has declined, or it runs in CI, which it tells by the variable ``CI``.
"""

from __future__ import annotations

import importlib
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_VARIABLE = "CI"


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Keep OpenVINO off the network, where it is imported or converts a model."""
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = before


def import_openvino() -> Any:
    """Return OpenVINO; nobody is told.

    Raises:
        ImportError: If it is not installed.
    """
    with without_telemetry():
        return importlib.import_module("openvino")
