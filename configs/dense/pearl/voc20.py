# PEARL as published on PASCAL VOC 2012 val, 20 classes.
_base_ = "../voc20.py"

model = dict(
    dense=dict(
        strategy="pearl",
        preset="reference",
        options=dict(alpha=0.08),
        mode="whole",
        short_side=336,
        logit_scale=40.0,
        background_threshold=0.0,
        propagation=dict(agreement="diagonal"),
        templates=__import__("tagclip.clip.prompts", fromlist=["IMAGENET_TEMPLATES"]).IMAGENET_TEMPLATES,
    )
)
