# The same with the tags as the vocabulary of SCLIP in place of class activation maps: on this model, whose patch tokens
# were trained to name themselves, the masks are better (docs/results.md, stage three).
_base_ = "./masks.py"
method = "sclip"
masks = dict(views=dict(scales=(1.0,), flip=True))
