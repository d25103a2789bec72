# ResCLIP as published on COCO-Stuff 164k val, 171 classes.
# The published constants of both parts were chosen on the test sets, one by one.
_base_ = "../cocostuff.py"

model = dict(
    dense=dict(
        strategy="resclip",
        preset="reference",
        options=dict(
            rcs_scale=2.0,
            rcs_weight=0.4,
            feedback=dict(threshold=0.11, scale=1.8, weight=0.7),
        ),
        mode="slide",
        crop=224,
        stride=112,
        short_side=336,
        logit_scale=40.0,
        background_threshold=0.0,
        templates=__import__("tagclip.clip.prompts", fromlist=["IMAGENET_TEMPLATES"]).IMAGENET_TEMPLATES,
    )
)
