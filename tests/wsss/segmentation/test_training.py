"""Training from pseudo masks: summary, resumption, self-training, comparison with the truth."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmseg.registry import HOOKS
from PIL import Image

from tagclip.errors import RunError, TagclipError, UsageError, WeightsError
from tagclip.vocabulary import Vocabulary
from tests.wsss import runs
from tests.wsss.segmentation import squares
from wsss.files.mask_files import read_mask
from wsss.files.sources import load_vocabulary, open_source
from wsss.segmentation import training
from wsss.segmentation.checkpoints import read_training_checkpoint
from wsss.segmentation.curves import read_curves
from wsss.segmentation.outcome import Outcome
from wsss.segmentation.overlays import save_label_map
from wsss.segmentation.preflight import check_masks
from wsss.segmentation.train_settings import TrainRequest, fingerprint, resolve_config
from wsss.segmentation.training import train_segmentor


class Pulled(BaseException):
    """Stands for the kill that ends a training in the middle."""


@HOOKS.register_module()
class PlugPuller(Hook):
    """Ends the training after some iterations."""

    def __init__(self, after: int) -> None:
        self.after = after

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.iter + 1 >= self.after:
            raise Pulled


def request(config_file, folders, work_dir, **options) -> TrainRequest:
    options = {"val": folders / "val", **options}
    return TrainRequest(config=config_file, run=folders / "run", work_dir=work_dir, **options)


def test_training_leaves_checkpoints_curves_and_a_summary(trained):
    work_dir = Path(trained.outcomes[0].work_dir)
    curves = read_curves(work_dir)
    assert sorted(curves.loss) == list(range(1, 9))
    assert curves.loss[8] < curves.loss[1]
    assert sorted(curves.miou) == [4, 8]
    best_iteration, best = curves.best
    assert trained.checkpoint == work_dir / f"best_mIoU_iter_{best_iteration}.pth"
    assert trained.checkpoint.is_file()
    assert (work_dir / "iter_8.pth").is_file()
    assert (work_dir / "curves.png").stat().st_size > 5000
    assert list(work_dir.glob("*/vis_data/events.out.tfevents.*"))
    stored = json.loads((work_dir / "summary.json").read_text())
    assert stored["outcomes"][0]["best"] == best
    assert stored["images"] == 6
    assert "pseudo masks" in (work_dir / "summary.txt").read_text()


def test_resumed_training_is_the_undisturbed_one(trained, config_file, folders, tmp_path):
    interrupted = tmp_path / "pulled.py"
    hooks = 'custom_hooks = [dict(type="SelfDescribingCheckpointHook"), dict(type="PlugPuller", after=6)]\n'
    interrupted.write_text(squares.CONFIG + hooks)
    work_dir = tmp_path / "work"
    with pytest.raises(Pulled):
        train_segmentor(request(interrupted, folders, work_dir))
    halfway = read_training_checkpoint(work_dir / "iter_4.pth")
    assert halfway["optimizer"]["state"]
    best_before = read_curves(work_dir).best

    summary = train_segmentor(request(config_file, folders, work_dir))
    undisturbed = Path(trained.outcomes[0].work_dir)
    again, straight = read_curves(work_dir), read_curves(undisturbed)
    starts = sorted(work_dir.glob("*/vis_data/scalars.json"))
    assert len(starts) == 2
    steps = [json.loads(line)["step"] for line in starts[1].read_text().splitlines() if "loss" in line]
    assert steps == [5, 6, 7, 8]
    assert again.learning_rate == pytest.approx(straight.learning_rate)
    assert again.loss == pytest.approx(straight.loss, rel=1e-4)
    assert again.miou == pytest.approx(straight.miou)
    assert summary.outcomes[0].best >= best_before[1]
    ends = [read_training_checkpoint(folder / "iter_8.pth") for folder in (work_dir, undisturbed)]
    for name, value in ends[1]["state_dict"].items():
        torch.testing.assert_close(ends[0]["state_dict"][name], value, rtol=1e-4, atol=1e-6)
    assert ends[0]["message_hub"]["runtime_info"]["best_score"] == pytest.approx(straight.best[1])
    momentum = [next(iter(end["optimizer"]["state"].values()))["momentum_buffer"] for end in ends]
    torch.testing.assert_close(momentum[0], momentum[1], rtol=1e-4, atol=1e-6)


def test_a_finished_training_is_not_repeated_and_another_is_refused(trained, config_file, folders):
    work_dir = Path(trained.outcomes[0].work_dir)
    before = (work_dir / "iter_8.pth").stat().st_mtime_ns
    same = train_segmentor(request(config_file, folders, work_dir))
    assert (work_dir / "iter_8.pth").stat().st_mtime_ns == before
    assert same.outcomes[0].best == trained.outcomes[0].best
    options = {"optim_wrapper.optimizer.lr": 0.02}
    with pytest.raises(RunError, match=r"a training with other settings: .*optimizer\.lr .0.05. there, .0.02. here"):
        train_segmentor(request(config_file, folders, work_dir, options=options))


def remade(folders, tmp_path):
    """A copy of the data whose second training mask and second true mask differ in one pixel."""
    copy = shutil.copytree(folders, tmp_path / "copy")
    for path in (copy / "run" / "masks" / "b" / "s1.png", copy / "val" / "SegmentationClass" / "s101.png"):
        mask = read_mask(path).copy()
        mask[0, 0] ^= 1
        save_label_map(path, mask, Vocabulary(squares.CLASSES).label_palette)
    return copy


@pytest.mark.parametrize("changed", ["masks", "validation_masks"])
def test_a_training_knows_its_masks(trained, config_file, folders, tmp_path, changed):
    work_dir = Path(trained.outcomes[0].work_dir)
    copy = remade(folders, tmp_path)
    run, val = (copy / "run", folders / "val") if changed == "masks" else (folders / "run", copy / "val")
    # Only the content counts, so the settings of the copy are made those of the original.
    options = {"train_dataloader.dataset.data_root": str(folders / "run")}
    with pytest.raises(RunError, match=rf"(?<!_){changed} '[0-9a-f]+\.\.\. there, '[0-9a-f]+\.\.\. here; take another"):
        train_segmentor(TrainRequest(config=config_file, run=run, val=val, work_dir=work_dir, options=options))


def test_independent_trainings_under_slurm_are_each_the_first(monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert training._rank("none") == 0
    assert training._rank("slurm") == 3


class Trap:
    """Pickles into a call that makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("option", ["pretrained", "load_from"])
