# ResCLIP as published on Cityscapes val, 19 classes.
# The published constants of both parts were chosen on the test sets, one by one.
_base_ = "../cityscapes.py"

model = dict(
    dense=dict(
        strategy="resclip",
        preset="reference",
        options=dict(
            rcs_scale=2.0,
            rcs_weight=0.2,
            feedback=dict(threshold=0.1, scale=2.1, weight=0.6),
        ),
        mode="slide",
        crop=224,
        stride=112,
        short_side=560,
        logit_scale=40.0,
        background_threshold=0.0,
        templates=__import__("tagclip.clip.prompts", fromlist=["IMAGENET_TEMPLATES"]).IMAGENET_TEMPLATES,
    )
)
