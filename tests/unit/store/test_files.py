"""Files that are there whole."""

from __future__ import annotations

import pytest

from anomalib_synth.store.files import write_whole


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127])
def test_file_is_written_when_its_name_is_as_long_as_the_disk_allows(name, tmp_path) -> None:
    write_whole(tmp_path / name, b"whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"whole"
