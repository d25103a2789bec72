# CLIPtrase as published on PASCAL VOC 2012 val, 20 classes and background.
# Image and ground truth are resized to a short side of 336 pixels and cropped to the square in the middle,
# so that figures compare with CLIPtrase's alone.
_base_ = "../voc21.py"

model = dict(
    dense=dict(
        strategy="cliptrase",
        preset="reference",
        options=dict(eps=1.1, min_samples=7),
        mode="whole",
        short_side=None,
        logit_scale=100.0,
        background_threshold=0.0,
        templates=__import__("tagclip.clip.prompts", fromlist=["IMAGENET_TEMPLATES"]).IMAGENET_TEMPLATES,
    )
)
test_pipeline = [
    dict(type="LoadUprightImage", apply_exif=False),
    dict(type="LoadAnnotations"),
    dict(type="ResizeCentreCrop", size=336),
    dict(type="PackSegInputs"),
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
