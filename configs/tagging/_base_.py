# Settings that all tagging configs share. On the command line: --set tagging.rule.threshold=0.4
model = dict(
    name="ViT-B-16",  # open_clip name, weights file, local-dir:PATH, or demo
    pretrained="openai",  # open_clip tag or weights file
    dtype="float32",
)
vocabulary = "voc"  # built-in name or class file
preset = "default"  # or reference: the published implementation in every detail; the constants are the same
tagging = dict()  # fields of tagclip.config.TagCLIPConfig: docs/constants.md explains each
images = dict(
    source=None,  # folder, glob, image, or split list
    root=None,  # image root of a split list
)
work = dict(workers=2)  # decoding threads
top_k = None  # keep only the k best scores of an image; None keeps all
out = "runs/tags"
