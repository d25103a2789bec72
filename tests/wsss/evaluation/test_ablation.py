"""The ablation table of TagCLIP."""

import numpy as np

from tagclip.image_lists import find_images
from tagclip.metrics import measure_tags
from tagclip.tagger import ABLATION
from tagclip.thresholds import select
from tests.golden import COPY
from wsss.evaluation.ablation import ablate_tags, ablation_table

IMAGES = COPY / "images"
LABELS = {"scene0_224x224": (1, 15), "scene1_320x224": (1, 5, 19), "scene3_97x310": (3,), "scene5_160x160": (9,)}


def test_rows_are_the_taggers_own_figures(golden_tagger):
    tagger = golden_tagger("voc")
    files = find_images(IMAGES)
    labels = {file.id: LABELS[file.id] for file in files[1:]}
    rows = ablate_tags(tagger, files, labels, chunk=2)
    names = [row.name for row in rows]
    assert names == [*ABLATION, "+ thresholds per class"]
    results = tagger([file.path for file in files[1:]])
    truth = np.zeros((len(results), 20), bool)
    for row, file in enumerate(files[1:]):
        truth[row, list(LABELS[file.id])] = True
    scores = np.stack([result.scores for result in results])
    expected = measure_tags(truth, select(scores, tagger.config.rule), scores, tagger.vocabulary.names)
    got = rows[4].metrics
    assert got.images == len(files) - 1
    np.testing.assert_allclose(got.mean_ap, expected.mean_ap, atol=1e-9)
    assert got.micro == expected.micro
    table = ablation_table(rows).splitlines()
    assert table[6].startswith(f"| + CWR | {100 * expected.mean_ap:.1f} |")
    assert rows[4].to_dict()["f1"] == expected.micro.f1
