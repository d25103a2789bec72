# The mean of class activation maps and of SCLIP's probabilities for the same tags: they err in different places, and on
# this model the masks are better than from either (docs/results.md, stage three). A tag too many costs fewer pixels
# here than one too few, so that more scores become tags. What tools/demo.sh runs.
_base_ = "./masks.py"
method = ["cam", "sclip"]
tagging = dict(rule=dict(threshold=0.08))
masks = dict(alpha=1.5, views=dict(scales=(1.0,), flip=True))
