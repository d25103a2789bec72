"""`tagclip evaluate masks`: pairing, table, JSON, PNG, CAM sweeps, coarse groups, wrong usage."""

import json

import numpy as np
import pytest
from PIL import Image

from tagclip.errors import UsageError
from tagclip.vocabulary import Vocabulary
from tests.tools.commands import command
from wsss.evaluation.mask_folders import coarse_table, map_labels
from wsss.files.classes import write_classes
from wsss.files.map_files import StoredMaps

main = command("evaluate", "masks")


def save(path, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(labels, np.uint8)).save(path)


@pytest.fixture
def folders(tmp_path):
    """Two images: one right, one with half of class 1 missed; the ground truth has a third."""
    truth = [[0, 0, 1, 1], [0, 0, 1, 1]]
    for name in ("a", "deep/a", "unused"):
        save(tmp_path / "gt" / f"{name}.png", truth)
    save(tmp_path / "pred" / "a.png", truth)
    save(tmp_path / "pred" / "deep" / "a.png", [[0, 0, 0, 1], [0, 0, 0, 1]])
    return tmp_path


def run(folder, *extra):
    classes = [] if "--classes" in extra else ["--classes", "voc"]
    return main(["--masks", str(folder / "pred"), "--ground-truth", str(folder / "gt"), *classes, *extra])


def test_table_json_and_confusion(folders, capsys):
    report, picture = folders / "out" / "report.json", folders / "out" / "confusion.png"
    assert run(folders, "--json", str(report), "--confusion", str(picture)) == 0
    values = json.loads(report.read_text())
    assert values["images"] == 2
    assert values["classes"]["aeroplane"]["iou"] == pytest.approx(6 / 8)
    assert values["classes"]["background"]["iou"] == pytest.approx(8 / 10)
    assert values["miou"] == pytest.approx((6 / 8 + 8 / 10) / 2)
    assert values["pixel_accuracy"] == pytest.approx(14 / 16)
    assert values["failures"] == []
    said = capsys.readouterr().out
    assert "aeroplane" in said
    assert "77.50" in said
    assert Image.open(picture).size[0] > 100


def test_failures_do_not_end_it_unless_strict(folders, capsys):
    (folders / "pred" / "a.png").write_text("no image")
    assert run(folders) == 0
    assert "1 of 2 pairs not scored" in capsys.readouterr().out
    assert run(folders, "--strict") == 1
    (folders / "pred" / "deep" / "a.png").write_bytes(b"")
    assert run(folders) == 1


def test_a_list_demands_its_images(folders, capsys):
    (folders / "list.txt").write_text("a 1\nmissing 1\n")
    assert run(folders, "--list", str(folders / "list.txt"), "--strict") == 1
    assert "missing.png: no such mask" in capsys.readouterr().out


def test_cams_at_thresholds(folders, capsys):
    for name, value in (("a", 0.8), ("deep/a", 0.3)):
        path = folders / "cams" / f"{name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        cams = np.array([[[0, 0, value, value], [0, 0, value, value]]], np.float16)
        with path.open("wb") as file:
            StoredMaps(cams, np.array([0]), (2, 4)).write(file)
    labels = map_labels(folders / "cams" / "a.npz", 0.5, background=True)
    assert labels.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1]]
    assert map_labels(folders / "cams" / "a.npz", 0.9, background=False).min() == 255
    report = folders / "cams.json"
    arguments = ["--maps", str(folders / "cams"), "--ground-truth", str(folders / "gt"), "--classes", "voc"]
    assert main([*arguments, "--json", str(report), "--thresholds", "0.1", "0.5", "0.9"]) == 0
    values = json.loads(report.read_text())
    assert values["best_threshold"] == 0.1
    assert [row["miou"] for row in values["thresholds"]] == pytest.approx([1, (8 / 12 + 0.5) / 2, 0.25])


