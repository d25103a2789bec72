# What all mask configs share, beyond configs/tagging: settings of stage two. Anything here can be set on the command
# line: --set masks.crf.iterations=5
tags = None  # take tags from this file instead of the model (tools/generate_masks.py --tags)
tag_ids = "auto"  # what the numbers of a plain list are: index, raw, or auto
masks = dict()  # fields of wsss.config.MaskConfig over the preset's
method = "cam"  # or a training-free strategy: gclip, sclip, clearclip, naclip, maskclip, ...
dense = dict()  # fields of wsss.dense.dense_config.DenseConfig for that strategy
raw_cams = True  # keep the maps before the affinity too, to look at them
