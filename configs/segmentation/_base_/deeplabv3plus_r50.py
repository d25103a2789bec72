"""DeepLabV3+ (arXiv 1802.02611), ResNet-50."""

_base_ = [
    __import__("wsss.segmentation.bases", fromlist=["mmseg_config"]).mmseg_config(
        "_base_/models/deeplabv3plus_r50-d8.py"
    ),
    "./data.py",
    "./runtime.py",
]

# Pseudo masks ignore many pixels: the loss is the mean over the others.
model = dict(
    type="WeightedEncoderDecoder",
    data_preprocessor=dict(size=(512, 512)),
    decode_head=dict(loss_decode=dict(avg_non_ignore=True)),
    auxiliary_head=dict(loss_decode=dict(avg_non_ignore=True)),
)
