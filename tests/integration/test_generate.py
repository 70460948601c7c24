"""``anomalib-synth generate``: the same set whatever happens on the way."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_synth.commands.check import check
from anomalib_synth.commands.generate import generate
from anomalib_synth.engines.local import WorkerDiedError
from anomalib_synth.generators import MixtureGenerator, RuleBasedGenerator, SampleChecks, build_generator
from anomalib_synth.generators.prepared import PreparedNormals
from anomalib_synth.store import SampleStore, StoreError
from benchmarks.generate import check_equal, fork, kill_forks, make_normals, read_store
from tests.unit.engines.odd_generators import DyingGenerator, FailingGenerator, SlowGenerator, SwappingGenerator
from tests.unit.images.bad_inputs import write_readable, write_unreadable
from tests.warm_python import WarmPython, run_warm

COUNT = 26
COMMAND = """
from anomalib_synth.cli import main
if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def normals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generate") / "normals"
    make_normals(folder, count=10, side=48)
    return folder


@pytest.fixture(scope="module")
def whole(normals: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of an uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "store"
    generate(normals, out=out, num_samples=COUNT)
    return out


@pytest.fixture
def command(tmp_path: Path) -> list[object]:
    """The command line, as users start it."""
    script = tmp_path / "command.py"
    script.write_text(COMMAND)
    return [script, "generate"]


def test_a_store_holds_what_the_generator_draws_when_it_is_made(normals, whole) -> None:
    store = SampleStore.open(whole)
    assert [record.index for record in store.records] == list(range(COUNT))
    assert store.verify() == []
    assert {record.source for record in store.records} == {f"{n:03d}.png" for n in range(10)}
    paths = [normals / f"{n:03d}.png" for n in range(10)]
    images = [torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1).float() / 255 for path in paths]
    prepared = PreparedNormals.from_images(images)
    for record in store.records:
        generator = build_generator(record.generator)
        generator.use_prepared(prepared)
        source = images[int(record.source[:3])]
        sample = generator(source[None], seeds=[record.seed])
        assert record.accepted == bool(sample.accepted[0])
        assert record.reason == sample.reason[0]
        assert record.prepare_digest == prepared.digest
        np.testing.assert_array_equal(store.read_source(record), np.array(Image.open(normals / record.source)))
        if record.accepted:
            drawn = (sample.image[0] * 255).round().byte().permute(1, 2, 0).numpy()
            np.testing.assert_array_equal(store.read_image(record), drawn)
            np.testing.assert_array_equal(store.read_mask(record) > 0, sample.mask[0, 0].numpy() > 0)
            assert record.area == pytest.approx(float(sample.mask.mean()))
            assert record.quality == pytest.approx(float(sample.quality[0]))
            assert record.strength == record.params["strength"]


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"workers": 2, "batch_size": 7}])
def test_rows_and_bytes_are_the_same_whatever_the_workers(normals, whole, tmp_path, options) -> None:
    generate(normals, out=tmp_path / "store", num_samples=COUNT, **options)
    check_equal(tmp_path / "store", read_store(whole))


def test_a_larger_number_adds_to_a_finished_run(normals, whole, tmp_path) -> None:
    out = tmp_path / "store"
    for count in (1, 9, 9, COUNT):
        generate(normals, out=out, num_samples=count)
        assert len(SampleStore.open(out).records) == count
    check_equal(out, read_store(whole))


def test_the_folder_may_move_when_a_run_goes_on(normals, whole, tmp_path) -> None:
    generate(normals, out=tmp_path / "store", num_samples=5)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for path in normals.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    generate(moved, out=tmp_path / "store", num_samples=COUNT)
    check_equal(tmp_path / "store", read_store(whole))


def test_the_set_is_the_uninterrupted_one_when_runs_are_killed(normals, tmp_path) -> None:
    assert kill_forks(tmp_path, normals, kills=8, num_samples=COUNT) >= 1


