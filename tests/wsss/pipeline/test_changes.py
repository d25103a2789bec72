"""Runs that change and grow: other rules, photos and corrections in the folder of a finished run."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tagclip.errors import RunError, UsageError
from tagclip.thresholds import select
from tests.tools.commands import command
from tests.wsss.runs import contents, draw_images
from wsss.files.corrections import Corrections, ImageCorrection, read_corrections, write_corrections
from wsss.files.mask_files import read_mask
from wsss.files.run_reader import RunReader
from wsss.files.sources import open_source
from wsss.pipeline.changes import composed
from wsss.pipeline.label_folder import label_folder, tag_folder
from wsss.pipeline.mask_run import MaskRun
from wsss.pipeline.recipe import Recipe
from wsss.pipeline.run_config import ModelSettings

CLASSES = ["cat", "dog", "bird"]
SETTINGS = {
    "tagging.batch_size": 1, "tagging.templates": ["a photo of a {}."], "tagging.rule.rule": "absolute",
}  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    draw_images(folder)
    return folder


@pytest.fixture(scope="module")
def label(golden_model_path, tmp_path_factory):
    cache = tmp_path_factory.mktemp("text")

    def call(images, out, function=label_folder, classes=CLASSES, **options):
        options["settings"] = {**SETTINGS, **options.get("settings", {})}
        if function is label_folder:
            options.setdefault("refine", "pamr")  # in this process: workers take seconds to start
            options["settings"]["masks.pamr.iterations"] = 1
        return function(images, classes, out, model=golden_model_path, cache_dir=cache, device="cpu", **options)

    return call


@pytest.fixture(scope="module")
def scores(label, photos, tmp_path_factory):
    """(images, classes) of the drawn photos, in the order of their ids."""
    run = label(photos, tmp_path_factory.mktemp("scores") / "run", tag_folder)
    return np.stack([record.scores for record in run.records()])


@pytest.fixture(scope="module")
def thresholds(scores):
    """Class name -> a threshold that half of the images pass, and another one that fewer do."""
    half = {name: float(np.median(scores[:, place])) for place, name in enumerate(CLASSES)}
    return half, {**half, "dog": float(np.sort(scores[:, 1])[-2:].mean())}


@pytest.fixture(scope="module")
def finished_run(label, photos, thresholds, tmp_path_factory):
    out = tmp_path_factory.mktemp("base") / "run"
    return label(photos, out, settings={"tagging.rule.class_thresholds": thresholds[0]}).root


@pytest.fixture
def run(finished_run, tmp_path):
    """A copy of a finished run that may be changed."""
    shutil.copytree(finished_run, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def no_model(monkeypatch):
    """Loading a model fails."""

    def load(*_):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(ModelSettings, "load", load)


@pytest.fixture
def passes(monkeypatch):
    """The ids of the images that went through the model."""
    seen = []
    from wsss.pipeline.masks import Pipeline

    original = Pipeline._infer

    def watched(self, batch, images):
        seen.extend(image.id for image in batch)
        return original(self, batch, images)

    monkeypatch.setattr(Pipeline, "_infer", watched)
    return seen


def tags_of(root):
    return {record.id: record.indices for record in RunReader(root).records()}


def same_but_id(one, other):
    """Whether two runs hold the same bytes, apart from their ids, which tell how they began."""
    first, second = contents(one), contents(other)
    differing = {name for name in {*first, *second} if first.get(name) != second.get(name)}
    assert differing <= {"manifest.json"}
    manifests = [json.loads((root / "manifest.json").read_text()) for root in (one, other)]
    for manifest in manifests:
        del manifest["id"]
    assert manifests[0] == manifests[1]
    return list(manifests[0]) == list(manifests[1])


def correct(run, path, by="ann", thresholds=None, **images):
    """Saves corrections of a run; an image is named by the last part of its id, a0 is part0/0."""
    named = {f"part{'ab'.index(key[0])}/{key[1:]}": value for key, value in images.items()}
    reader = RunReader(run)
    write_corrections(Corrections(reader.id, reader.manifest_sha256, by, "2026", thresholds or {}, named), path)
    return path


def test_another_threshold_gives_the_bytes_of_a_fresh_run(label, photos, run, thresholds, tmp_path, passes):
    before, old = contents(run), tags_of(run)
    settings = {"tagging.rule.class_thresholds": thresholds[1]}
    changed = label(photos, run, settings=settings)
    new = tags_of(run)
    different = {name for name in new if new[name] != old[name]}
    assert different
    assert len(different) < len(new)
    assert set(passes) == different
    fresh = label(photos, tmp_path / "fresh", settings=settings)
    assert same_but_id(run, fresh.root)
    assert changed.id == RunReader(run).id != fresh.id
    after = contents(run)
    assert {name for name in before if "masks/" in name and before[name] != after[name]} <= {
        f"masks/{name}.png" for name in different
    }
    assert label(photos, run, settings=settings).times is None


def test_back_and_forth_gives_the_first_bytes(label, photos, run, finished_run, thresholds):
    label(photos, run, settings={"tagging.rule.class_thresholds": thresholds[1]})
    label(photos, run, settings={"tagging.rule.class_thresholds": thresholds[0]})
    assert contents(run) == contents(finished_run)


def test_the_same_tags_by_another_rule_need_no_model(label, photos, run, thresholds, no_model):
    before = contents(run)
    same = {name: value + 1e-7 for name, value in thresholds[0].items()}
    label(photos, run, settings={"tagging.rule.class_thresholds": same})
    after = contents(run)
    assert {name for name in before if before[name] != after[name]} == {"config.py", "manifest.json"}
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["tagging"]["rule"]["class_thresholds"] == same
    assert manifest["state"] == "complete"


def test_tags_alone_are_taken_anew_without_a_model(label, photos, scores, thresholds, tmp_path, monkeypatch):
    out = tmp_path / "tags"
    label(photos, out, tag_folder, settings={"tagging.rule.class_thresholds": thresholds[0]})
    with monkeypatch.context() as patch:
        patch.setattr(ModelSettings, "load", lambda *_: pytest.fail("a model was loaded"))
        label(photos, out, tag_folder, settings={"tagging.rule.rule": "top_k", "tagging.rule.top_k": 2})
    from tagclip.config import TagRuleConfig

    expected = select(scores, TagRuleConfig(rule="top_k", top_k=2))
    assert [list(indices) for indices in tags_of(out).values()] == [np.flatnonzero(row).tolist() for row in expected]
    fresh = label(
        photos, tmp_path / "fresh", tag_folder, settings={"tagging.rule.rule": "top_k", "tagging.rule.top_k": 2}
    )
    assert same_but_id(out, fresh.root)


@pytest.mark.parametrize("kept", [{"top_k": 1}, {"score_floor": 0.2}])
def test_stored_scores_that_are_not_all_are_no_ground_for_other_tags(label, photos, tmp_path, kept):
    label(photos, tmp_path / "tags", tag_folder, settings=kept)
    with pytest.raises(RunError, match=r"tagging\.rule\.threshold 0\.5 there, 0\.4 here"):
        label(photos, tmp_path / "tags", tag_folder, settings=kept | {"tagging.rule.threshold": 0.4})
    with pytest.raises(RunError, match=r"there"):
        label(photos, tmp_path / "tags", tag_folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": [*CLASSES, "cow"]}, r"vocabulary\.names .*every image needs the model again: choose another"),
        ({"settings": {"masks.affinity.propagations": 3}}, r"propagations 2 there, 3 here; scores or maps depend"),
        ({"settings": {"tagging.cwr.threshold": 0.4}}, r"cwr\.threshold 0\.5 there, 0\.4 here; scores or maps depend"),
        ({"settings": {"masks.alpha": 2.0}}, r"masks\.alpha 1\.0 there, 2\.0 here; every mask .* `tagclip remask`"),
        ({"settings": {"model.dtype": "bfloat16"}}, r"model\.dtype 'float32' there, 'bfloat16' here; scores or maps"),
    ],
)
def test_what_needs_the_model_is_refused_and_says_why(label, photos, run, thresholds, options, message):
    before = contents(run)
    own = {"tagging.rule.class_thresholds": thresholds[0], **options.pop("settings", {})}
    with pytest.raises(RunError, match=message):
        label(photos, run, settings=own, **options)
    assert contents(run) == before


def test_other_weights_are_found_out_before_anything_changes(
    label, photos, run, thresholds, golden_clip, monkeypatch
):
    before = contents(run)
    monkeypatch.setattr(type(golden_clip), "weights_digest", "0" * 64, raising=False)
    original = ModelSettings.load

    def load(self, device):
        clip = original(self, device)
        clip.weights_digest = "0" * 64
        return clip

    monkeypatch.setattr(ModelSettings, "load", load)
    with pytest.raises(RunError, match=r"model\.weights '"):
        label(photos, run, settings={"tagging.rule.class_thresholds": thresholds[1]})
    assert contents(run) == before


def test_an_edited_tags_file_is_noticed(label, photos, run, thresholds):
    path = run / "tags.jsonl"
    path.write_text(path.read_text().replace('"bird"', '"dog"', 1))
    with pytest.raises(RunError, match=r"tags\.jsonl was edited or removed .* --corrections, .*tagclip mask --tags"):
        label(photos, run, settings={"tagging.rule.class_thresholds": thresholds[0]})


def test_photos_come_and_go(label, photos, run, thresholds, tmp_path, passes, caplog):
    collection = tmp_path / "photos"
    shutil.copytree(photos, collection)
    settings = {"tagging.rule.class_thresholds": thresholds[0]}
    for number, size in enumerate([(64, 48), (50, 50)]):
        rgb = np.random.default_rng(90 + number).integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(rgb).save(collection / f"new{number}.png")
    (collection / "part1" / "1.png").rename(tmp_path / "gone.png")
    label(collection, run, settings=settings)
    assert set(passes) == {"new0", "new1"}
    assert "1 photos are not there any more: part1/1; their records go to left.jsonl" in caplog.text
    assert json.loads((run / "left.jsonl").read_text())["id"] == "part1/1"
    assert (run / "aside" / "masks" / "part1" / "1.png").is_file()
    assert (run / "aside" / "cams" / "part1" / "1.npz").is_file()
    fresh = label(collection, tmp_path / "fresh", settings=settings).root
    shutil.rmtree(run / "aside")
    (run / "left.jsonl").rename(tmp_path / "left.jsonl")
    assert same_but_id(run, fresh)
    (tmp_path / "left.jsonl").rename(run / "left.jsonl")


def test_a_photo_that_comes_back_is_not_done_again(label, photos, run, finished_run, thresholds, tmp_path, passes):
    collection = tmp_path / "photos"
    shutil.copytree(photos, collection)
    settings = {"tagging.rule.class_thresholds": thresholds[0]}
    (collection / "part1" / "1.png").rename(tmp_path / "gone.png")
    label(collection, run, settings=settings)
    assert not (run / "masks" / "part1" / "1.png").exists()
    assert "part1/1" not in {sample.id for sample in open_source(run, image_root=collection).samples}
    (tmp_path / "gone.png").rename(collection / "part1" / "1.png")
    label(photos, run, settings=settings)
    assert passes == []
    assert contents(run) == contents(finished_run)


def test_another_collection_is_refused(label, run, thresholds, photos, tmp_path):
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "other.png")
    settings = {"tagging.rule.class_thresholds": thresholds[0]}
    with pytest.raises(RunError, match=r"a run of other images \(first 'part0/0' there, 'other' here\)"):
        label(tmp_path / "other.png", run, settings=settings)
    with pytest.raises(RunError, match=r"--limit 2: .* holds 4 images beyond it"):
        label(photos, run, settings=settings, limit=2)
    assert len(tags_of(run)) == 6


def test_other_tags_in_the_file_change_only_their_images(label, photos, tmp_path, passes):
    tags, out = tmp_path / "tags.txt", tmp_path / "run"
    tags.write_text("part0/0 0\npart0/1 0 1\npart1/0 2\n")
    label(photos, out, tags=tags)
    passes.clear()
    tags.write_text("part0/0 0\npart0/1 1\npart1/0 2\npart1/1\n")
    label(photos, out, tags=tags)
    assert sorted(passes) == ["part0/1", "part1/1"]
    assert tags_of(out) == {"part0/0": (0,), "part0/1": (1,), "part1/0": (2,), "part1/1": ()}
    fresh = label(photos, tmp_path / "fresh", tags=tags)
    assert same_but_id(out, fresh.root)


@pytest.mark.parametrize("moment", ["tags.append", "drop", "set_aside"])
def test_a_change_that_was_killed_is_finished(label, photos, run, thresholds, tmp_path, monkeypatch, moment):
    from wsss.files.run_folder import RunFolder

    settings = {"tagging.rule.class_thresholds": thresholds[1]}
    with monkeypatch.context() as patch:
        if moment == "tags.append":
            from wsss.files.journal import Journal

            patch.setattr(Journal, "append", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        else:
            patch.setattr(RunFolder, moment, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            label(photos, run, settings=settings)
    label(photos, run, settings=settings)
    fresh = label(photos, tmp_path / "fresh", settings=settings)
    assert same_but_id(run, fresh.root)


def test_a_dry_run_says_what_would_change(label, photos, run, thresholds, no_model):
    before = contents(run)
    recipe = Recipe.of_run(run)
    rule = replace(recipe.tagging.rule, class_thresholds=thresholds[1])
    other = replace(recipe, tagging=replace(recipe.tagging, rule=rule))
    preview = MaskRun(other, device="cpu").preview()
    old = tags_of(run)
    assert preview.images == 6
    assert preview.masks == preview.through_model == len(preview.changes.remade) > 0
    assert all(1 in old[name] for name in preview.changes.remade)
    assert preview.changes.lost["dog"] == len(preview.changes.remade)
    assert any("class_thresholds.dog" in phrase for phrase in preview.changed)
    assert contents(run) == before
    assert MaskRun(recipe, device="cpu").preview().masks == 0


# --- corrections -----------------------------------------------------------------------------------------------------


def again(run, corrections=None, **changes):
    """`tagclip mask --run`: a run goes on with its own settings."""
    recipe = Recipe.of_run(run)
    recipe = replace(recipe, run=replace(recipe.run, **changes))
    return MaskRun(recipe, device="cpu", corrections=corrections).execute()


def lines_of(run, name="tags.jsonl"):
    return {line["id"]: line for line in map(json.loads, (run / name).read_text().splitlines())}


def test_corrections_change_only_their_images(run, tmp_path, passes):
    before, old = contents(run), tags_of(run)
    was = 0 in old["part0/0"]
    first = {"remove": ("cat",)} if was else {"add": ("cat",)}
    said = correct(
        run, tmp_path / "c.json",
        a0=ImageCorrection(**first, state="checked", note="none"),
        b0=ImageCorrection((), tuple(CLASSES), None, ""),
        a1=ImageCorrection(state="rejected"),
        b1=ImageCorrection(state="checked"),
    )  # fmt: skip
    again(run, said)
    new = tags_of(run)
    assert (0 in new["part0/0"]) != was
    assert new["part1/0"] == ()
    assert set(passes) == {name for name in new if new[name] != old[name]}
    assert {"part0/0"} <= set(passes) <= {"part0/0", "part1/0"}
    after = contents(run)
    assert {name for name in before if name.startswith("masks/") and before[name] != after.get(name)} <= {
        "masks/part0/0.png", "masks/part1/0.png", "masks/part0/1.png"
    }  # fmt: skip
    first = lines_of(run)["part0/0"]["correction"]
    assert first == {
        "machine": [CLASSES[place] for place in old["part0/0"]], "removed" if was else "added": {"cat": "ann"},
        "state": "checked", "note": "none", "by": "ann",
    }  # fmt: skip
    assert lines_of(run)["part1/1"]["correction"]["state"] == "checked"
    assert "correction" not in lines_of(run)["part0/2"]
    assert read_corrections(run / "corrections.json").images.keys() == read_corrections(said).images.keys()
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["corrections"]["by"] == "ann"
    assert manifest["counts"]["rejected"] == 1
    assert manifest["counts"]["masks"] == 5
    assert again(run, said).times is None  # said already


def test_rejected_images_leave_the_data_set_and_come_back(run, finished_run, tmp_path, passes):
    again(run, correct(run, tmp_path / "c.json", a1=ImageCorrection(state="rejected")))
    assert not (run / "masks" / "part0" / "1.png").exists()
    assert "part0/1" not in tags_of(run)
    assert [record.id for record in RunReader(run).rejected()] == ["part0/1"]
    source = open_source(run)
    assert len(source.samples) == 5
    assert source.missing == ()
    again(run, correct(run, tmp_path / "c.json", by="bob", a1=ImageCorrection(note="fine after all")))
    assert passes == []
    assert np.array_equal(
        read_mask(run / "masks" / "part0" / "1.png"), read_mask(finished_run / "masks" / "part0" / "1.png")
    )
    assert not (run / "rejected.jsonl").exists()
    assert not (run / "aside").exists()
    correction = lines_of(run)["part0/1"]["correction"]
    assert (correction["note"], correction["by"]) == ("fine after all", "bob")
    assert "state" not in correction


def test_two_rounds_compose_and_remember_who_said_what(run, scores, tmp_path):
    old = tags_of(run)
    first = correct(
        run, tmp_path / "1.json", "ann", {"dog": 0.0},
        a0=ImageCorrection(("cat",), ("bird",), "checked", "first"), a1=ImageCorrection(("cat",)),
    )  # fmt: skip
    again(run, first)
    assert all(1 in indices for indices in tags_of(run).values())
    second = correct(
        run, tmp_path / "2.json", "bob", {"bird": 1.0}, a0=ImageCorrection(("bird",), (), "checked", "first")
    )
    again(run, second)
    tags = tags_of(run)
    assert tags["part0/0"] == (0, 1, 2)
    assert all(2 not in indices for name, indices in tags.items() if name != "part0/0")
    correction = lines_of(run)["part0/0"]["correction"]
    assert correction["added"] == {"cat": "ann", "bird": "bob"}
    assert correction["by"] == "ann"  # bob said the same state and note again
    assert correction["machine"] == [CLASSES[place] for place in old["part0/0"]]
    kept = read_corrections(run / "corrections.json")
    assert kept.thresholds == {"dog": 0.0, "bird": 1.0}
    assert kept.run_id == RunReader(run).id


def test_corrections_stay_when_the_rule_changes(label, photos, run, thresholds, tmp_path):
    said = correct(run, tmp_path / "c.json", a0=ImageCorrection(("cat",), ("dog", "bird")))
    again(run, said)
    label(photos, run, settings={"tagging.rule.class_thresholds": thresholds[1]})
    assert tags_of(run)["part0/0"] == (0,)
    fresh = label(photos, tmp_path / "fresh", settings={"tagging.rule.class_thresholds": thresholds[1]})
    others = {name: indices for name, indices in tags_of(fresh.root).items() if name != "part0/0"}
    assert {name: indices for name, indices in tags_of(run).items() if name != "part0/0"} == others


def test_the_command_run_takes_corrections_as_well(label, photos, run, thresholds, tmp_path):
    settings = {"tagging.rule.class_thresholds": thresholds[0]}
    said = correct(run, tmp_path / "c.json", a0=ImageCorrection(("cat",), ("dog", "bird")))
    twin = tmp_path / "twin"
    shutil.copytree(run, twin)
    label(photos, run, settings=settings, corrections=said)
    again(twin, said)
    assert contents(run) == contents(twin)
    assert tags_of(run)["part0/0"] == (0,)


def test_corrections_of_a_tagging_run_go_into_masks_of_its_tags(label, photos, tmp_path, thresholds):
    tags = label(photos, tmp_path / "tags", tag_folder, settings={"tagging.rule.class_thresholds": thresholds[0]}).root
    said = correct(tags, tmp_path / "c.json", a0=ImageCorrection(("cat",), ("dog", "bird")))
    run = label(photos, tmp_path / "run", tags=tags, corrections=said)
    assert tags_of(run.root)["part0/0"] == (0,)
    assert run.maps("part0/0").keys() == {"cat"}
    assert read_corrections(run.root / "corrections.json").run_id == run.id


def test_corrections_of_another_run_are_refused_naming_both(run, tmp_path):
    path = correct(run, tmp_path / "c.json")
    write_corrections(replace(read_corrections(path), run_id="other"), path)
    before = contents(run)
    with pytest.raises(UsageError, match=rf"c\.json: made of run other, but --out .* is run {RunReader(run).id}"):
        again(run, path)
    write_corrections(Corrections(RunReader(run).id, thresholds={"cow": 0.5}), path)
    with pytest.raises(UsageError, match=r"c\.json: thresholds: 'cow' is not a class of the run"):
        again(run, path)
    assert contents(run) == before


def test_corrections_that_are_gone_are_missed(label, photos, run, thresholds, tmp_path):
    again(run, correct(run, tmp_path / "c.json", a0=ImageCorrection(state="checked")))
    (run / "corrections.json").rename(tmp_path / "kept.json")
    with pytest.raises(RunError, match=r"corrections\.json: is gone, but this run was corrected"):
        again(run)
    (tmp_path / "kept.json").rename(run / "corrections.json")
    identity = RunReader(run).id
    label(photos, run, settings={"tagging.rule.class_thresholds": thresholds[0]}, overwrite=True)
    assert (run / f"corrections-{identity}.json").is_file()  # what a person said is never deleted


def test_images_that_are_not_in_the_run_are_said(run, tmp_path, caplog):
    reader = RunReader(run)
    said = Corrections(reader.id, images={"elsewhere": ImageCorrection(state="checked")})
    write_corrections(said, tmp_path / "c.json")
    with caplog.at_level(logging.WARNING):
        again(run, tmp_path / "c.json")
    assert "1 of its images are not in this run: elsewhere" in caplog.text


def test_composing_is_the_last_word_per_class():
    first = Corrections("r", images={
        "a": ImageCorrection(("cat", "dog"), ("bird",), "checked", "x"), "b": ImageCorrection(("cat",)),
    }, thresholds={"cat": 0.1})  # fmt: skip
    later = Corrections("r", images={"a": ImageCorrection(("bird",), ("dog",))}, thresholds={"cat": 0.2, "dog": 0.3})
    found = composed(first, later)
    assert found.images == {"a": ImageCorrection(("cat", "bird"), ("dog",)), "b": ImageCorrection(("cat",))}
    assert found.thresholds == {"cat": 0.2, "dog": 0.3}
    assert composed(found, later) == found
    assert composed(None, later) == later


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--images", "photos"], "--tags: needed, a file of tags; or --run"),
        (["--run", "RUN", "--images", "photos"], "--images: --run continues a run with its own settings"),
        (["--run", "RUN", "--set", "masks.alpha=2"], r"--set masks\.alpha: --run continues a run"),
        (["--run", "photos"], "--run photos: no run of stage two"),
    ],
)
def test_the_command_mask_goes_on_with_a_run_or_needs_tags(run, words, message):
    with pytest.raises(UsageError, match=message):
        command("mask")([str(run) if word == "RUN" else word for word in words])


# --- confidence ------------------------------------------------------------------------------------------------------


def test_confidence_is_saved_later_from_the_maps_and_is_that_of_a_fresh_run(
    label, photos, run, thresholds, tmp_path, monkeypatch
):
    settings = {"tagging.rule.class_thresholds": thresholds[0]}
    fresh = label(photos, tmp_path / "fresh", settings=settings, save_confidence=True)
    assert len(list(fresh.root.glob("confidence/**/*.png"))) == 6
    monkeypatch.setattr(ModelSettings, "load", lambda *_: pytest.fail("a model was loaded"))
    again(run, save_confidence=True)
    assert same_but_id(run, fresh.root)
    confidence = RunReader(run).confidence("part0/0")
    assert confidence.shape == RunReader(run).mask("part0/0").shape
    assert 0 < confidence.min() <= confidence.max() <= 1
    (run / "confidence" / "part0" / "0.png").unlink()
    again(run)
    assert same_but_id(run, fresh.root)