def test_weights_that_would_run_code_are_refused(config_file, folders, tmp_path, option):
    sprung, weights = tmp_path / "sprung", tmp_path / "weights.pth"
    torch.save({"state_dict": {}, "more": Trap(sprung)}, weights)
    options = {option: str(weights) if option == "pretrained" else weights}
    with pytest.raises(WeightsError, match=r"weights\.pth cannot be read"):
        train_segmentor(request(config_file, folders, tmp_path / "work", **options))
    assert not sprung.exists()


def test_a_checkpoint_that_would_run_code_is_not_resumed(config_file, folders, tmp_path):
    sprung, work_dir = tmp_path / "sprung", tmp_path / "work"
    with pytest.raises(WeightsError):  # leaves the folder prepared
        train_segmentor(request(config_file, folders, work_dir, pretrained=str(config_file)))
    torch.save({"state_dict": {}, "more": Trap(sprung)}, work_dir / "iter_4.pth")
    (work_dir / "last_checkpoint").write_text(str(work_dir / "iter_4.pth"))
    with pytest.raises(WeightsError, match=r"iter_4\.pth cannot be read"):
        train_segmentor(request(config_file, folders, work_dir, pretrained=str(config_file)))
    assert not sprung.exists()


@pytest.mark.parametrize("keep", [0, 100, -100])
def test_a_truncated_checkpoint_is_one_line(trained, config_file, folders, tmp_path, keep):
    work_dir = Path(shutil.copytree(trained.outcomes[0].work_dir, tmp_path / "work"))
    (work_dir / "iter_8.pth").unlink()
    path = work_dir / "iter_4.pth"
    path.write_bytes(path.read_bytes()[:keep])
    (work_dir / "last_checkpoint").write_text(str(path))
    with pytest.raises(TagclipError, match=r"iter_4\.pth cannot be read .*") as caught:
        train_segmentor(request(config_file, folders, work_dir))
    assert "\n" not in str(caught.value)
    train_segmentor(request(config_file, folders, work_dir, overwrite=True))
    assert (work_dir / "iter_8.pth").is_file()


