"""The preview: its small pictures, its layout, its page and its configuration."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from anomalib_synth.cli import main
from anomalib_synth.generators import MixtureGenerator, RuleBasedGenerator
from anomalib_synth.generators.checks import SampleChecks
from anomalib_synth.generators.from_config import build_generator
from anomalib_synth.report import preview
from anomalib_synth.report.preview_config import describe_generator
from anomalib_synth.report.preview_page import make_page
from anomalib_synth.report.preview_picture import TILE, check_height, lay_out, paint
from anomalib_synth.report.preview_samples import Drawing, Section, describe, draw_sections
from anomalib_synth.report.preview_tiles import TILES, draw_tiles, find_place
from anomalib_synth.sample import AnomalySample
from tests.contract import render_normals

STRICT = SampleChecks(min_visibility=1000.0)  # nothing is ever so visible


def draw_square(height: int, width: int, place: tuple[slice, slice]) -> AnomalySample:
    """A grey image with a white defect."""
    source = torch.full((1, 3, height, width), 0.5)
    image, mask = source.clone(), torch.zeros(1, 1, height, width)
    image[:, :, place[0], place[1]] = 1.0
    mask[:, :, place[0], place[1]] = 1.0
    record = AnomalySample.unchanged(source, [None], "")
    record.image, record.mask = image, mask
    return record


def make_drawing(family: str, *, reason: str = "", size: tuple[int, int] = (160, 53)) -> Drawing:
    names = ["source"] if reason else list(TILES)
    tiles = {name: Image.new("RGB", size, "grey") for name in names}
    caption = "" if reason else f"a large {family}"
    return Drawing(family=family, caption=caption, reason=reason, quality=0.5, tiles=tiles)


@pytest.mark.parametrize(("height", "width"), [(60, 300), (300, 60), (90, 90), (1000, 700)])
def test_tiles_keep_the_proportions_when_images_are_not_square(height, width) -> None:
    tiles = draw_tiles(draw_square(height, width, np.s_[10:20, 10:20]), 0, 160)
    for name in ("source", "image", "outline"):
        assert max(tiles[name].size) == 160
        assert tiles[name].width / tiles[name].height == pytest.approx(width / height, rel=0.02)


@pytest.mark.parametrize("place", [np.s_[0:8, 0:8], np.s_[120:128, 190:200], np.s_[60:70, 100:102]])
def test_enlarged_place_holds_the_whole_defect_when_it_is_small(place) -> None:
    sample = draw_square(128, 200, place)
    mask = sample.mask[0, 0].numpy() > 0
    source, image = (x[0].permute(1, 2, 0).mul(255).byte().numpy() for x in (sample.source, sample.image))
    left, top, right, bottom = find_place(source, image, mask)
    assert 0 <= left < right <= 200
    assert 0 <= top < bottom <= 128
    assert mask[top:bottom, left:right].sum() == mask.sum()
    assert right - left <= 0.4 * 200
    after = np.asarray(draw_tiles(sample, 0, 160)["after"])
    assert (after > 220).mean() > 0.01


def test_enlarged_place_is_where_most_changed_when_the_mask_is_wide() -> None:
    source = np.full((100, 100, 3), 100, dtype=np.uint8)
    mask = np.zeros((100, 100), dtype=bool)
    mask[5:95:10, 5:95] = True
    image = source.copy()
    image[mask] = 104
    image[64:67, 70:80] = 250
    mask[64:67, 70:80] = True
    left, top, right, bottom = find_place(source, image, mask)
    assert left <= 70
    assert right >= 80
    assert top <= 64
    assert bottom >= 67
    assert right - left == 40


def test_outline_is_seen_when_a_scratch_is_one_pixel_of_a_large_image() -> None:
    tiles = draw_tiles(draw_square(2000, 1500, np.s_[300:1500, 801:802]), 0, 160)
    pink = (np.asarray(tiles["outline"]) == (255, 45, 120)).all(2)
    assert pink.any(1).sum() >= 90  # along its whole length


def test_tile_is_grey_when_the_draw_failed() -> None:
    source = torch.rand(1, 3, 40, 40)
    tiles = draw_tiles(AnomalySample.unchanged(source, [None], "too faint"), 0, 80)
    assert list(tiles) == ["source"]
    assert np.ptp(np.asarray(tiles["source"]), axis=2).max() == 0


def test_every_family_is_named_when_the_picture_is_laid_out() -> None:
    generator = RuleBasedGenerator()
    images = list(render_normals(4, 3, 40, 96, seed=1))
    sections = draw_sections(generator.prepare(images), images, per_family=3, seed=0, size=TILE)
    layout = lay_out(sections)
    texts = [text.text for text in layout.texts]
    for family in generator.families:
        assert texts.count(family) == 1
        assert sum(text.startswith((f"{family}: ", f"{family}, not drawn")) for text in texts) == 3
    boxes = [(x, y, x + tile.width, y + tile.height) for x, y, tile in layout.tiles]
    assert all(0 <= a < c <= layout.width and 0 <= b < d <= layout.height for a, b, c, d in boxes)
    assert not any(
        min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1]) for a, b in combinations(boxes, 2)
    )
    assert paint(layout).size == (layout.width, layout.height)


def test_reason_is_written_in_full_when_a_draw_failed() -> None:
    reason = "change 0.3 times the noise of the good images, below 1, in each of 4 attempts that were made " * 3
    sections = [Section(name="dent", about="", drawings=[make_drawing("dent", reason=reason), make_drawing("dent")])]
    layout = lay_out(sections)
    shown = " ".join(text.text for text in layout.texts if text.colour == "#b3261e")
    assert shown == f"dent, not drawn: {reason.strip()}"
    assert len(layout.tiles) == 1 + len(TILES)
    assert max(text.y for text in layout.texts) < layout.height
    assert reason.strip() in make_page(RuleBasedGenerator(["dent"]), sections, [])


def test_draws_carry_their_reasons_when_checks_are_strict() -> None:
    generator = RuleBasedGenerator(["dent", "hole"], checks=STRICT, max_attempts=1)
    images = list(render_normals(2, 3, 64, 64, seed=1))
    sections = draw_sections(generator.prepare(images), images, per_family=1, seed=0, size=80)
    for section in sections:
        (drawing,) = section.drawings
        assert section.passed == 0
        assert drawing.text.startswith(f"{section.name}, not drawn: {drawing.reason}")
        assert drawing.reason.startswith(("visib", "nothing changed"))
        assert "not drawn: " + drawing.reason in make_page(generator, sections, [])


def test_text_is_escaped_when_a_prompt_is_hostile() -> None:
    sections = [Section(name="<b>x</b>", about="<i>", drawings=[make_drawing("<script>alert(1)</script>")])]
    page = make_page(RuleBasedGenerator(["dent"]), sections, ["<u>"])
    assert not any(text in page for text in ("<b>x", "<i>", "<u>", "<script>alert"))
    assert page.count("<script>") == 1


def test_configuration_gives_the_generator_back_when_arguments_are_not_the_defaults() -> None:
    generator = RuleBasedGenerator({"dent": 2.0, "hole": 1.0, "nsa": 1.0}, strength=(0.5, 0.6), checks=STRICT)
    config = describe_generator(generator)
    again = build_generator(yaml.safe_load(config.fill(config.generator)))
    assert again.config == generator.config
    chosen = yaml.safe_load(config.fill(config.generator, ["dent", "nsa"]))
    assert chosen["init_args"]["families"] == {"dent": 2.0, "nsa": 1.0}
    callback = yaml.safe_load(config.fill(config.overlay, ["dent", "nsa"]))["trainer"]["callbacks+"][0]
    assert callback["init_args"]["generator"] == chosen


def test_configuration_lists_families_alone_when_all_else_is_default() -> None:
    config = describe_generator(RuleBasedGenerator())
    found = yaml.safe_load(config.fill(config.generator))
    assert found["class_path"] == "anomalib_synth.generators.RuleBasedGenerator"
    assert found["init_args"] == {"families": list(RuleBasedGenerator().families)}


def test_page_has_no_ticks_when_the_generator_is_not_rule_based() -> None:
    generator = MixtureGenerator([RuleBasedGenerator(["dent"]), RuleBasedGenerator(["hole"])])
    images = list(render_normals(2, 3, 64, 64, seed=1))
    sections = draw_sections(generator.prepare(images), images, per_family=1, seed=0, size=80)
    page = make_page(generator, sections, [])
    assert 'type="checkbox"' not in page
    assert len(sections[0].drawings) == 8
    assert {drawing.family for drawing in sections[0].drawings} == {"dent", "hole"}
    config = describe_generator(generator)
    assert build_generator(yaml.safe_load(config.generator)).config == generator.config


def test_family_is_that_of_the_draw_when_it_is_known() -> None:
    image = render_normals(1, 3, 64, 64, seed=1)
    drawn = RuleBasedGenerator(["cutout"], strength=(1.0, 1.0))(image, seeds=[1])
    failed = RuleBasedGenerator(["cutout"], checks=STRICT)(image, seeds=[1])
    assert describe(drawn, 0, "other", 80).family == "cutout"
    assert describe(failed, 0, "other", 80).family == "other"
    assert not describe(failed, 0, "cutout", 80).reason.startswith("cutout")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("preview.gif", r"`out` must end in \.png, \.jpg, \.webp or \.html, got"),
        ("preview", "`out` must end in"),
        ("folder.html", "`out` must be a file, but .* is a folder"),
        ("preview.webp", r"`per_family` must give a picture of at most 16383 pixels' height .*write \.png or \.html"),
    ],
)
def test_file_is_refused_before_anything_is_read_when_it_cannot_be_written(name, message, tmp_path) -> None:
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match=message):
        main(["preview", f"--normals={tmp_path / 'empty'}", f"--out={tmp_path / name}", "--per_family=20"])


@pytest.mark.parametrize("drawings", [1, 2, 3, 7])
def test_height_is_not_underestimated_when_a_format_has_a_limit(drawings, tmp_path) -> None:
    tall = [make_drawing("dent", size=(TILE, TILE))] * drawings
    sections = [Section(name="dent", about="", drawings=tall)] * 3
    height = lay_out(sections).height
    count = 3 * 16_383 // height  # as many sections as just fit
    check_height(tmp_path / "x.webp", count - 3, drawings)
    with pytest.raises(ValueError, match="at most 16383"):
        check_height(tmp_path / "x.webp", count + 3, drawings)


@pytest.mark.parametrize("name", ["preview.png", "preview.html"])
def test_old_file_stays_whole_when_writing_fails(name, tmp_path, monkeypatch) -> None:
    out = tmp_path / name
    out.write_text("old")
    images = list(render_normals(1, 3, 64, 64, seed=1))

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(preview.preview_picture, "paint", fail)
    monkeypatch.setattr(preview.preview_page, "_embed", fail)
    with pytest.raises(KeyboardInterrupt):
        preview.write_preview(out, RuleBasedGenerator(["dent"]), images, per_family=1, seed=0)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert out.read_text() == "old"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".webp", ".PNG"])
def test_picture_has_the_format_of_its_name_when_it_is_written(suffix, tmp_path, parts_root, capsys) -> None:
    out = tmp_path / f"preview{suffix}"
    families = "--generator.families=[dent]"
    main(["preview", f"--normals={parts_root}/train/good", f"--out={out}", "--generator=RuleBasedGenerator", families])
    with Image.open(out) as picture:
        assert picture.format == {"jpg": "JPEG"}.get(suffix[1:], suffix[1:].upper())
    assert "of 2 samples passed the checks; wrote" in capsys.readouterr().out
