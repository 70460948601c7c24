"""How `look_alikes` reads images."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from anomalib_synth import generators
from anomalib_synth.commands import generate
from anomalib_synth.commands.look_alikes import look_alikes
from anomalib_synth.images import WhitePoint
from anomalib_synth.learning import missed_samples

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("kept", "given", "used"), [(4095, None, 12), (4095, 10, 10), (None, None, None)])
def test_images_are_read_as_the_detector_was_shown_them_when_nothing_else_is_said(
    tmp_path: Path, monkeypatch, kept, given, used
) -> None:
    asked = {}

    def stop(*_: object, bit_depth: int | None, generator: object, **__: object) -> None:
        asked.update(bit_depth=bit_depth, white=generator.white_point)
        raise InterruptedError

    trained = SimpleNamespace(white_point=WhitePoint(kept, None))
    monkeypatch.setattr(missed_samples, "TrainedDetector", lambda *_, **__: trained)
    monkeypatch.setattr(
        generators,
        "LookAlikeGenerator",
        lambda *_, white_point, **__: SimpleNamespace(white_point=white_point, check=list),
    )
    monkeypatch.setattr(generate, "generate", stop)
    with pytest.raises(InterruptedError):
        look_alikes(tmp_path, tmp_path, tmp_path / "out", detector=tmp_path, bit_depth=given)
    assert asked == {"bit_depth": used, "white": None if used is None else 2**used - 1}
