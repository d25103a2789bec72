"""Make tests/data/golden from the full golden folder: `python -m tests.golden_subset`.

The model keeps only the token-embedding rows that class names and templates of the built-in vocabularies use.
"""

import json
import shutil

import torch
from safetensors.torch import load_file, save_file

from tests.golden import COPY, SHARED
from tests.oracle.clip_es import CAM_TEMPLATE
from tests.oracle.model import tagging_templates
from tests.oracle.vocabularies import VOC, VOC_BACKGROUND, VOC_CAM

CASES = (
    "tag_voc_scene5_160x160",
    "tag_voc_scene0_224x224",
    "tag_voc_scene3_97x310",
    "tag_cocostuff_scene1_320x224",
    "tag_coco_scene1_320x224",
    "cam_voc_scene5_160x160",
    "cam_voc_scene0_224x224",
    "cam_voc_scene3_97x310",
    "dense_scene0_224x224",
)
COCO_FUSED = (
    "backpack,bag",
    "umbrella,parasol",
    "handbag,purse",
    "necktie",
    "glove",
    "dessertspoon",
    "remote control",
    "hairdrier,blowdrier",
    "sknowboard",
    "background",
)
MORE = (
    "scclip_scene0_224x224",
    "scclip_asreleased_scene1_320x224",
    "scclip_slide_scene1_320x224",
    "scclip_wide_scene1_320x224",
    "resclip_scene1_320x224",
    "resclip_sfr_scene1_320x224",
    "naclip_pamr_scene0_224x224",
    "cliptrase_scene0_224x224",
    "cliptrase336_scene1_320x224",
    "cliptrase336_image_scene1_320x224",
    "excel_scene0_224x224",
    "excel320_scene1_320x224",
    "excel_text",
    "pearl_scene0_224x224",
    "pearl_tlp_scene1_320x224",
    "more_synthetic",
)
IMAGES = ("scene0_224x224", "scene1_320x224", "scene3_97x310", "scene5_160x160")


def used_words() -> list[str]:
    """Names and templates whose tokens the copy must know: VOC, COCO and COCO-Stuff, tagging and CAM."""
    stuff = json.loads((SHARED / "published" / "cocostuff_classes.json").read_text(encoding="utf-8"))
    names = [entry["name"] for entry in stuff["classes"]]
    templates = [CAM_TEMPLATE, "a photo of a {}.", *tagging_templates()]
    return [*templates, *VOC, *VOC_BACKGROUND, *VOC_CAM, *COCO_FUSED, *names]


def compact(state: dict[str, torch.Tensor], words: list[str]) -> dict[str, torch.Tensor]:
    """Replace the token embedding by the rows that `words` touch, with their ids."""
    import open_clip

    tokenizer = open_clip.get_tokenizer("ViT-B-16")
    # A word is tokenised in the middle of a prompt and at its start alike: BPE splits at spaces.
    rows = torch.unique(torch.cat([tokenizer([word.replace("{}", "cat"), word]).flatten() for word in words]))
    state = dict(state)
    state["token_embedding.weight"] = state["token_embedding.weight"][rows].contiguous()
    state["token_embedding.rows"] = rows.to(torch.int32)
    return state


def main() -> None:
    source = SHARED / "golden"
    (COPY / "images").mkdir(parents=True, exist_ok=True)
    for name in CASES:
        shutil.copyfile(source / f"{name}.npz", COPY / f"{name}.npz")
    (COPY / "more").mkdir(exist_ok=True)
    for name in MORE:
        shutil.copyfile(source / "more" / f"{name}.npz", COPY / "more" / f"{name}.npz")
    for name in IMAGES:
        shutil.copyfile(source / "images" / f"{name}.png", COPY / "images" / f"{name}.png")
    for name in ("text_tagging.npz", "text_cam.npz"):
        shutil.copyfile(source / name, COPY / name)
    state = compact(load_file(str(source / "model.safetensors")), used_words())
    save_file(state, str(COPY / "model.safetensors"))
    (COPY / "model.safetensors").chmod(0o644)


if __name__ == "__main__":
    main()
