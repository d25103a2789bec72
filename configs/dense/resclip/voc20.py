# ResCLIP as published on PASCAL VOC 2012 val, 20 classes.
# The published constants of both parts were chosen on the test sets, one by one.
_base_ = "../voc20.py"

model = dict(
    dense=dict(
        strategy="resclip",
        preset="reference",
        options=dict(
            rcs_scale=2.0,
            rcs_weight=0.6,
            feedback=dict(threshold=0.1, scale=2.1, weight=0.6),
        ),
        mode="whole",
        short_side=336,
        logit_scale=40.0,
        background_threshold=0.0,
        templates=__import__("tagclip.clip.prompts", fromlist=["IMAGENET_TEMPLATES"]).IMAGENET_TEMPLATES,
    )
)
