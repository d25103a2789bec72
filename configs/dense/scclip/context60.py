# SC-CLIP as published on PASCAL Context val, 59 classes and background.
_base_ = "../context60.py"

model = dict(
    dense=dict(
        strategy="scclip",
        preset="reference",
        mode="slide",
        crop=224,
        stride=112,
        short_side=336,
        logit_scale=40.0,
        background_threshold=0.15,
        templates=__import__("tagclip.clip.prompts", fromlist=["IMAGENET_TEMPLATES"]).IMAGENET_TEMPLATES,
    )
)
