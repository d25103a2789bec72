# Your own photos and classes: give --images and --classes, or set them here.
_base_ = "./_base_.py"
vocabulary = "classes.txt"
images = dict(source="photos")
out = "runs/tags_custom"
