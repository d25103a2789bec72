# SC-CLIP as published on Cityscapes val, 19 classes.
_base_ = "../cityscapes.py"

model = dict(
    dense=dict(
        strategy="scclip",
        preset="reference",
        mode="slide",
        crop=224,
        stride=112,
        short_side=560,
        logit_scale=40.0,
        background_threshold=0.0,
        templates=__import__("tagclip.clip.prompts", fromlist=["IMAGENET_TEMPLATES"]).IMAGENET_TEMPLATES,
    )
)
