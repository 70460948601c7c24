"""Regions from the brush of the review page, through `generate`, with the models that come with the package."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit

import numpy as np
import pytest
import yaml
from PIL import Image

from anomalib_synth.cli import main
from anomalib_synth.generators.region_folder import RegionFolder
from anomalib_synth.store import SampleStore
from tests.contract import render_normals
from tests.integration.review_site import serve_marking

SIDE = 96


@pytest.fixture
def good(tmp_path):
    """Four good images in a folder `good`."""
    folder = tmp_path / "parts" / "train" / "good"
    folder.mkdir(parents=True)
    for number, image in enumerate(render_normals(4, 3, SIDE, SIDE)):
        Image.fromarray((image.permute(1, 2, 0).numpy() * 255).round().astype("uint8")).save(
            folder / f"{number:03d}.png"
        )
    return folder


def paint(address: str, name: str, points: list[list[int]], radius: int) -> None:
    """Paint on an image of the page, as the brush does."""
    netloc = urlsplit(address).netloc

    def ask(path: str, body=None):
        connection = http.client.HTTPConnection(netloc, timeout=60)
        data = None if body is None else json.dumps(body).encode()
        connection.request("GET" if body is None else "POST", path, data, {"content-type": "application/json"})
        answer = connection.getresponse()
        found = answer.read()
        assert answer.status == 200, found
        connection.close()
        return json.loads(found)

    key = next(each["id"] for each in ask("/api/images")["images"] if each["name"] == name)
    seen = ask(f"/api/images/{key}")["version"]
    edit = {"kind": "brush", "points": points, "radius": radius, "erase": False}
    ask(f"/api/images/{key}/edit", {"seen": seen, "type": "region", "edit": edit})


def test_nothing_outside_of_the_painted_regions_changes_when_generate_draws_into_them(good, tmp_path) -> None:
    regions, store = tmp_path / "regions", tmp_path / "store"
    with serve_marking(good, regions, of_regions=True) as address:
        paint(address, "000.png", [[20, 20], [60, 20]], 9)
        paint(address, "002.png", [[70, 70]], 16)
    assert sorted(path.name for path in regions.glob("*.png")) == ["000_mask.png", "002_mask.png"]
    (tmp_path / "drawn.yaml").write_text(
        yaml.safe_dump(
            {
                "class_path": "anomalib_synth.generators.AutoregressiveGenerator",
                "init_args": {
                    "region": str(regions),
                    "prompts": ["a dark stain"],
                    "strength": [1.0, 1.0],
                    "checks": {"min_visibility": 0.05, "min_agreement": 0.01},
                },
            }
        )
    )
    main(
        ["generate", f"--normals={good}", f"--out={store}", "--num_samples=4", f"--generator={tmp_path / 'drawn.yaml'}"]
    )
    opened = SampleStore.open(store)
    found = {record.source: record for record in opened.records}
    assert len(found) == 4
    folder = RegionFolder(regions)
    for name, record in found.items():
        region = folder.find(name)
        assert record.accepted == (region is not None), record.reason
        if region is None:
            assert record.reason == f"there is no region for {name!r}"
            continue
        image, source, mask = (
            np.asarray(Image.open(store / file)) for file in (record.image_file, record.source_file, record.mask_file)
        )
        inside = np.asarray(Image.open(region)) > 127
        assert not mask[~inside].any()
        assert (image == source)[~inside].all()
        assert (image != source)[inside].any()
