# The embedded demo model on demo scenes (tools/demo.sh): VOC's classes, every pixel labelled.
_base_ = ["../tagging/_base_.py", "../masks/_base_.py"]
model = dict(name="demo", pretrained=None)
vocabulary = "voc"
masks = dict(confidence=None)
work = dict(mask_workers=None, mask_queue=8)
out = "runs/demo/run"
