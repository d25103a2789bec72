# The embedded demo model on demo scenes: class activation maps for VOC's classes, every pixel labelled. The constants
# that differ from the papers' were chosen on 30 and 60 scenes of the styles that the model was trained on.
_base_ = ["../tagging/_base_.py", "../masks/_base_.py"]
model = dict(name="demo", pretrained=None)
vocabulary = "voc"
# At the papers' 0.5 nearly half of the objects get no tag.
tagging = dict(rule=dict(threshold=0.15))
# Attention of so small a model spreads maps too far: all its blocks share the affinity, which is applied once and in
# tighter boxes, and the background is the weaker label before the CRF. Scales and mirror images steady its small grid.
masks = dict(
    confidence=None,
    alpha=2.0,
    views=dict(scales=(1.0, 1.5), flip=True),
    affinity=dict(first_block=1, last_block=11, box_threshold=0.6, propagations=1),
    crf=dict(bilateral_srgb=8.0),
)
work = dict(mask_workers=None, mask_queue=8)
out = "runs/demo/run"
