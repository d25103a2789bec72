# SC-CLIP as published on COCO-Object, 80 classes and background.
_base_ = "../coco_object.py"

model = dict(
    dense=dict(
        strategy="scclip",
        preset="reference",
        mode="slide",
        crop=224,
        stride=112,
        short_side=336,
        logit_scale=55.0,
        background_threshold=0.35,
        templates=__import__("tagclip.clip.prompts", fromlist=["IMAGENET_TEMPLATES"]).IMAGENET_TEMPLATES,
    )
)
