# SC-CLIP as published on PASCAL VOC 2012 val, 20 classes and background.
_base_ = "../voc21.py"

model = dict(
    dense=dict(
        strategy="scclip",
        preset="reference",
        mode="slide",
        crop=224,
        stride=112,
        short_side=336,
        logit_scale=50.0,
        background_threshold=0.15,
        area_threshold=0.1,
        templates=__import__("tagclip.clip.prompts", fromlist=["IMAGENET_TEMPLATES"]).IMAGENET_TEMPLATES,
    )
)