def test_checkpoints_of_an_unknown_training_are_not_touched(config_file, folders, tmp_path):
    (tmp_path / "iter_2.pth").write_bytes(b"precious")
    with pytest.raises(RunError, match="holds checkpoints of another training"):
        train_segmentor(request(config_file, folders, tmp_path))
    assert (tmp_path / "iter_2.pth").read_bytes() == b"precious"


def test_self_training_and_ground_truth(config_file, folders, tmp_path):
    """One round on predictions held to the tags, and the same images' true masks beside it."""
    truth = squares.voc_folder(tmp_path / "truth", count=1)
    for seed in range(6):
        squares.write_pair(truth / "JPEGImages", truth / "SegmentationClass", f"{'ab'[seed % 2]}/s{seed}", seed)
    options = {
        "self_training.confidence": 0.3,
        "train_cfg.val_interval": 2,
        "train_dataloader.dataset.image_weight.rule": "min",
    }
    summary = train_segmentor(
        request(config_file, folders, tmp_path / "work", iterations=2, rounds=1, ground_truth=truth, options=options)
    )
    assert [outcome.title for outcome in summary.outcomes] == ["pseudo masks", "self-training round 1", "ground truth"]
    assert [outcome.iterations for outcome in summary.outcomes] == [2, 2, 2]
    assert summary.checkpoint.parent.name == "round1"
    assert summary.masks["miou"] == 1.0
    assert summary.masks["images"] == 6
    made = tmp_path / "work" / "round1" / "masks"
    for seed in range(6):
        id_ = f"{'ab'[seed % 2]}/s{seed}"
        names = squares.scene(seed)[2]
        allowed = {0, 255} | {squares.CLASSES.index(name) + 1 for name in names}
        assert set(np.unique(read_mask(made / f"{id_}.png"))) <= allowed
    table = summary.table()
    assert "mIoU 100.0" in table
    assert "ground truth" in table


def test_without_validation_the_last_checkpoint_counts(config_file, folders, tmp_path):
    summary = train_segmentor(request(config_file, folders, tmp_path / "work", val=None, iterations=1))
    assert summary.checkpoint.name == "iter_1.pth"
    assert summary.outcomes[0].best is None
    assert "nothing was validated" in summary.table()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": Path("no.py")}, "no.py: neither a file nor a shipped config"),
        ({"iterations": 0}, "--iterations 0 must be at least 1"),
        ({"pretrained": "no.pth"}, "--backbone-weights no.pth does not exist"),
        ({"load_from": Path("no.pth"), "resume": False}, "--load-from no.pth does not exist"),
        ({"launcher": "pytorch"}, "start with torchrun"),
        ({"launcher": "ssh"}, "is not one of none, pytorch, slurm, mpi"),
        ({"options": {"train_dataloader.batch_size": 1}}, "batch size 1: DepthwiseSeparableASPPHead"),
        ({"options": {"train_dataloader.dataset.type": "PascalVOCDataset"}}, "not on PseudoMaskDataset"),
        ({"options": {"self_training.confidence": 2.0}, "rounds": 1}, "confidence 2.0 is not in"),
        ({"ground_truth": Path("nowhere")}, "nowhere: no such folder"),
        ({"vocabulary": "nonsense"}, "3 scores, but vocabulary .custom. has 1 classes"),
    ],
)
def test_wrong_requests(config_file, folders, tmp_path, monkeypatch, changes, message):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UsageError, match=message):
        train_segmentor(replace(request(config_file, folders, tmp_path), **changes))


