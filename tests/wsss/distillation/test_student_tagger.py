"""A trained tagger in a run: its tags, its records, the classes that it has, and its ONNX form."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tagclip.clip import load_clip
from tagclip.errors import RunError, UsageError, WeightsError
from tagclip.images import decode_image, prepare_image
from tagclip.tagger import ImageModel, ImageTagger
from tagclip.vocabulary import Vocabulary
from tests.wsss.distillation.conftest import SMALL
from wsss.cli.main import execute
from wsss.distillation import student as student_module
from wsss.distillation.distillation_config import DistillationConfig
from wsss.distillation.student import load_student, read_card, save_student
from wsss.distillation.student_tagger import StudentTagger
from wsss.distillation.student_training import TaggerTraining
from wsss.distillation.tagger_export import export_tagger
from wsss.distillation.tagger_files import is_tagger_file
from wsss.files.run_files import read_manifest
from wsss.files.run_reader import RunReader
from wsss.onnx_files import write_onnx
from wsss.pipeline.label_folder import label_folder, tag_folder


@pytest.fixture(scope="module")
def student_run(tagged, trained, tmp_path_factory):
    """A run of tags by the tagger alone; nobody names classes."""
    return tag_folder(tagged.images, out=tmp_path_factory.mktemp("student") / "run", model=trained)


def test_a_run_has_the_scores_of_the_tagger_and_its_classes(student_run, trained, tagged):
    reader, student = RunReader(student_run.root), load_student(trained)
    assert reader.vocabulary == RunReader(tagged.run).vocabulary
    assert isinstance(StudentTagger(student, reader.vocabulary), ImageTagger)
    for record in reader.records():
        rgb = decode_image(reader.photo(record))  # a run first brings images to sides that the patch divides
        values = prepare_image(rgb, 16, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)).clamp(0, 1)
        np.testing.assert_allclose(student(values[None]).sigmoid()[0].numpy(), record.scores, atol=1e-5)
        assert record.scores.min() > 0
    assert len(list(reader.records())) == 6


def test_the_record_says_which_tagger_it_was(student_run, trained):
    manifest, student = read_manifest(student_run.root), load_student(trained)
    assert manifest["model"] == {
        "architecture": "patch16-tagger-resnet18-side32", "weights": student.weights_digest, "dtype": "float32",
        "device": "cpu",
    }  # fmt: skip
    assert set(manifest["tagging"]) == {"image", "rule", "batch_size", "batch_patches"}


def test_another_rule_needs_no_model_and_another_tagger_is_refused(tagged, trained, tmp_path, monkeypatch):
    run, tagger = tmp_path / "run", tmp_path / "tagger.pt"
    shutil.copy(trained, tagger)
    first = tag_folder(tagged.images, out=run, model=tagger)
    with monkeypatch.context() as patch:
        patch.setattr(student_module, "load_student", lambda *_: pytest.fail("a tagger was loaded"))
        changed = tag_folder(
            tagged.images, out=run, model=tagger, settings={"tagging.rule.rule": "top_k", "tagging.rule.top_k": 1}
        )
    assert sum(changed.counts["tags"].values()) == 6
    assert [record.scores.tolist() for record in RunReader(first.root).records()]
    config = DistillationConfig.from_dict({**SMALL, "seed": 9})
    other = TaggerTraining(tagged.run, tmp_path / "other", config).execute().path
    shutil.copy(other, tagger)
    with pytest.raises(RunError, match=r"model\.weights"):
        tag_folder(tagged.images, out=run, model=tagger, settings={"tagging.rule.rule": "top_k"})


def test_a_run_with_masks_takes_tags_from_it_and_maps_from_its_teacher(tagged, trained, student_run, tmp_path):
    out = tmp_path / "run"
    settings = {"masks.max_refine_side": 64, "masks.confidence": None}
    run = label_folder(
        tagged.images, out=out, model=trained, refine="none", cache_dir=tagged.cache, settings=settings
    )
    alone = {record.id: record for record in RunReader(student_run.root).records()}
    for record in RunReader(run.root).records():
        assert record.indices == alone[record.id].indices
        np.testing.assert_allclose(record.scores, alone[record.id].scores, atol=1e-5)
        assert len(RunReader(out).maps(record.id)) == len(record.indices)
    model, clip = read_manifest(out)["model"], load_clip(tagged.model)
    assert model["weights"] == clip.weights_digest
    assert model["tagger"]["weights"] == load_student(trained).weights_digest
    again = label_folder(
        tagged.images, out=out, model=trained, refine="none", cache_dir=tagged.cache, settings=settings
    )
    assert again.counts == run.counts


def test_other_classes_are_refused(tagged, trained, tmp_path):
    with pytest.raises(UsageError, match=r"trained on 3 classes .* 'cow' is only in one of the two"):
        tag_folder(tagged.images, ["cat", "dog", "cow"], tmp_path / "run", model=trained)
    with pytest.raises(UsageError, match="the order differs"):
        StudentTagger(load_student(trained), Vocabulary(["dog", "cat", "bird"]))
    same = tag_folder(tagged.images, ["cat", "dog", "bird"], tmp_path / "run", model=trained)
    assert same.counts["tagged"] == 6


def test_images_prepared_for_a_clip_give_the_same_scores(golden_clip, trained):
    student = load_student(trained)
    alone = StudentTagger(student, student.card.classes)
    beside = StudentTagger(student, student.card.classes, prepared_by=golden_clip)
    model: ImageModel = golden_clip
    rgb = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (model.mean, model.std))
    np.testing.assert_allclose(alone.score(rgb), beside.score((rgb - mean) / std), atol=1e-5)


def test_the_file_reads_back_and_damage_is_told(trained, tmp_path):
    student = load_student(trained)
    save_student(student, tmp_path / "again.pt")
    assert (tmp_path / "again.pt").read_bytes() == trained.read_bytes()
    assert is_tagger_file(trained)
    assert not is_tagger_file(tmp_path / "none.pt")
    (tmp_path / "cut.pt").write_bytes(trained.read_bytes()[:-2000])
    with pytest.raises(WeightsError, match=r"cut.pt: not a tagger that can be read"):
        load_student(tmp_path / "cut.pt")
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.pt")
    assert not is_tagger_file(tmp_path / "other.pt")
    with pytest.raises(WeightsError, match="not written by `tagclip train-tagger`"):
        read_card(tmp_path / "other.pt")
    with pytest.raises(WeightsError, match="is a tagger of `tagclip train-tagger` and no CLIP"):
        load_clip(trained)


def test_onnx_gives_the_same_scores(trained, tmp_path):
    import onnxruntime

    student, path = load_student(trained), tmp_path / "tagger.onnx"
    photo = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    report = export_tagger(student, path, photo)
    assert report.difference < 1e-5
    session = onnxruntime.InferenceSession(str(path))
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == ["cat", "dog", "bird"]
    assert metadata["tagger"] == student.weights_digest
    squares = np.random.default_rng(1).integers(0, 256, (5, 3, 32, 32)).astype(np.float32)
    (scores,) = session.run(["scores"], {"rgb": squares})
    np.testing.assert_allclose(scores, student(torch.from_numpy(squares) / 255).sigmoid().numpy(), atol=1e-5)


def test_a_wrong_export_is_not_written(trained, tmp_path, monkeypatch):
    from wsss import onnx_files

    wrong = onnx_files.ExportReport(0.5, 0.9, 1.0)
    monkeypatch.setattr(onnx_files, "compare_with_torch", lambda *_: wrong)
    assert write_onnx is onnx_files.write_onnx
    with pytest.raises(RunError, match=r"differs from torch by 5.00e-01"):
        export_tagger(load_student(trained), tmp_path / "tagger.onnx", np.zeros((8, 8, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_the_commands(tagged, trained, tmp_path, capsys):
    run = str(tagged.run)
    settings = [f"tagger.{key}={value}" for key, value in SMALL.items()]
    assert execute(["train-tagger", run, "--out", str(tmp_path / "t"), "--set", *settings, "--dry-run"]) == 0
    assert "6 images, 3 classes; resnet18 at 32 pixels" in capsys.readouterr().out
    assert not (tmp_path / "t").exists()
    command = ["train-tagger", run, "--out", str(tmp_path / "t"), "--epochs", "1", "--correct-bias", "--quiet"]
    assert execute([*command, "--set", *settings[:2], *settings[3:]]) == 0
    assert "6 images, 1 epochs" in capsys.readouterr().out
    card = read_card(tmp_path / "t" / "tagger.pt")
    assert card.training["settings"]["bias"]["enabled"]
    assert not card.training["settings"]["align"]["enabled"]
    tag = ["tag", "--images", str(tagged.images), "--out", str(tmp_path / "run"), "--quiet"]
    assert execute([*tag, "--model", str(tmp_path / "t" / "tagger.pt")]) == 0
    assert "6 of 6 images tagged" in capsys.readouterr().out
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"{record.id} 0 2\n" for record in RunReader(tagged.run).records()))
    assert execute(["evaluate", "tags", "--tags", str(tmp_path / "run"), "--labels", str(labels)]) == 0
    photo = next(tagged.images.rglob("*.png"))
    export = ["export-model", "--checkpoint", str(trained), "--image", str(photo), "--out", str(tmp_path / "t.onnx")]
    assert execute(export) == 0
    assert "input 32 x 32" in capsys.readouterr().out
    with pytest.raises(UsageError, match="--dynamic: of a segmentor"):
        execute([*export, "--dynamic"])
    with pytest.raises(UsageError, match="--pretrained: of a CLIP, but --model"):
        execute([*tag, "--model", str(trained), "--pretrained", "openai"])
    with pytest.raises(UsageError, match=r"--set epochs: settings of this training begin with tagger\."):
        execute(["train-tagger", run, "--out", str(tmp_path / "t"), "--set", "epochs=1"])


def test_sides_that_a_photo_has_do_not_matter(trained):
    student = load_student(trained)
    rgb = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    assert torch.equal(student.squeezed(rgb), (rgb - student.network_mean) / student.network_std)
    assert student.squeezed(torch.rand(1, 3, 500, 17)).shape == (1, 3, 32, 32)
    assert replace(student.card, side=64).side == 64
    picture = Image.new("RGB", (1, 1), (10, 20, 30))
    tiny = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None].float() / 255
    assert torch.isfinite(student(tiny)).all()
