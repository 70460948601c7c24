"""What a calibration draws and on which images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from anomalib_synth.calibration.defect_sets import KeptImages, draw_defect_set, halve_normals, plan_defect_sets
from anomalib_synth.generators import MixtureGenerator, RuleBasedGenerator
from anomalib_synth.images import Normal
from tests.conftest import save_images
from tests.contract import render_normals


@pytest.fixture(scope="module")
def normals(tmp_path_factory: pytest.TempPathFactory) -> list[Normal]:
    """Five normals, one of another size."""
    folder = tmp_path_factory.mktemp("normals")
    save_images(folder / "a", render_normals(4, 3, 64, 64, seed=1))
    save_images(folder / "b", render_normals(1, 3, 80, 64, seed=2))
    return [
        Normal(path=path, name=path.name, content=f"digest {n}") for n, path in enumerate(sorted(folder.rglob("*.png")))
    ]


def draw_all(cell, normals, seed=0) -> list:
    return list(draw_defect_set(cell, normals, KeptImages("normals", keep_bytes=2**20), seed=seed))


def test_halves_are_disjoint_and_the_same_when_files_are_renamed() -> None:
    normals = [Normal(path=Path(f"{n}.png"), name="", content=str(n)) for n in range(21)]
    renamed = [Normal(path=Path(f"x{20 - n}.png"), name="", content=str(n)) for n in reversed(range(21))]
    choose, measure = halve_normals(normals, 3)
    assert (len(choose), len(measure)) == (10, 11)
    assert not {n.content for n in choose} & {n.content for n in measure}
    assert [n.content for n in halve_normals(renamed, 3)[0]] == [n.content for n in choose]
    assert halve_normals(normals, 4)[0] != choose


def test_groups_are_whole_and_the_larger_half_chooses_when_they_must_stay_together() -> None:
    normals = [Normal(path=Path(f"{n}.png"), name="", content=str(n)) for n in range(23)]
    groups = {normal.path: "abc"[n % 2] if n < 20 else "c" for n, normal in enumerate(normals)}
    choose, measure = halve_normals(normals, 3, groups)
    names = [{groups[normal.path] for normal in half} for half in (choose, measure)]
    assert not names[0] & names[1]
    assert (len(choose), len(measure)) == (13, 10)
    assert halve_normals(normals[::-1], 3, groups)[0] == choose


def test_groups_say_nothing_when_all_normals_are_of_one() -> None:
    normals = [Normal(path=Path(f"{n}.png"), name="", content=str(n)) for n in range(9)]
    assert halve_normals(normals, 3, dict.fromkeys([n.path for n in normals], "a")) == halve_normals(normals, 3)


def test_every_family_is_drawn_at_every_strength_when_rule_based(normals) -> None:
    generator = RuleBasedGenerator(["scratch", "stain"], foreground=None)
    generator.prepare(render_normals(2, 3, 64, 64, seed=5))
    cells = plan_defect_sets(generator, [0.3, 0.9], 6)
    assert [(cell.family, cell.strength, cell.count) for cell in cells] == [
        ("scratch", 0.3, 6), ("scratch", 0.9, 6), ("stain", 0.3, 6), ("stain", 0.9, 6)
    ]  # fmt: skip
    for cell in cells:
        assert cell.generator.prepared is generator.prepared
        sample = cell.generator(render_normals(2, 3, 64, 64, seed=5), seeds=[1, 2])
        drawn = [record for record in sample.provenance if record.family]
        assert drawn
        assert {(record.family, record.params["strength"]) for record in drawn} == {(cell.family, cell.strength)}


def test_one_kind_is_drawn_as_often_as_a_family_when_the_generator_has_no_strengths() -> None:
    (cell,) = plan_defect_sets(MixtureGenerator([RuleBasedGenerator(["scratch"])]), [0.3, 0.9], 6)
    assert (cell.family, cell.strength, cell.count) == ("MixtureGenerator", None, 12)


def test_defects_are_the_same_when_only_the_strength_differs(normals) -> None:
    generator = RuleBasedGenerator(["cutout"], foreground=None)
    faint, strong = (draw_all(cell, normals) for cell in plan_defect_sets(generator, [0.6, 1.0], 7))
    both = [(a, b) for (_, a), (_, b) in zip(faint, strong, strict=True) if a is not None and b is not None]
    assert len(both) >= 4
    shared = [bool((a.mask * b.mask).sum() >= 0.8 * a.mask.sum()) for a, b in both]
    assert sum(shared) >= len(shared) - 1  # a faint one that is not visible is drawn again


def test_repeats_differ_and_seeds_replay_when_there_are_fewer_normals_than_draws(normals) -> None:
    (cell,) = plan_defect_sets(RuleBasedGenerator(["scratch"], foreground=None), [1.0], 10)
    first, again, other = draw_all(cell, normals), draw_all(cell, normals), draw_all(cell, normals, seed=1)
    assert len(first) == 10
    paths = [row.path for row, _ in first]
    assert sorted(paths) == sorted(2 * [str(normal.path) for normal in normals])
    assert paths[:5] == paths[5:]
    for n in range(5):
        if first[n][1] and first[n + 5][1]:
            assert not torch.equal(first[n][1].image, first[n + 5][1].image)
    pairs = [(a[1], b[1], c[1]) for a, b, c in zip(first, again, other, strict=True) if a[1] and b[1] and c[1]]
    assert pairs
    assert all(torch.equal(a.image, b.image) and not torch.equal(a.image, c.image) for a, b, c in pairs)


def test_families_start_at_different_normals(normals) -> None:
    names = ["scratch", "cutout", "stain", "hole", "dent"]
    cells = plan_defect_sets(RuleBasedGenerator(names, foreground=None), [1.0], 1)
    assert len({draw_all(cell, normals)[0][0].path for cell in cells}) > 1


def test_rows_say_what_was_not_visible_when_the_checks_reject(normals) -> None:
    (cell,) = plan_defect_sets(RuleBasedGenerator(["scratch"], foreground=None), [0.001], 4)
    rows = draw_all(cell, normals)
    assert [(row.visible, item) for row, item in rows] == [(False, None)] * 4


def test_rows_carry_what_the_checks_measured(normals) -> None:
    (cell,) = plan_defect_sets(RuleBasedGenerator(["cutout"], foreground=None), [1.0], 4)
    for row, item in draw_all(cell, normals):
        assert row.visible
        assert row.visibility >= 1
        assert row.area == pytest.approx(float(item.mask.mean()))


def test_sample_of_another_image_is_refused(normals) -> None:
    generator = RuleBasedGenerator(["cutout"], foreground=None)
    (cell,) = plan_defect_sets(MixtureGenerator([generator]), [1.0], 1)
    original = type(cell.generator).__call__

    class Stored(MixtureGenerator):
        def __call__(self, images, **options):
            return original(self, images.flip(-1).contiguous(), **options)

    cell.generator.__class__ = Stored
    with pytest.raises(ValueError, match="of another image than the held-out normal"):
        draw_all(cell, normals)


def test_unreadable_image_is_named(tmp_path) -> None:
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    with pytest.raises(ValueError, match=r"`defects` holds an unreadable image, .*bad\.png"):
        KeptImages("defects")(tmp_path / "bad.png")
