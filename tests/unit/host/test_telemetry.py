"""Exporting reaches no network."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
import contextlib, multiprocessing, socket, sys
def refuse(*_, **__):
    print("network")
    raise OSError
multiprocessing.Process.start = socket.socket.connect = refuse
import torch
from anomalib_synth.host.telemetry import import_openvino, without_telemetry
openvino = import_openvino()
with without_telemetry():
    openvino.convert_model(torch.nn.ReLU(), example_input=torch.zeros(1, 3))
"""


def test_nothing_is_sent_when_openvino_is_imported_and_converts(tmp_path) -> None:
    pytest.importorskip("openvino")
    environment = {name: value for name, value in os.environ.items() if name not in {"CI", "TF_BUILD", "JENKINS_URL"}}
    run = subprocess.run(
        [sys.executable, "-c", CODE],
        check=True,
        env={**environment, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert "network" not in run.stdout