def test_coarse_groups():
    vocabulary = Vocabulary(["a", "b", "c"], coarse=[1, 0, 1], has_background=False)
    assert coarse_table(vocabulary)[[0, 1, 2, 255]].tolist() == [1, 0, 1, 255]
    table = coarse_table(Vocabulary(["a", "b"], coarse=[0, 0]))
    assert table[[0, 1, 2, 255]].tolist() == [0, 1, 1, 255]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--coarse"], "has no coarse groups"),
        (["--thresholds", "0.5"], "--masks .*: --thresholds are scored on class maps; give --maps or --run"),
        (["--maps", "."], "class maps need --thresholds"),
        (["--classes", "nothing.txt"], "nothing.txt"),
        (["--list", "missing.txt"], "--list missing.txt: No such file"),
    ],
)
def test_wrong_usage(folders, extra, message):
    with pytest.raises(UsageError, match=message):
        run(folders, *extra)


def test_a_missing_folder_and_foreign_ids(folders):
    with pytest.raises(UsageError, match="no such folder"):
        main(["--masks", str(folders / "no"), "--ground-truth", str(folders / "gt"), "--classes", "voc"])
    save(folders / "pred" / "a.png", [[0, 0, 77, 1], [0, 0, 1, 1]])
    with pytest.raises(UsageError, match="predictions hold id 77, but there are 21 classes"):
        run(folders)


def test_maps_that_have_no_true_mask(folders):
    (folders / "cams").mkdir()
    options = ["--maps", str(folders / "cams"), "--ground-truth", str(folders / "gt"), "--classes", "voc"]
    with pytest.raises(UsageError, match=r"--maps .*cams: no .npz file in it"):
        main([*options, "--thresholds", "0.5"])
    (folders / "cams" / "a.npz").write_bytes(b"no maps")
    with pytest.raises(UsageError, match=r"no class maps could be scored, first: .*a\.npz"):
        main([*options, "--thresholds", "0.5"])


def test_background_scores_are_shares(folders, capsys):
    with pytest.raises(SystemExit) as ended:
        run(folders, "--thresholds", "2")
    assert ended.value.code == 2
    assert "'2' is not a number between 0 and 1" in capsys.readouterr().err


def test_classes_are_the_runs_or_must_be_named(folders, capsys):
    truth = ["--ground-truth", str(folders / "gt")]
    with pytest.raises(UsageError, match=r"nothing says which classes .* name them with --classes"):
        main(["--masks", str(folders / "pred"), *truth])
    with pytest.raises(UsageError, match="--run or --masks: one is needed"):
        main(truth)
    run_folder = folders / "run"
    save(run_folder / "masks" / "a.png", [[0, 0, 1, 1], [0, 0, 1, 1]])
    vocabulary = Vocabulary(["boat", "duck"]).to_dict()
    (run_folder / "manifest.json").write_text(json.dumps({"format": 1, "vocabulary": vocabulary}))
    assert main(["--run", str(run_folder), *truth]) == 0
    assert "boat" in capsys.readouterr().out


def test_figures_alone_on_the_screen(folders, capsys):
    assert run(folders, "--json", "-", "--quiet") == 0
    out = capsys.readouterr()
    assert json.loads(out.out)["images"] == 2
    assert out.err == ""


def test_segmented_and_remasked_folders_say_their_classes(folders, capsys):
    write_classes(folders, ("background", "boat"), [[0, 0, 0], [1, 2, 3]])
    assert main(["--masks", str(folders / "pred"), "--ground-truth", str(folders / "gt")]) == 0
    assert "boat" in capsys.readouterr().out
    assert run(folders, "--classes", "duck") == 0
    assert "duck" in capsys.readouterr().out


def test_binary_truth(folders, capsys):
    for name in ("a", "deep/a"):
        save(folders / "gt" / f"{name}.png", [[0, 0, 255, 255], [0, 0, 255, 255]])
    with pytest.raises(UsageError, match=r"true masks hold nothing but 0 and 255, .*--classes and add --binary"):
        run(folders)
    with pytest.raises(UsageError, match=r"--binary: .*vocabulary 'voc' has 20 classes; name the one with --classes"):
        run(folders, "--binary")
    report = folders / "report.json"
    assert run(folders, "--classes", "boat", "--binary", "--json", str(report)) == 0
    values = json.loads(report.read_text())
    assert values["classes"]["boat"]["iou"] == pytest.approx(6 / 8)
    assert values["pixel_accuracy"] == pytest.approx(14 / 16)


