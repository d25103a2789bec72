# What all mask configs share, beyond configs/tagging: settings of stage two. Anything here can be set on the command
# line: --set masks.crf.iterations=5
tags = None  # take tags from this file instead of the model
tag_ids = "auto"  # what the numbers of a plain list are: index, raw, or auto
masks = dict()  # fields of wsss.config.MaskConfig: docs/constants.md explains each
# Where class maps come from: cam (Grad-CAM and affinity), a training-free strategy, or a strategy file; several are
# averaged. On the command line: --method gclip. Tags, CRF and files stay the same; another --out keeps both runs.
method = "cam"
# Fields of wsss.dense.dense_config.DenseConfig for that strategy: logit_scale=40.0, ...; options=dict(...) are its own.
dense = dict()
raw_cams = True  # keep the maps before the affinity too, to look at them
