"""A small tagging run that another process can do, to be killed."""

import time
from pathlib import Path

import torch

from tagclip.clip import load_clip
from tagclip.config import TagCLIPConfig
from tagclip.images import find_images
from tagclip.tagger import TagCLIP
from tagclip.vocabulary import Vocabulary
from wsss.files.run_folder import RunFolder
from wsss.pipeline.planning import plan_images
from wsss.pipeline.run_config import run_identity
from wsss.pipeline.run_model import model_identity
from wsss.pipeline.tags import run_tagging

PETS = Vocabulary(["cat", "dog", "bird"], background=("grass", "sky"))


def tag_folder(weights: Path, images: Path, out: Path, cache_dir: Path, pause: float = 0.0) -> None:
    """Tag a folder with the model of `weights`, two images a batch, with a pause after each batch."""
    torch.set_num_threads(1)
    clip = load_clip(str(weights))
    config = TagCLIPConfig.from_dict({"batch_size": 2, "rule": {"floor": None}})
    files = find_images(images)
    plan = plan_images(files, config.image, clip.patch_size, batch_size=2, batch_patches=None)
    tagger = TagCLIP(clip, PETS, config=config, cache_dir=cache_dir)
    with RunFolder.open(out, run_identity(model_identity(clip), PETS, config, files), {}) as run:
        run_tagging(run, tagger, plan, progress=lambda images: time.sleep(pause))
