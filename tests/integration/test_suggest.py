"""`anomalib-synth suggest` on real images: masks and boxes in, a table and an overlay out."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from anomalib_synth.cli import main
from anomalib_synth.generators import RuleBasedGenerator, build_generator
from tests.contract import render_normals


def save(path, image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((image.permute(1, 2, 0).numpy() * 255).round().astype("uint8")).save(path)


@pytest.fixture
def folders(tmp_path):
    """Good images, and images of holes: most with a mask, one with a box, one with nothing."""
    images = render_normals(6, 3, 96, 96)
    sample = RuleBasedGenerator(["hole"], size=(0.15, 0.3), strength=(0.9, 1.0))(images, seeds=range(6))
    for number in range(6):
        save(tmp_path / "good" / f"{number}.png", images[number])
        path = tmp_path / "defects" / "pit" / f"{number}.png"
        save(path, sample.image[number])
        mask = sample.mask[number, 0].numpy() > 0
        if number < 4:
            Image.fromarray((mask * 255).astype("uint8")).save(path.with_name(f"{number}_mask.png"))
        elif number == 4:
            rows, columns = np.nonzero(mask)
            points = [[int(columns.min()), int(rows.min())], [int(columns.max()), int(rows.max())]]
            shape = {"label": "pit", "points": points, "shape_type": "rectangle", "flags": {}, "group_id": None}
            document = {"version": "5.0.0", "flags": {}, "shapes": [shape], "imagePath": path.name, "imageData": None}
            document |= {"imageHeight": 96, "imageWidth": 96}
            path.with_suffix(".json").write_text(json.dumps(document))
    return tmp_path


FEW = ["--families=[hole,scratch,noise,streaks]", "--per_family=10", "--image_size=96"]


def test_holes_are_suggested_and_the_overlay_draws_them_when_real_defects_are_holes(folders, capsys) -> None:
    out = folders / "suggested.yaml"
    main(["suggest", f"--normals={folders / 'good'}", f"--defects={folders / 'defects'}", f"--out={out}", *FEW])
    printed = capsys.readouterr().out
    assert "Left out 5.png of `defects`: no outline and no box says where its defect is." in printed
    assert "5 real defects" in printed
    overlay = yaml.safe_load(out.read_text())
    (callback,) = overlay["trainer"]["callbacks+"]
    generator = build_generator(callback["init_args"]["generator"])
    drawn = getattr(generator, "generators", [generator])
    assert next(iter(drawn[0].families)) == "hole"
    assert generator(render_normals(4, 3, 96, 96), seeds=range(4)).accepted.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--per_family=3"], "`per_family` must be >= 10, got 3"),
        (["--out=table.txt"], "`out` must be a file with the suffix .yaml"),
        (["--families=[scratsh]"], "`families` must name known families"),
        (["--masks=missing"], "`masks` must be a folder with masks"),
    ],
)
def test_bad_arguments_end_in_one_line(folders, arguments, message) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["suggest", f"--normals={folders / 'good'}", f"--defects={folders / 'defects'}", *FEW, *arguments])
    assert message in str(ended.value)


def test_defects_without_a_mark_are_refused_with_the_remedy(folders) -> None:
    save(folders / "unmarked" / "0.png", render_normals(1, 3, 96, 96)[0])
    with pytest.raises(SystemExit) as ended:
        main(["suggest", f"--normals={folders / 'good'}", f"--defects={folders / 'unmarked'}", *FEW])
    assert "anomalib-synth review --images" in str(ended.value)
