"""A run from Python: the same folder as by the pieces, whatever stands for images and classes."""

import contextlib
import json

import pytest

from tagclip.errors import UsageError
from tagclip.vocabulary import Vocabulary
from tests.wsss.runs import contents, draw_images
from wsss.files.run_folder import RunFolder
from wsss.files.run_reader import RunReader
from wsss.pipeline.label_folder import label_folder, tag_folder

SETTINGS = {"tagging.batch_size": 2, "tagging.templates": ["a photo of a {}."], "work.mask_workers": 1}


@pytest.fixture(scope="module")
def label(golden_model_path, tmp_path_factory):
    cache = tmp_path_factory.mktemp("text")

    def call(images, classes, out, **options):
        options["settings"] = {**SETTINGS, **options.get("settings", {})}
        return label_folder(images, classes, out, model=golden_model_path, cache_dir=cache, device="cpu", **options)

    return call


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    draw_images(folder, [(64, 48), (48, 64)])
    return folder


@pytest.fixture(scope="module")
def labeled(label, photos, tmp_path_factory):
    return label(photos, ["cat", "dog"], tmp_path_factory.mktemp("runs") / "mine", refine="none")


def test_the_folder_can_be_read_after_the_call(labeled):
    assert isinstance(labeled, RunFolder)
    assert labeled.counts["masks"] == 2
    assert labeled.vocabulary.names == ("cat", "dog")
    records = list(labeled.records())
    assert [record.id for record in records] == ["part0/0", "part1/0"]
    for record in records:
        assert labeled.mask(record.id).shape == record.size
        assert list(labeled.maps(record.id)) == [labeled.vocabulary.names[index] for index in record.indices]
    assert {record.id: record.indices for record in RunReader(labeled.root).records()} == {
        record.id: record.indices for record in records
    }
    manifest = json.loads((labeled.root / "manifest.json").read_text())
    assert manifest["masks"]["refiner"] == "none"
    assert manifest["tagging"]["batch_size"] == 2


def test_classes_in_every_form_give_the_same_run(label, photos, labeled, tmp_path):
    (tmp_path / "pets.txt").write_text("cat\ndog\n")
    expected = contents(labeled.root)
    forms = {"text": "cat,dog", "file": tmp_path / "pets.txt", "vocabulary": Vocabulary(["cat", "dog"])}
    for name, classes in forms.items():
        found = contents(label(photos, classes, tmp_path / name, refine="none").root)
        differing = {file for file in expected if found[file] != expected[file]}
        assert differing <= {"config.py", "manifest.json"}, name  # they name the classes as they were given


def test_the_same_call_resumes_and_another_is_refused(label, photos, labeled):
    before = contents(labeled.root)
    again = label(photos, ["cat", "dog"], labeled.root, refine="none")
    assert again.times is None  # nothing was left to do
    assert contents(labeled.root) == before
    with pytest.raises(Exception, match=r"masks\.refiner 'none' there, 'pamr' here"):
        label(photos, ["cat", "dog"], labeled.root, refine="pamr")


def test_a_list_of_paths_tags_from_a_file_and_a_watcher(label, photos, tmp_path):
    (tmp_path / "tags.txt").write_text("0 1\n")
    steps = []

    @contextlib.contextmanager
    def watch(total, done):
        steps.append((total, done))
        yield lambda pipeline: steps.append(pipeline.times.images["masks"])

    paths = [photos / "part0" / "0.png"]
    run = label(paths, ["cat", "dog"], tmp_path / "run", tags=tmp_path / "tags.txt", refine="none", watch=watch)
    (record,) = run.records()
    assert record.indices == (1,)
    assert record.scores is None
    assert steps[0] == (1, 0)
    assert steps[-1] == 1


def test_tags_alone(label, photos, labeled, golden_model_path, tmp_path):
    settings = {name: value for name, value in SETTINGS.items() if name.startswith("tagging")}
    steps = []

    @contextlib.contextmanager
    def watch(total):
        steps.append(total)
        yield steps.append

    run = tag_folder(
        photos, ["cat", "dog"], tmp_path / "tags", model=golden_model_path, settings=settings, device="cpu", watch=watch
    )
    assert run.counts["tagged"] == 2
    assert steps[0] == 2
    assert sum(steps[1:]) == 2
    expected = {record.id: record for record in labeled.records()}
    for record in run.records():
        assert record.indices == expected[record.id].indices
        assert record.scores == pytest.approx(expected[record.id].scores, abs=1e-6)
    assert not (tmp_path / "tags" / "masks").exists()


def test_output_inside_the_photos_is_no_photo(label, tmp_path):
    draw_images(tmp_path, [(64, 48)])
    first = label(tmp_path, ["cat"], tmp_path / "run", refine="none")
    again = label(tmp_path, ["cat"], tmp_path / "run", refine="none")
    assert first.counts == again.counts
    assert first.counts["images"] == 1


def test_wrong_calls(label, photos, tmp_path):
    with pytest.raises(UsageError, match="--images: needed"):
        label_folder(None, "voc", tmp_path / "out", config="masks/voc2012", settings={"images.source": None})
    with pytest.raises(UsageError, match=r"masks\.refiner"):
        label(photos, ["cat"], tmp_path / "out", refine="sand")
    with pytest.raises(UsageError, match="method: 3"):
        label(photos, ["cat"], tmp_path / "out", method=3)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("make", [label_folder, tag_folder])
def test_a_run_whose_scores_lie_below_the_floor_says_so_once(make, photos, tmp_path, golden_model_path, caplog):
    def lines(out, **rule):
        caplog.clear()
        settings = {"tagging.templates": ["a photo of a {}."], **{f"tagging.rule.{key}": rule[key] for key in rule}}
        if make is label_folder:
            settings |= {"work.mask_workers": 1, "masks.refiner": "none"}
        run = make(photos, ["cat", "dog"], tmp_path / out, model=golden_model_path, settings=settings, device="cpu")
        return [record.message for record in caplog.records if "rule.floor" in record.message], run.counts["tags"]

    (line,), tags = lines("none", floor=0.99)
    assert not any(tags.values())
    best = max(max(record.scores) for record in RunReader(tmp_path / "none").records())
    assert line == (
        f"no image has a tag: a tag needs a score above rule.floor, which is 0.99 here, and the highest score is "
        f"{best:.3g}; --set tagging.rule.floor=F lowers it, --at-least-one gives every image its best class"
    )
    assert lines("none", floor=0.99)[0] == [line]  # the run is complete, and its summary the same
    found, tags = lines("low", floor=0.0)
    assert (found, any(tags.values())) == ([], True)
    found, tags = lines("one", floor=0.99, at_least_one=True)
    assert (found, sum(tags.values())) == ([], 2)
    found, tags = lines("rule", rule="absolute", threshold=1.0, floor=0.0)  # not the floor's doing
    assert (found, any(tags.values())) == ([], False)
