# PEARL as published on PASCAL Context val, 59 classes.
_base_ = "../context59.py"

model = dict(
    dense=dict(
        strategy="pearl",
        preset="reference",
        options=dict(alpha=0.08),
        mode="slide",
        crop=224,
        stride=112,
        short_side=336,
        logit_scale=40.0,
        background_threshold=0.0,
        propagation=dict(agreement="diagonal"),
        templates=__import__("tagclip.clip.prompts", fromlist=["IMAGENET_TEMPLATES"]).IMAGENET_TEMPLATES,
    )
)