def test_the_whole_command_leaves_nothing_behind_when_it_is_killed(normals, tmp_path, command) -> None:
    slow = f"--generator={SlowGenerator.__module__}.SlowGenerator"
    arguments = [*command, f"--normals={normals}", f"--out={tmp_path / 'store'}", "--num_samples=50", slow]
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = WarmPython([*arguments, "--workers=2"], environment=environment, new_session=True)
    manifest = tmp_path / "store" / "manifest.jsonl"
    wait_for(lambda: manifest.exists() and manifest.read_bytes().count(b"\n") >= 5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not group_runs(process.pid))
    kept = len(SampleStore.open(tmp_path / "store").records)
    assert 5 <= kept < 50
    for out in ("store", "again"):
        generate(normals, out=tmp_path / out, num_samples=50, generator=SlowGenerator())
    check_equal(tmp_path / "store", read_store(tmp_path / "again"))


def wait_for(condition, seconds: float = 600) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def group_runs(group: int) -> bool:
    """Whether a process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_rows_that_a_repair_took_out_are_drawn_again(normals, whole, tmp_path) -> None:
    out = tmp_path / "store"
    generate(normals, out=out, num_samples=COUNT)
    damaged = next(record for record in SampleStore.open(out).records[5:] if record.accepted)
    (out / damaged.image_file).write_bytes(b"edited")
    SampleStore.open(out).repair()
    assert len(SampleStore.open(out).records) < COUNT
    generate(normals, out=out, num_samples=COUNT)
    check_equal(out, read_store(whole))
    assert SampleStore.open(out).verify() == []


def test_every_bad_input_is_quarantined_and_the_run_goes_on(tmp_path, capsys) -> None:
    good = write_readable(tmp_path / "normals")
    bad = write_unreadable(tmp_path / "normals")
    out = tmp_path / "store"
    for count in (10, len(good)):
        generate(tmp_path / "normals", out=out, num_samples=count)
        store = SampleStore.open(out)
        assert set(store.quarantined) == set(bad)
        assert all(bad[name] in reason for name, reason in store.quarantined.items())
    assert sorted(record.source for record in store.records) == sorted(good)
    for record in store.records:
        np.testing.assert_array_equal(store.read_source(record), good[record.source], err_msg=record.source)
    assert f"{len(bad)} inputs were quarantined" in capsys.readouterr().out


def test_sizes_may_differ_within_a_batch_and_a_size_makes_them_equal(tmp_path) -> None:
    make_normals(tmp_path / "normals" / "a", count=2, side=48)
    make_normals(tmp_path / "normals" / "b", count=2, side=64)
    generate(tmp_path / "normals", out=tmp_path / "native", num_samples=8)
    generate(tmp_path / "normals", out=tmp_path / "sized", num_samples=8, image_size=32)
    native, sized = SampleStore.open(tmp_path / "native"), SampleStore.open(tmp_path / "sized")
    assert [native.read_source(record).shape[0] for record in native.records] == [48, 48, 64, 64] * 2
    assert {sized.read_source(record).shape for record in sized.records} == {(32, 32, 3)}


def test_rejected_draws_are_rows_without_files(normals, tmp_path, capsys) -> None:
    generator = RuleBasedGenerator(["noise"], checks=SampleChecks(area=(0.98, 0.99)), max_attempts=1)
    generate(normals, out=tmp_path / "store", num_samples=4, generator=generator)
    store = SampleStore.open(tmp_path / "store")
    for record in store.records:
        assert not record.accepted
        assert "mask area" in record.reason
        assert (record.image_file, record.mask_file, record.image_hash, record.mask_hash) == ("", "", "", "")
        assert (record.area, record.visibility, record.strength, record.attempt) == (0, 0, None, -1)
    assert store.verify() == []
    printed = capsys.readouterr().out
    assert "0 of 4 samples passed the checks (0.0%)" in printed
    assert "rejected, 4 x: noise: mask area # outside [#, #]" in printed


def test_a_mixture_names_the_generator_that_drew(normals, tmp_path) -> None:
    mixture = MixtureGenerator([RuleBasedGenerator(["scratch"]), RuleBasedGenerator(["stain"])])
    generate(normals, out=tmp_path / "store", num_samples=8, generator=mixture)
    records = SampleStore.open(tmp_path / "store").records
    assert {record.family for record in records if record.accepted} == {"scratch", "stain"}
    assert all(
        list(record.generator["init_args"]["families"]) == [record.family] for record in records if record.family
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed: 0 in the store, 1 now"),
        ({"image_size": 32}, "image_size: None in the store, 32 now"),
        ({"generator": RuleBasedGenerator(["noise"])}, r"generator.init_args.families.\w+"),
        ({"split": "test"}, "split: 'train' in the store, 'test' now"),
        ({"max_normals": 3}, "max_normals: 256 in the store, 3 now"),
        ({"resume": False}, "is a store already"),
    ],
)
def test_other_settings_are_refused_when_a_store_is_there(normals, whole, change, message) -> None:
    before = read_store(whole)
    with pytest.raises(ValueError, match=message):
        generate(normals, out=whole, num_samples=COUNT + 4, **change)
    check_equal(whole, before)


def test_other_normals_are_refused_when_a_store_is_there(tmp_path) -> None:
    make_normals(tmp_path / "normals", count=3, side=32)
    generate(tmp_path / "normals", out=tmp_path / "store", num_samples=2)
    (tmp_path / "normals" / "003.png").write_bytes((tmp_path / "normals" / "000.png").read_bytes())
    with pytest.raises(ValueError, match=r"normals.files: 5 in the store, 6 now"):
        generate(tmp_path / "normals", out=tmp_path / "store", num_samples=4)
    assert len(SampleStore.open(tmp_path / "store").records) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 0}, "`num_samples` must be >= 1, got 0"),
        ({"seed": -1}, "`seed` must be >= 0, got -1"),
        ({"image_size": 8}, "sides >= 16 and <= 10000, got 8"),
        ({"workers": 0}, "`workers` must be >= 1, got 0"),
        ({"max_normals": 0}, "`max_normals` must be >= 1, got 0"),
        ({"batch_size": 0}, "`batch_size` must be >= 1, got 0"),
        ({"normals": None}, "got neither"),
        ({"datamodule": Path("x.yaml")}, "got both"),
        ({"normals": Path("missing")}, "`normals` must be a folder with images"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(normals, tmp_path, arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        generate(**{"normals": normals, "out": tmp_path / "store"} | arguments)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("limit", [1_000, 20_000])  # too little for an image; for the manifest
def test_the_store_is_whole_and_goes_on_when_the_disk_was_full(normals, whole, tmp_path, limit, capsys) -> None:
    del capsys  # what is printed is held in memory: the limit is for files
    resource = pytest.importorskip("resource")
    out = tmp_path / "store"
    generate(normals, out=out, num_samples=2)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(StoreError, match="The disk is full"):
            generate(normals, out=out, num_samples=COUNT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    store = SampleStore.open(out)
    assert 2 <= len(store.records) < COUNT
    assert store.verify() == []
    generate(normals, out=out, num_samples=COUNT)
    check_equal(out, read_store(whole))


def test_half_written_files_go_when_a_run_goes_on(normals, whole, tmp_path) -> None:
    out = tmp_path / "store"
    out.mkdir()
    (out / ".store.json.0123").write_text("{")
    generate(normals, out=out, num_samples=9)
    image = next(path for path in (out / "images").rglob("*.png"))
    image.with_name(f".{image.name}.0123").write_bytes(image.read_bytes()[:40])
    with (out / "manifest.jsonl").open("a") as file:
        file.write('{"id": "0123')
    generate(normals, out=out, num_samples=COUNT)
    check_equal(out, read_store(whole))
    assert list(out.glob(".store*")) == []


def test_a_folder_that_is_no_store_is_left_alone(normals, tmp_path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="holds something else"):
        generate(normals, out=tmp_path, num_samples=2)
    with pytest.raises(ValueError, match="must lie outside `normals`"):
        generate(normals, out=normals / "store", num_samples=2)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_second_run_is_refused_when_two_write_at_once(normals, tmp_path) -> None:
    out = tmp_path / "store"
    slow = SlowGenerator()
    child = fork(lambda: generate(normals, out=out, num_samples=COUNT, generator=slow))
    wait_for(lambda: (out / "manifest.jsonl").exists() and (out / "manifest.jsonl").read_bytes().count(b"\n") >= 2)
    with pytest.raises(StoreError, match="Another run is writing"):
        generate(normals, out=out, num_samples=COUNT, generator=slow)
    assert os.waitpid(child, 0)[1] == 0
    generate(normals, out=tmp_path / "alone", num_samples=COUNT, generator=slow)
    check_equal(out, read_store(tmp_path / "alone"))


def test_one_store_comes_out_when_two_runs_start_together(normals, whole, tmp_path) -> None:
    for k in range(3):
        out = tmp_path / f"store_{k}"
        children = [fork(lambda out=out: generate(normals, out=out, num_samples=COUNT)) for _ in range(2)]
        statuses = [os.waitpid(child, 0)[1] for child in children]
        assert 0 in statuses
        check_equal(out, read_store(whole))


def test_a_dry_run_estimates_and_writes_nothing(normals, tmp_path, capsys) -> None:
    generate(normals, out=tmp_path / "deep" / "store", num_samples=5000, dry_run=True)
    assert list(tmp_path.iterdir()) == []
    printed = capsys.readouterr().out
    assert "5000 samples to draw, about" in printed
    assert "MiB on disk" in printed
    assert "Left out empty.png of `normals`: the file is empty." in printed


def test_a_dry_run_counts_what_is_left_and_is_about_right_when_a_store_is_there(normals, whole, capsys) -> None:
    before = read_store(whole)
    generate(normals, out=whole, num_samples=COUNT + 10, dry_run=True)
    assert "10 samples to draw" in capsys.readouterr().out
    check_equal(whole, before)


def test_disk_estimate_is_close_when_it_is_compared_with_a_run(normals, whole, tmp_path) -> None:
    from anomalib_synth.engines.estimate import estimate_run
    from anomalib_synth.images import ImageReader, list_images

    estimate = estimate_run(
        list_images(normals),
        RuleBasedGenerator(),
        out=tmp_path,
        num_samples=COUNT,
        done=0,
        seed=0,
        reader=ImageReader(),
        max_normals=256,
        workers=1,
    )
    written = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    assert 0.6 < estimate.disk_bytes / written < 1.6


def test_the_sample_is_named_and_rows_before_it_are_kept_when_a_generator_fails(normals, tmp_path) -> None:
    with pytest.raises(RuntimeError, match="out of ideas") as error:
        generate(normals, out=tmp_path / "store", num_samples=60, generator=FailingGenerator(), batch_size=1)
    kept = SampleStore.open(tmp_path / "store").records
    assert f"While drawing samples {len(kept)} to {len(kept)} on" in error.value.__notes__[0]
    assert all(record.seed % 5 for record in kept)


def test_the_run_stops_with_a_clear_error_when_a_worker_dies(normals, tmp_path) -> None:
    with pytest.raises(WorkerDiedError, match=r"A worker died while samples from number 0 on .* goes on where"):
        generate(normals, out=tmp_path / "store", num_samples=8, generator=DyingGenerator(), workers=2)
    assert SampleStore.open(tmp_path / "store").verify() == []


def test_samples_of_other_images_are_refused(normals, tmp_path) -> None:
    with pytest.raises(ValueError, match="`generator` SwappingGenerator gave a sample of another image than the input"):
        generate(normals, out=tmp_path / "store", num_samples=2, generator=SwappingGenerator())


def test_threads_of_the_caller_are_given_back(normals, tmp_path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        generate(normals, out=tmp_path / "store", num_samples=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_datamodule_stands_in_for_a_folder(parts_root, tmp_path) -> None:
    arguments = {"name": "part", "root": str(parts_root), "normal_dir": "train/good"}
    config = tmp_path / "data.json"
    config.write_text(json.dumps({"class_path": "anomalib.data.Folder", "init_args": arguments}))
    generate(datamodule=config, out=tmp_path / "store", num_samples=3)
    records = SampleStore.open(tmp_path / "store").records
    assert {Path(record.source).name for record in records} <= {p.name for p in (parts_root / "train/good").iterdir()}


@pytest.mark.slow
def test_rows_and_bytes_are_the_same_on_ray(normals, whole, tmp_path, monkeypatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # the actors find the tests' generators
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    generate(normals, out=tmp_path / "store", num_samples=COUNT, workers=2, engine="ray")
    check_equal(tmp_path / "store", read_store(whole))
    with pytest.raises(RuntimeError, match="out of ideas"):
        generate(
            normals, out=tmp_path / "failing", num_samples=60, workers=1, engine="ray", generator=FailingGenerator()
        )
    with pytest.raises(WorkerDiedError, match="A worker died"):
        generate(normals, out=tmp_path / "dying", num_samples=8, workers=1, engine="ray", generator=DyingGenerator())


def test_ray_is_named_when_it_is_missing(normals, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install .*\[ray\]'"):
        generate(normals, out=tmp_path / "store", engine="ray")
    assert not (tmp_path / "store").exists()


def test_generator_and_store_come_from_the_command_line(normals, tmp_path, command) -> None:
    config = tmp_path / "generator.yaml"
    config.write_text(
        "class_path: anomalib_synth.generators.RuleBasedGenerator\ninit_args: {families: [scratch, stain]}\n"
    )
    arguments = [f"--normals={normals}", f"--out={tmp_path / 'store'}", "--num_samples=3", f"--generator={config}"]
    ended = run_warm([*command, *arguments])
    assert ended.returncode == 0, ended
    assert "samples passed the checks" in ended.stdout
    assert {record.family for record in SampleStore.open(tmp_path / "store").records} <= {"scratch", "stain", ""}


BAD_LINES = {
    "cut": lambda lines: [*lines[:7], lines[7][:60] + b"\n", *lines[8:]],
    "doubled": lambda lines: [*lines[:7], lines[7], *lines[7:]],
    "glued": lambda lines: [*lines[:7], lines[7][:60] + lines[8], *lines[9:]],
    "blank": lambda lines: [*lines[:7], b"\n", *lines[7:]],
    "edited": lambda lines: [*lines[:7], lines[7].replace(b'"seed":', b'"seed":1'), *lines[8:]],
    "another index": lambda lines: [*lines[:7], lines[7].replace(b'"index":7', b'"index":20'), *lines[8:]],
    "another index of the run": lambda lines: [*lines[:7], lines[7].replace(b'"index":7', b'"index":2'), *lines[8:]],
}


@pytest.mark.parametrize("how", BAD_LINES)
def test_a_repaired_store_goes_on_to_the_uninterrupted_set(normals, whole, tmp_path, how) -> None:
    out = tmp_path / "store"
    generate(normals, out=out, num_samples=15)
    manifest = out / "manifest.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(b"".join(BAD_LINES[how](lines)))
    check(out, repair=True)
    assert set(lines) - set(manifest.read_bytes().splitlines(keepends=True)) <= {lines[7]}
    generate(normals, out=out, num_samples=COUNT)
    check_equal(out, read_store(whole))
    assert SampleStore.open(out).verify() == []


def test_a_run_goes_on_when_a_file_that_could_not_be_read_can(tmp_path, capsys) -> None:
    make_normals(tmp_path / "normals", count=4, side=32)
    sound = (tmp_path / "normals" / "002.png").read_bytes()
    (tmp_path / "normals" / "002.png").write_bytes(sound[:200])
    out = tmp_path / "store"
    generate(tmp_path / "normals", out=tmp_path / "whole", num_samples=8)
    generate(tmp_path / "normals", out=out, num_samples=3)
    (tmp_path / "normals" / "002.png").write_bytes(sound)
    capsys.readouterr()
    generate(tmp_path / "normals", out=out, num_samples=8)
    assert "Left out, as when the store was begun: 002.png. It can be read now" in capsys.readouterr().out
    check_equal(out, read_store(tmp_path / "whole"))


@pytest.mark.parametrize("how", ["gone", "damaged", "no file any more"])
def test_a_run_goes_on_when_a_file_can_not_be_read_any_more(tmp_path, capsys, how) -> None:
    make_normals(tmp_path / "normals", count=4, side=32)
    generate(tmp_path / "normals", out=tmp_path / "whole", num_samples=12)
    out = tmp_path / "store"
    generate(tmp_path / "normals", out=out, num_samples=5)
    file = tmp_path / "normals" / "002.png"
    sound = file.read_bytes()
    file.unlink()
    if how == "damaged":
        file.write_bytes(sound[:200])
    elif how == "no file any more":
        file.mkdir()
    capsys.readouterr()
    generate(tmp_path / "normals", out=out, num_samples=12)
    said = capsys.readouterr().out
    assert "Cannot be read any more, so its samples that are missing wait: 002.png" in said
    assert "2 samples wait" in said
    rows, reference = read_store(out)[0], read_store(tmp_path / "whole")[0]
    assert rows == [row for row in reference if row["source"] != "002.png" or row["index"] < 5]
    if file.is_dir():
        file.rmdir()
    file.write_bytes(sound)
    generate(tmp_path / "normals", out=out, num_samples=12)
    check_equal(out, read_store(tmp_path / "whole"))


def test_a_run_goes_on_when_a_file_is_gone_before_it_was_drawn_on(tmp_path, capsys) -> None:
    make_normals(tmp_path / "normals", count=4, side=32)
    out = tmp_path / "store"
    generate(tmp_path / "normals", out=out, num_samples=2)
    (tmp_path / "normals" / "003.png").unlink()
    capsys.readouterr()
    generate(tmp_path / "normals", out=out, num_samples=8)
    said = capsys.readouterr().out
    assert "003.png (there is no such file)" in said
    assert "differ from an uninterrupted run's" in said
    assert [record.index for record in SampleStore.open(out).records] == [0, 1, 2, 4, 5, 6]


def test_a_file_with_other_content_is_named_when_it_is_refused(tmp_path) -> None:
    make_normals(tmp_path / "normals", count=3, side=32)
    generate(tmp_path / "normals", out=tmp_path / "store", num_samples=2)
    (tmp_path / "normals" / "001.png").write_bytes((tmp_path / "normals" / "000.png").read_bytes())
    with pytest.raises(ValueError, match=r"new or changed: '001.png'"):
        generate(tmp_path / "normals", out=tmp_path / "store", num_samples=4)


def test_an_old_store_without_a_list_of_its_inputs_goes_on(normals, whole, tmp_path) -> None:
    out = tmp_path / "store"
    generate(normals, out=out, num_samples=5)
    written = (out / "normals.jsonl").read_bytes()
    (out / "normals.jsonl").unlink()
    generate(normals, out=out, num_samples=COUNT)
    check_equal(out, read_store(whole))
    assert (out / "normals.jsonl").read_bytes() == written


OWN_FAMILY = """
import sys
from pathlib import Path
from anomalib_synth.commands.generate import generate
from anomalib_synth.generators import RuleBasedGenerator
if __name__ == "__main__":  # workers do not come here
    from plant_families import DRIP
    drawing = RuleBasedGenerator([DRIP.name], strength=(0.7, 1.0), foreground=None)
    generate(Path(sys.argv[1]), out=Path(sys.argv[2]), num_samples=6, generator=drawing, workers=2)
"""


def test_family_of_ones_own_is_drawn_when_workers_draw(normals, tmp_path) -> None:
    example = Path(__file__).parents[2] / "examples" / "own_family.py"
    (tmp_path / "plant_families.py").write_text(example.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "run.py").write_text(OWN_FAMILY, encoding="utf-8")
    ended = run_warm([tmp_path / "run.py", normals, tmp_path / "store"], cwd=tmp_path)
    assert ended.returncode == 0, ended
    families = {record.family for record in SampleStore.open(tmp_path / "store").records if record.accepted}
    assert families == {"glue_drip"}
