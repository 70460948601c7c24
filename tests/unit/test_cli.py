"""The command line."""

from __future__ import annotations

import pytest
from PIL import Image

from anomalib_synth import cli
from anomalib_synth.cli import main
from anomalib_synth.commands import arguments
from anomalib_synth.generators import RuleBasedGenerator


def test_families_lists_them_all(capsys) -> None:
    main(["families"])
    printed = capsys.readouterr().out
    assert all(name[:12] in printed for name in RuleBasedGenerator.available_families())


def test_preview_draws_every_family_on_the_users_images(parts_root, tmp_path, capsys) -> None:
    out = tmp_path / "new" / "preview.png"
    main(["preview", f"--normals={parts_root}/train/good", f"--out={out}", "--image_size=64", "--per_family=1"])
    with Image.open(out) as picture:
        assert picture.size[1] >= 12 * 160
    assert "of 28 samples passed the checks" in capsys.readouterr().out


def test_preview_takes_any_generator(parts_root, tmp_path) -> None:
    out = tmp_path / "preview.png"
    generator = "--generator=anomalib_synth.generators.RuleBasedGenerator"
    families = "--generator.init_args.families=[scratch]"
    main(["preview", f"--normals={parts_root}", f"--out={out}", "--image_size=64", generator, families])
    assert out.is_file()


def test_samples_are_generated_checked_and_exported(parts_root, tmp_path, capsys) -> None:
    store, out = tmp_path / "store", tmp_path / "out"
    main(["generate", f"--normals={parts_root}/train/good", f"--out={store}", "--num_samples=4", "--image_size=64"])
    main(["check", f"--store={store}"])
    assert "4 samples, sound" in capsys.readouterr().out
    main(["export", f"--store={store}", f"--out={out}", "--layout=coco"])
    kept = len(list((out / "images").iterdir()))
    printed = capsys.readouterr().out
    assert f"Wrote {kept} of 4 samples" in printed
    assert "specks joined to a neighbour" in printed
    main(["export", f"--store={store}", f"--out={out}", "--layout=coco"])
    assert f"Finished before, nothing to do: {kept} of 4 samples" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="holds another export"):
        main(["export", f"--store={store}", f"--out={out}", "--layout=coco", "--segmentation=run_lengths"])
    next((store / "images").rglob("*.png")).write_bytes(b"")
    with pytest.raises(SystemExit, match=r"has 1 problems. Run `anomalib-synth check"):
        main(["check", f"--store={store}"])
    main(["check", f"--store={store}", "--repair=true"])
    assert "was edited" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "--store={root}", "--out=out"], "is no store: it has no store.json"),
        (
            ["export", "--store={root}", "--out=out", "--min_area=9"],
            "`min_area` must be left out for `--layout mvtec`, which has no use for it, got 9",
        ),
        (
            ["export", "--store={root}", "--out=out", "--layout=coco", "--val_share=0"],
            "`val_share` must be left out for `--layout coco`",
        ),
        (["generate", "--normals=missing", "--out=out"], "`normals` must be a folder"),
        (["preview", "--normals=missing"], "`normals` must be a folder with images"),
        (["preview", "--normals={root}", "--image_size=4"], "sides >= 16 and <= 10000, got 4"),
        (
            [
                "preview",
                "--normals={root}",
                "--generator=ScoredGenerator",
                "--generator.generator=RuleBasedGenerator",
                "--generator.encoder=open_clip:ViT-B-32:no_such",
            ],
            "Without network, name a weight file",
        ),
        (["preview", "--normals={root}", "--per_family=0"], "`per_family` must be >= 1, got 0"),
    ],
)
def test_bad_input_ends_with_one_clear_line(arguments, message, parts_root) -> None:
    with pytest.raises(SystemExit, match=message):
        main([argument.format(root=parts_root) for argument in arguments])


def test_unknown_family_lists_the_known_ones(parts_root, capsys) -> None:
    generator = "--generator=anomalib_synth.generators.RuleBasedGenerator"
    with pytest.raises(SystemExit) as stop:
        main(["preview", f"--normals={parts_root}", generator, "--generator.init_args.families=[scratsch]"])
    assert "scratch" in str(stop.value) + capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("two\n  lines of a library\n"), "anomalib-synth: two lines of a library"),
        (OSError("a name with \x1b[31m in it"), "anomalib-synth: a name with \\x1b[31m in it"),
        (ValueError(), "anomalib-synth: ValueError"),
        (
            RuntimeError("Symlink loop from 'a'"),
            "anomalib-synth: Symlink loop from 'a', which leads to itself. Take that link away, or name another path.",
        ),
    ],
)
def test_an_error_is_one_line_when_it_quotes_others(monkeypatch, error, said) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "load", lambda _: fail)
    monkeypatch.setattr(arguments, "parse_arguments", lambda *_: {})
    with pytest.raises(SystemExit) as stopped:
        main(["families"])
    assert stopped.value.code == said