@pytest.mark.parametrize("start", [{"pretrained": "http://127.0.0.1:9/backbone.pth"}, {}])
def test_a_backbone_that_cannot_be_downloaded_names_the_remedy(config_file, folders, tmp_path, monkeypatch, start):
    """By its own option, and where the config asks for it; nothing listens on port 9."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    init = {"type": "Pretrained", "checkpoint": "http://127.0.0.1:9/backbone.pth"}
    options = {} if start else {"model.backbone.init_cfg": init}
    wanted = request(config_file, folders, tmp_path / "work", iterations=1, options=options, **start)
    with pytest.raises(RunError, match=r"cannot be downloaded \(.*refused\); --backbone-weights FILE") as caught:
        train_segmentor(wanted)
    assert "\n" not in str(caught.value)
    # The advice can be followed with the same folder: nothing was trained in it yet.
    assert train_segmentor(replace(wanted, pretrained="none", options={})).outcomes[0].iterations == 1


def test_mixed_precision_needs_an_accelerator(config_file, folders, tmp_path, monkeypatch):
    wanted = replace(request(config_file, folders, tmp_path), amp=True)
    monkeypatch.setattr("wsss.segmentation.train_settings.get_device", lambda: "cpu")
    with pytest.raises(UsageError, match="--amp needs an accelerator"):
        resolve_config(wanted)
    monkeypatch.setattr("wsss.segmentation.train_settings.get_device", lambda: "cuda")
    cfg, _ = resolve_config(wanted)
    assert cfg.optim_wrapper.type == "AmpOptimWrapper"
    assert cfg.model.backbone.norm_cfg.type == "SyncBN"


def test_a_config_that_python_refuses(tmp_path, folders):
    config = tmp_path / "broken.py"
    config.write_text("model = dict(\n")
    with pytest.raises(UsageError, match=r"broken.py: SyntaxError"):
        resolve_config(TrainRequest(config=config, run=folders / "run"))


def test_the_run_decides_classes_device_and_length(config_file, folders, tmp_path, monkeypatch):
    monkeypatch.setattr("wsss.segmentation.train_settings.get_device", lambda: "cpu")
    cfg, vocabulary = resolve_config(request(config_file, folders, tmp_path, iterations=100))
    assert vocabulary.names == squares.CLASSES
    assert cfg.model.decode_head.num_classes == cfg.model.auxiliary_head.num_classes == 4
    assert cfg.model.backbone.norm_cfg.type == cfg.model.decode_head.norm_cfg.type == "BN"
    assert (cfg.train_cfg.max_iters, cfg.train_cfg.val_interval) == (100, 50)
    assert cfg.param_scheduler[0]["end"] == 100
    assert cfg.default_hooks.checkpoint.interval == 50


@pytest.mark.parametrize(("apply_exif", "message"), [(True, "is 20x40, but its image .* is 40x20"), (False, None)])
def test_the_check_turns_photos_as_the_pipeline_does(config_file, tmp_path, monkeypatch, apply_exif, message):
    run = squares.voc_folder(tmp_path / "run", count=2)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 40)).save(run / "JPEGImages" / "turned.jpg", exif=exif)
    Image.new("L", (20, 40)).save(run / "SegmentationClass" / "turned.png")
    wanted = TrainRequest(
        config=config_file,
        run=run,
        work_dir=tmp_path / "work",
        options={
            "train_dataloader.dataset.pipeline.0.apply_exif": apply_exif,
            "train_dataloader.dataset.vocabulary": list(squares.CLASSES),
        },
    )
    trained = []
    fit = lambda cfg, title, *_: trained.append(title) or outcome(title)  # noqa: E731
    monkeypatch.setattr("wsss.segmentation.training._fit", fit)
    if message:
        with pytest.raises(RunError, match=message):
            train_segmentor(wanted)
    else:
        (tmp_path / "work").mkdir()
        train_segmentor(wanted)
    assert trained == ([] if message else ["pseudo masks"])


def outcome(title: str) -> Outcome:
    return Outcome(title=title, work_dir="w", checkpoint="c", iterations=1)


def test_a_run_of_the_pipeline_trains(golden_clip, tmp_path):
    """The contract with stage two: what it writes is what is read here."""
    runs.draw_images(tmp_path / "photos")
    runs.complete(golden_clip, tmp_path / "photos", tmp_path / "run", refiner="none", confidence=None)
    vocabulary = load_vocabulary(None, tmp_path / "run")
    assert vocabulary == runs.VOCABULARY
    source = open_source(tmp_path / "run")
    assert len(source.samples) == len(runs.SIZES)
    assert all(sample.tags and len(sample.tags) == len(sample.scores) for sample in source.samples)
    assert check_masks(source, vocabulary.label_names).images == len(runs.SIZES)


def test_what_may_change_between_start_and_resumption(config_file, folders, tmp_path):
    base = fingerprint(resolve_config(request(config_file, folders, tmp_path))[0])
    harmless = {"train_dataloader.num_workers": 3, "default_hooks.logger.interval": 7}
    assert fingerprint(resolve_config(request(config_file, folders, tmp_path / "x", options=harmless))[0]) == base
    assert fingerprint(resolve_config(request(config_file, folders, tmp_path, seed=5))[0]) != base


def test_a_round_trains_on_the_masks_that_the_model_made(config_file, folders, tmp_path, monkeypatch):
    seen = []

    def fit(cfg, title, source, judged):
        folders_of_masks = {sample.mask.parents[1] for sample in source.samples}
        seen.append((title, cfg.train_dataloader.dataset.get("mask_dir"), folders_of_masks))
        return outcome(title)

    def relabelled(outcome, source, vocabulary, folder, settings):
        return Path(shutil.copytree(folders / "run" / "masks", folder / "masks"))

    monkeypatch.setattr(training, "_fit", fit)
    monkeypatch.setattr(training, "_next_masks", relabelled)
    work_dir = tmp_path / "work"
    work_dir.mkdir()
    train_segmentor(request(config_file, folders, work_dir, rounds=2))
    assert [title for title, _, _ in seen] == ["pseudo masks", "self-training round 1", "self-training round 2"]
    assert seen[0][1:] == (None, {folders / "run" / "masks"})
    for number in (1, 2):
        made = work_dir / f"round{number}" / "masks"
        assert seen[number][1:] == (str(made), {made})


def test_overwrite_removes_what_a_training_left_and_nothing_else(config_file, folders, tmp_path):
    work_dir = tmp_path / "work"
    options = {"optim_wrapper.optimizer.lr": 0.03}
    train_segmentor(request(config_file, folders, work_dir, iterations=2, options=options))
    (work_dir / "notes.txt").write_text("mine")
    (work_dir / "round1" / "masks").mkdir(parents=True)
    (work_dir / "round1" / "masks" / "old.png").touch()
    with pytest.raises(RunError, match="a training with other settings"):
        train_segmentor(request(config_file, folders, work_dir, iterations=4, options=options))
    again = train_segmentor(request(config_file, folders, work_dir, iterations=4, options=options, overwrite=True))
    assert again.outcomes[0].iterations == 4
    assert (work_dir / "notes.txt").read_text() == "mine"
    assert not (work_dir / "round1" / "masks").exists()
    assert len(list(work_dir.glob("*/vis_data"))) == 1  # the log of the first training is gone
