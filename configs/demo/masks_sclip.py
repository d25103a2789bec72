# The same with the tags as the vocabulary of SCLIP in place of class activation maps: this model's patch tokens name
# themselves well, and its maps keep apart objects that touch.
_base_ = "./masks.py"
method = "sclip"
masks = dict(views=dict(scales=(1.0,), flip=True))