def test_true_masks_of_nothing_but_ignored_pixels(folders):
    for name in ("a", "deep/a"):
        save(folders / "gt" / f"{name}.png", np.full((2, 4), 255))
    with pytest.raises(UsageError, match=r"true masks hold nothing but 255 \(ignored\)"):
        run(folders)


def test_a_void_rim_in_one_mask_is_no_binary_mask(folders):
    save(folders / "gt" / "a.png", [[0, 0, 255, 255], [0, 0, 255, 255]])
    assert run(folders) == 0


@pytest.mark.parametrize("depth", ["1", "16 bits"])
def test_true_masks_of_other_depths(folders, depth):
    truth = np.array([[0, 0, 1, 1], [0, 0, 1, 1]])
    for name in ("a", "deep/a"):
        if depth == "1":
            Image.fromarray(truth.astype(bool)).save(folders / "gt" / f"{name}.png")
        else:
            ignored = np.where(np.arange(4) == 0, 65535, truth)
            Image.fromarray(ignored.astype(np.uint16)).save(folders / "gt" / f"{name}.png")
    report = folders / "report.json"
    assert run(folders, "--json", str(report)) == 0
    background = 8 / 10 if depth == "1" else 4 / 6
    assert json.loads(report.read_text())["classes"]["background"]["iou"] == pytest.approx(background)


def test_turned_truth_is_not_resized(folders, capsys):
    for name in ("a", "deep/a"):
        save(folders / "gt" / f"{name}.png", np.zeros((4, 2)))
    assert run(folders, "--resize") == 1
    said = capsys.readouterr().out
    assert "mask of 4x2 pixels, ground truth of 2x4: one is the other turned" in said
    assert "EXIF" in said


def test_colours_are_no_truth(folders, capsys):
    Image.new("RGB", (4, 2), "red").save(folders / "gt" / "a.png")
    assert run(folders) == 0
    assert "a RGB image holds colours, not class ids" in capsys.readouterr().out


def test_names_without_a_partner(folders, capsys):
    save(folders / "pred" / "alone.png", [[0]])
    assert run(folders) == 0
    assert "1 of 3 predictions have no true mask and are not scored: alone" in capsys.readouterr().err
    save(folders / "other" / "x" / "a.png", [[0]])
    with pytest.raises(UsageError, match=r"none of its 3 names \(first 'a'\) is among the 1 in .* \(first 'x/a'\)"):
        main(["--masks", str(folders / "pred"), "--ground-truth", str(folders / "other"), "--classes", "voc"])
    (folders / "jpeg").mkdir()
    Image.new("L", (4, 2)).save(folders / "jpeg" / "a.jpg")
    with pytest.raises(UsageError, match=r"--ground-truth .*jpeg: no .png file in it \(1 .jpg\)"):
        main(["--masks", str(folders / "pred"), "--ground-truth", str(folders / "jpeg"), "--classes", "voc"])


def test_stray_files_and_suffixes_in_capitals(folders):
    for name in ("._a.png", ".DS_Store", "Thumbs.db", "notes.txt"):
        (folders / "pred" / name).write_bytes(b"\0")
        (folders / "gt" / name).write_bytes(b"\0")
    (folders / "gt" / "a.png").rename(folders / "gt" / "a.PNG")
    report = folders / "report.json"
    assert run(folders, "--json", str(report), "--strict") == 0
    assert json.loads(report.read_text())["images"] == 2


@pytest.mark.parametrize("text", ["\ufeffa\r\ndeep/a\r\n", "a.png\ndeep\\a.png\n", "a 1\ndeep/a 1\n"])
def test_lists_as_other_systems_write_them(folders, text):
    (folders / "list.txt").write_bytes(text.encode())
    report = folders / "report.json"
    assert run(folders, "--list", str(folders / "list.txt"), "--strict", "--json", str(report)) == 0
    assert json.loads(report.read_text())["images"] == 2
