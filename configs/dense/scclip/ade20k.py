# SC-CLIP as published on ADE20K val, 150 classes.
_base_ = "../ade20k.py"

model = dict(
    dense=dict(
        strategy="scclip",
        preset="reference",
        mode="slide",
        crop=224,
        stride=112,
        short_side=336,
        logit_scale=40.0,
        background_threshold=0.0,
        templates=__import__("tagclip.clip.prompts", fromlist=["IMAGENET_TEMPLATES"]).IMAGENET_TEMPLATES,
    )
)
