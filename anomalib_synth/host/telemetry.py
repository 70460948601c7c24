"""Keeps OpenVINO's telemetry off: it reports imports and conversions over the network.

openvino_telemetry 2025.2 does so unless the user has declined, or the environment variable ``CI`` says that it runs in
CI.
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
    """Keep OpenVINO off the network within this context, while it is imported or converts a model."""
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
    """Import OpenVINO without telemetry and return the module.

    Raises:
        ImportError: If OpenVINO is not installed.
    """
    with without_telemetry():
        return importlib.import_module("openvino")
