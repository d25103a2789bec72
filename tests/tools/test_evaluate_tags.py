"""`tagclip evaluate tags`: the published figures, every input, and what it refuses."""

import gzip
import json

import numpy as np
import pytest

from tagclip.errors import UsageError
from tagclip.vocabulary import Vocabulary
from tests.tools.commands import command

PUBLISHED = {  # images, P, R, F1, as published
    "voc2012": ("voc", 1449, "0.925", "0.771", "0.841"),
    "coco2017": ("coco", 4952, "0.786", "0.412", "0.541"),
    "cocostuff": ("cocostuff", 4172, "0.437", "0.502", "0.467"),
}


@pytest.fixture(scope="module")
def evaluate():
    return command("evaluate", "tags")


@pytest.fixture(scope="module")
def published(data_dir, tmp_path_factory):
    """The published lists, unpacked."""
    folder = tmp_path_factory.mktemp("published")
    for path in (data_dir / "published").iterdir():
        content = path.read_bytes()
        name = path.name.removesuffix(".gz")
        (folder / name).write_bytes(gzip.decompress(content) if path.suffix == ".gz" else content)
    return folder


def options(published, name):
    tags, labels = published / f"{name}_val_tags.txt", published / f"{name}_val_labels.txt"
    return ["--tags", str(tags), "--labels", str(labels)]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures(evaluate, published, tmp_path, capsys, name):
    vocabulary, images, *figures = PUBLISHED[name]
    report = tmp_path / "report.json"
    assert evaluate([*options(published, name), "--classes", vocabulary, "--json", str(report)]) == 0
    table = capsys.readouterr().out
    assert next(line for line in table.splitlines() if line.startswith("micro")).split()[1:] == figures
    assert f"images {images}" in table
    content = json.loads(report.read_text())
    assert content["images"] == images
    assert [f"{content['micro'][key]:.3f}" for key in ("precision", "recall", "f1")] == figures
    assert content["tagged_without_labels"] == content["labelled_without_tags"] == 0


def test_cocostuff_labels_must_be_mapped(evaluate, published):
    with pytest.raises(UsageError, match="fit as raw"):
        evaluate([*options(published, "cocostuff"), "--classes", "cocostuff", "--label-ids", "index"])


@pytest.fixture
def scored(tmp_path):
    """A run folder's tags.jsonl of 12 images with their plain labels; scores rank the labels first."""
    voc = Vocabulary.named("voc")
    rng = np.random.default_rng(0)
    lines, labels = [], []
    for number in range(12):
        scores = rng.random(20) / 2
        truth = rng.choice(20, 2, replace=False)
        scores[truth] += 0.5
        tags = [voc.names[index] for index in truth[:1]]
        lines.append(json.dumps({"id": f"sub/i{number}", "scores": scores.tolist(), "tags": tags}))
        labels.append(f"sub/i{number} " + " ".join(map(str, truth)))
    run = tmp_path / "run"
    run.mkdir()
    (run / "tags.jsonl").write_text("\n".join(lines) + "\n")
    (run / "manifest.json").write_text(json.dumps({"format": 1, "vocabulary": voc.to_dict()}))
    (tmp_path / "labels.txt").write_text("\n".join(labels) + "\n")
    return tmp_path


def test_scores_curves_and_the_run_folders_vocabulary(evaluate, scored, capsys):
    curves = scored / "out" / "curves.png"
    arguments = ["--tags", str(scored / "run"), "--labels", str(scored / "labels.txt"), "--per-class"]
    assert evaluate([*arguments, "--curves", str(curves)]) == 0
    table = capsys.readouterr().out
    assert "micro                   1.000  0.500  0.667" in table
    assert "mAP 1.000   images 12" in table
    assert "aeroplane" in table
    assert curves.read_bytes().startswith(b"\x89PNG")


def test_ids_match_by_their_last_part_if_no_other_way(evaluate, scored, capsys):
    labels = scored / "labels.txt"
    labels.write_text(labels.read_text().replace("sub/", "val2012/"))
    assert evaluate(["--tags", str(scored / "run"), "--labels", str(labels)]) == 0
    assert "images 12" in capsys.readouterr().out


def test_images_without_counterpart_are_counted(evaluate, scored):
    labels, report = scored / "labels.txt", scored / "report.json"
    labels.write_text("".join(labels.read_text().splitlines(keepends=True)[2:]) + "other 3\n")
    assert evaluate(["--tags", str(scored / "run"), "--labels", str(labels), "--json", str(report)]) == 0
    content = json.loads(report.read_text())
    assert (content["images"], content["tagged_without_labels"], content["labelled_without_tags"]) == (10, 2, 1)


@pytest.mark.parametrize(
    ("labels", "vocabulary", "message"),
    [
        ("other 3\n", None, "--labels .*labels.txt: none of the 12 images with tags .* is among the 1 with labels"),
        ("sub/i1 20\n", None, "class 20 is no index of vocabulary 'voc'"),
        ("sub/i1 2\n", "coco", "20 scores, but vocabulary 'coco' has 80"),
        ("sub/i1 2\n", "pets.txt", "pets.txt"),
    ],
)
def test_refusals(evaluate, scored, labels, vocabulary, message):
    (scored / "labels.txt").write_text(labels)
    arguments = ["--tags", str(scored / "run"), "--labels", str(scored / "labels.txt")]
    with pytest.raises(UsageError, match=message):
        evaluate([*arguments, *(["--classes", vocabulary] if vocabulary else [])])


def test_vocabulary_is_needed_outside_a_run_folder(evaluate, published):
    with pytest.raises(UsageError, match=r"nothing says which classes .* name them with --classes"):
        evaluate(options(published, "voc2012"))
