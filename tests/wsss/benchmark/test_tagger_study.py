"""The study of trained taggers: its figures, its tables, and that it looks on without touching the training."""

import json

import numpy as np
import pytest

from tests.wsss.distillation.conftest import SMALL, tagged, tiny_networks  # noqa: F401  # fixtures
from wsss.benchmark import tagger_study
from wsss.benchmark.tagger_study import (
    TaggerFigures,
    TaggerRow,
    TaggerSpeed,
    rank_agreement,
    tagger_figures,
    tagger_text,
    time_taggers,
    train_variant,
)
from wsss.distillation.distillation_config import DistillationConfig
from wsss.distillation.student import load_student
from wsss.distillation.student_tagger import StudentTagger
from wsss.distillation.student_training import TaggerTraining
from wsss.files.run_reader import RunReader

NAMES = ("cat", "dog", "bird")


def test_figures_of_perfect_and_of_turned_scores():
    truth = np.eye(3, dtype=bool)
    assert tagger_figures(truth.astype(np.float32), truth, NAMES) == TaggerFigures(1.0, 1.0)
    assert tagger_figures(1 - truth.astype(np.float32), truth, NAMES).mean_ap < 0.5
    ranked = np.array([[0.1, 0.9], [0.2, 0.5], [0.3, 0.4]])
    assert rank_agreement(ranked, ranked**2) == pytest.approx(1.0)
    assert rank_agreement(ranked, -ranked) == pytest.approx(-1.0)


def test_the_table_shows_the_last_epoch_and_beside_it_the_oracles():
    epochs = [TaggerFigures(0.5, 0.4), TaggerFigures(0.7, 0.6), TaggerFigures(0.65, 0.62)]
    row = TaggerRow("scores", epochs, 0.8)
    assert (row.last, row.oracle) == (epochs[2], (2, epochs[1]))
    speeds = [TaggerSpeed("TagCLIP", 2.0, 1.0), TaggerSpeed("the tagger", 20.0, 8.0)]
    lines = tagger_text(TaggerFigures(0.9, 0.8), [row], speeds).splitlines()
    assert "| trained on scores | 65.0 | 62.0 | 70.0, 60.0 (epoch 2 of 3) | 0.80 |" in lines
    assert lines[-1] == "| ratio | 10.0 | 8.0 |"


def test_looking_on_changes_nothing(tagged, tmp_path):  # noqa: F811
    reader = RunReader(tagged.run)
    records = list(reader.records())
    paths, scores = [reader.photo(record) for record in records], np.stack([record.scores for record in records])
    config = DistillationConfig.from_dict({**SMALL, "align": {"enabled": True, "first_epoch": 1, "every": 1}})
    said: list[str] = []
    row = train_variant(
        "scores", tagged.run, tmp_path / "seen", config, paths, scores > 0.3, scores, NAMES, said.append
    )
    assert len(row.epochs) == len(said) == 3
    assert json.loads((tmp_path / "seen" / "epochs.json").read_text())[2] == vars(row.last)
    alone = TaggerTraining(tagged.run, tmp_path / "alone", config).execute()
    seen = tmp_path / "seen" / "tagger" / "tagger.pt"
    assert seen.read_bytes() == alone.path.read_bytes()
    student = load_student(seen)
    tagger = StudentTagger(student, student.card.classes)
    first, second = time_taggers({"one": tagger, "two": tagger}, paths, rounds=1)
    assert (first.name, second.name) == ("one", "two")
    assert first.processor > 0
    assert tagger_study.VARIANTS["TagCLIP's scores"] == {}


def test_each_row_of_the_study_trains_another_tagger():
    base = {"epochs": 5, "side": 128}
    configs = [DistillationConfig.from_dict({**base, **changes}) for changes in tagger_study.VARIANTS.values()]
    assert len({repr(config) for config in configs}) == len(configs)
    looks = [config.second_look for config in configs if config.second_look.enabled]
    assert [config.bias.enabled for config in configs if config.second_look.enabled].count(True) == 1
    assert all(look.offset / look.side == pytest.approx(80 / 640) for look in looks)
