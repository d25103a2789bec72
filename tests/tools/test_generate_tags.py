"""`tagclip tag`: every kind of image, every source, and one clear line for every mistake."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image

from tagclip.errors import RunError, TagclipError, UsageError, VocabularyError, WeightsError
from tagclip.tag_files import read_tags
from tagclip.vocabulary import Vocabulary
from tests.bad_images import scene, write_bad, write_good
from tests.tools.commands import TOOLS, command

CLASSES = "cat,dog,bird"
# The golden model is of random weights: by the default rule for few classes it finds none.
RULE = ["--set", "tagging.rule.floor=None", "tagging.rule.at_least_one=True"]


@pytest.fixture(scope="module")
def tool():
    return command("tag")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two good pictures."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(2):
        Image.fromarray(scene(40, 56, seed=number)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def generate(tool, golden_model_path, tmp_path, tmp_path_factory):
    """Run the tool on the golden model; options override."""
    cache = tmp_path_factory.getbasetemp() / "text_cache"

    def run(*options, out=tmp_path / "run", classes=CLASSES, model=golden_model_path):
        arguments = ["--model", str(model), "--out", str(out), "--cache-dir", str(cache), "--device", "cpu"]
        if classes:
            arguments += ["--classes", str(classes)]
        return tool([*arguments, *RULE, *map(str, options)])

    return run


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_kind_of_image(generate, tmp_path, capsys):
    """One bad image never ends a run: each is recorded, all others are tagged."""
    good, bad = write_good(tmp_path / "photos"), write_bad(tmp_path / "photos")
    assert generate("--images", tmp_path / "photos", "--workers", 3) == 0
    run = tmp_path / "run"
    tagged = {line["id"]: line for line in lines(run / "tags.jsonl")}
    assert set(tagged) == {path.stem for path in good.values()}
    assert tagged["panorama"]["size"] == [30, 20000]
    assert tagged["one_pixel"]["size"] == [1, 1]
    assert tagged["exif"]["size"] == [64, 48]
    assert all(len(line["scores"]) == 3 and line["tags"] for line in tagged.values())
    failures = lines(run / "failures.jsonl")
    assert [failure["id"] for failure in failures] == sorted(bad)
    assert {(failure["stage"], failure["error"]) for failure in failures} == {("decode", "ImageError")}
    assert all(str(bad[failure["id"]]) in failure["message"] == failure["message"].strip() for failure in failures)
    assert list(tagged) == sorted(tagged)
    out = capsys.readouterr()
    assert f"{len(good)} of {len(good) + len(bad)} images tagged" in out.out
    assert json.loads((run / "manifest.json").read_text())["counts"]["failures"] == len(bad)


def test_strict_fails_at_the_end(generate, tmp_path, images):
    shutil.copytree(images, tmp_path / "photos")
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"")
    with pytest.raises(RunError, match=r"1 of 3 images failed, see .*failures\.jsonl") as caught:
        generate("--images", tmp_path / "photos", "--strict")
    assert caught.value.exit_code == 1
    assert len(lines(tmp_path / "run" / "tags.jsonl")) == 2


def test_list_with_a_missing_file(generate, tmp_path, images):
    (tmp_path / "split.txt").write_text("1 0\nmissing 2\n0\n")
    assert generate("--images", tmp_path / "split.txt", "--image-root", images) == 0
    assert [line["id"] for line in lines(tmp_path / "run" / "tags.jsonl")] == ["1", "0"]
    (failure,) = lines(tmp_path / "run" / "failures.jsonl")
    assert failure["path"].endswith("missing")
    assert "No such file" in failure["message"]


def test_all_images_bad_is_a_failed_run(generate, tmp_path):
    write_bad(tmp_path / "photos")
    with pytest.raises(RunError, match="7 of 7 images failed"):
        generate("--images", tmp_path / "photos")


def test_second_run_does_nothing_and_changes_nothing(generate, tmp_path, images):
    generate("--images", images)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.suffix == ".jsonl"}
    assert generate("--images", images) == 0
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.suffix == ".jsonl"}


@pytest.mark.parametrize(
    ("options", "classes", "message"),
    [
        (["--set", "tagging.cwr.threshold=0.3"], CLASSES, "tagging.cwr.threshold 0.5 there, 0.3 here"),
        (["--preset", "reference"], CLASSES, "tagging.image"),
        (["--limit", "1"], CLASSES, "--limit 1: --out .* holds 1 images beyond it"),
        (["--dtype", "bfloat16"], CLASSES, "model.dtype 'float32' there, 'bfloat16' here"),
        (["--dtype", "int8"], CLASSES, "model.dtype 'float32' there, 'int8' here"),
        ([], "cat,dog", "vocabulary.names"),
    ],
)
def test_another_runs_folder_is_refused(generate, images, options, classes, message):
    generate("--images", images)
    with pytest.raises(RunError, match=message):
        generate("--images", images, *options, classes=classes)
    assert generate("--images", images, *options, "--overwrite", classes=classes) == 0


def test_int8_is_recorded_and_resumed(generate, tmp_path, images):
    assert generate("--images", images, "--dtype", "int8", "--limit", 1) == 0
    assert generate("--images", images, "--dtype", "int8") == 0
    run = tmp_path / "run"
    assert len(lines(run / "tags.jsonl")) == 2
    assert json.loads((run / "manifest.json").read_text())["model"]["dtype"] == "int8"
    with pytest.raises(RunError, match=r"model.dtype 'int8' there, 'float32' here"):
        generate("--images", images)
    with pytest.raises(UsageError, match=r"--dtype int8: runs on a CPU only|--device cuda: cannot be used here"):
        generate("--images", images, "--dtype", "int8", "--device", "cuda", out=tmp_path / "other")


def test_other_weights_are_refused(generate, tmp_path, images, golden_model_path):
    from safetensors.torch import load_file, save_file

    generate("--images", images)
    weights = load_file(golden_model_path)
    weights["visual.proj"] = weights["visual.proj"] * 1.01
    save_file(weights, tmp_path / "other.safetensors")
    with pytest.raises(RunError, match=r"model.weights .* there"):
        generate("--images", images, model=tmp_path / "other.safetensors")


def test_options_reach_the_results(generate, tmp_path, images):
    generate("--images", images, "--tag-rule", "top_k", "--tags-per-image", 2, "--keep-scores", 1, "--limit", 1)
    (line,) = lines(tmp_path / "run" / "tags.jsonl")
    assert len(line["tags"]) == 2
    assert len(line["scores"]) == 2  # the best one, and the other tag's
    rule = ("--tag-rule", "top_k", "--tags-per-image", 1)
    generate("--images", images, *rule, "--score-floor", 1, out=tmp_path / "floor")
    assert [len(line["scores"]) for line in lines(tmp_path / "floor" / "tags.jsonl")] == [1, 1]  # of the tag alone
    generate("--images", images, "--set", "tagging.rule.threshold=0.0", "--batch-size", 1, out=tmp_path / "low")
    assert [len(line["tags"]) for line in lines(tmp_path / "low" / "tags.jsonl")] == [2, 2]
    records = read_tags(tmp_path / "low", Vocabulary(CLASSES.split(",")))
    assert [record.scores.shape for record in records] == [(3,), (3,)]


def test_dry_run_writes_nothing(generate, tmp_path, images):
    assert generate("--images", images, "--dry-run") == 0
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["voc2007", "voc2012", "coco2014", "coco2017", "cocostuff", "custom"])
def test_configs(name):
    from wsss.pipeline.run_config import TaggingRunConfig, load_run_config

    config = load_run_config(f"tagging/{name}", {"vocabulary": "voc"}, TaggingRunConfig())
    assert config.images.source
    assert config.model.name == "ViT-B-16"
    settings = config.tagger_config(Vocabulary.named("cocostuff"))  # the constants are the config's, not the classes'
    assert settings.rule.threshold == (0.1 if name == "cocostuff" else 0.5)


def bad_weights(kind, folder):
    path = folder / "weights.pt"
    if kind == "text":
        path.write_text("<html>404</html>")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "other_tensors":
        torch.save({"encoder.weight": torch.zeros(3, 3)}, path)
    elif kind == "resnet":
        torch.save({"visual.layer1.0.conv1.weight": torch.zeros(3, 3), "text_projection": torch.zeros(3, 3)}, path)
    return path


@pytest.mark.parametrize("kind", ["missing", "text", "empty", "other_tensors", "resnet"])
def test_wrong_weights(generate, tmp_path, images, kind):
    path = bad_weights(kind, tmp_path)
    with pytest.raises(WeightsError, match=r"weights\.pt") as caught:
        generate("--images", images, model=path)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_weights_of_another_architecture_than_named(generate, images, golden_model_path):
    with pytest.raises(WeightsError):
        generate("--images", images, "--pretrained", golden_model_path, model="ViT-B-32")


@pytest.mark.parametrize(
    ("options", "classes", "error", "message"),
    [
        ([], CLASSES, UsageError, "--images: needed"),
        (["--images", "{tmp}/none"], CLASSES, UsageError, "no such file or folder"),
        (["--images", "{tmp}/void"], CLASSES, UsageError, "void: no image in it"),
        (["--images", "{tmp}/photos"], "{tmp}/double.txt", VocabularyError, "line 3: class 'cat' is already there"),
        (["--images", "{tmp}/photos"], "{tmp}/none.txt", VocabularyError, "none.txt"),
        (["--images", "{tmp}/photos", "--config", "{tmp}/none.py"], CLASSES, UsageError, "none.py: neither a file nor"),
        (["--images", "{tmp}/photos", "--config", "{tmp}/bad.py"], CLASSES, UsageError, "bad.py: "),
        (["--images", "{tmp}/photos", "--set", "tagging.nonsense=3"], CLASSES, UsageError, "tagging.nonsense"),
        (["--images", "{tmp}/photos", "--set", "nonsense=3"], CLASSES, UsageError, "nonsense"),
        (["--images", "{tmp}/photos", "--device", "quantum"], CLASSES, UsageError, "--device quantum"),
        (["--images", "{tmp}/photos", "--device", "cuda:99"], CLASSES, UsageError, "--device cuda:99: cannot be"),
    ],
)
def test_wrong_usage_is_one_line(generate, tmp_path, options, classes, error, message):
    (tmp_path / "void").mkdir()
    (tmp_path / "photos").mkdir()
    Image.fromarray(scene()).save(tmp_path / "photos" / "a.png")
    (tmp_path / "double.txt").write_text("cat\ndog\ncat\n")
    (tmp_path / "bad.py").write_text("model = (\n")
    filled = [option.format(tmp=tmp_path) for option in options]
    with pytest.raises(error, match=message) as caught:
        generate(*filled, classes=classes.format(tmp=tmp_path))
    assert isinstance(caught.value, TagclipError)
    assert caught.value.exit_code == 2


def test_command_line_exit_code_and_message(tmp_path):
    tool = str(TOOLS / "generate_tags.py")
    command = [sys.executable, tool, "--images", str(tmp_path / "none"), "--classes", CLASSES]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert found.stderr.startswith("error: images ")
    assert found.stderr.count("\n") == 1
