"""The comparison of the CRF's engines: what it counts, and its tables on two small photos."""

import numpy as np
import pytest
from PIL import Image

from tests.golden import COPY
from tests.wsss.masks.test_crf import picture
from wsss.benchmark.crf_engines import (
    Agreement,
    CrfCase,
    compare_engines,
    main,
    mosaic,
    recorded_cases,
    spread_over,
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three pictures and their masks."""
    base = tmp_path_factory.mktemp("crf")
    for name in ("photos", "masks"):
        (base / name).mkdir()
    for number in range(3):
        rgb, disc = picture(48, 64, seed=number)
        Image.fromarray(rgb).save(base / "photos" / f"{number}.jpg")
        mask = Image.fromarray(np.where(disc, 15, 0).astype(np.uint8))
        mask.putpalette([0] * 768)
        mask.save(base / "masks" / f"{number}.png")
    return base


def test_what_is_counted():
    theirs = np.array([[[0.6, 0.5, 0.9, 0.3]], [[0.4, 0.5, 0.1, 0.7]]], np.float32)
    ours = theirs.copy()
    ours[:, 0, 0] = 0.3, 0.7  # another label
    ours[:, 0, 1] = 0.4999999, 0.5000001  # another label, of which pydensecrf is not sure either
    ours[:, 0, 2] = 0.898, 0.102  # far, with the same label
    found = Agreement()
    found.add(CrfCase("one", np.zeros((1, 4, 3), np.uint8), theirs, labels=np.array([[1, 1, 1, 1]])), theirs, ours)
    assert (found.images, found.pixels, found.other_labels, found.ties, found.far) == (1, 4, 2, 1, 2)
    assert found.largest == pytest.approx(0.3)
    assert (found.worst, found.other_than_recorded) == ("one", 1)


@pytest.mark.pydensecrf
def test_recorded_cases_have_the_recorded_labels():
    cases = list(recorded_cases(COPY, COPY / "images"))
    assert len(cases) == 3
    found = compare_engines(cases)
    assert found.pixels == sum(case.rgb.shape[0] * case.rgb.shape[1] for case in cases)
    assert found.other_labels <= 2
    assert found.other_than_recorded <= 5
    assert found.largest < 1e-3


def test_spread_and_mosaic(photos):
    paths = sorted((photos / "photos").glob("*.jpg"))
    assert spread_over(paths, 2) == [paths[0], paths[2]]
    assert spread_over(paths, 60) == paths
    assert mosaic(paths, 3, 1).shape == (48, 192, 3)


@pytest.mark.pydensecrf
def test_tables(photos, capsys):
    options = ["--photos", str(photos / "photos"), "--masks", str(photos / "masks"), "--labels", "2", "3"]
    assert main([*options, "--repeats", "1", "--threads", "1"]) == 0
    said = capsys.readouterr().out
    assert "| official masks, blurred | 3 | 9,216 | 100.00000% | 0 (0) |" in said
    assert "| random, 3 labels | 3 | 9,216 | " in said
    assert "| 1 | 2 | " in said
    rows = [line.split("|")[2:4] for line in said[said.index("MiB/MP") :].splitlines() if line.startswith("| 3 ")]
    assert len(rows[0]) == 2
    assert all(float(value) >= 0 for value in rows[0])  # so small a picture may fit into memory that is there already


@pytest.mark.parametrize(("option", "value"), [("--labels", "1"), ("--photos", "nowhere")])
def test_wrong_options(photos, option, value, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--photos", str(photos / "photos"), option, value])
    assert stopped.value.code == 2
    assert f"{option} {value}" in capsys.readouterr().err
