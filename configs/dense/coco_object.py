# COCO-Object: the 80 things of COCO-Stuff 164k val, everything else is background (5000 images).
_base_ = "./_base_/model.py"

model = dict(
    classes="{{ fileDirname }}/classes/coco_object.yaml",
    dense=dict(short_side=448, background_threshold=0.1),
)
CLASSES = ("background", *__import__("tagclip.vocabulary", fromlist=["Vocabulary"]).Vocabulary.named("coco").names)

test_pipeline = [
    dict(type="LoadUprightImage", apply_exif=False),
    dict(type="LoadAnnotations"),
    dict(type="CocoStuffToObjects"),
    dict(type="PackSegInputs"),
]

test_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="BaseSegDataset",
        data_root="data/coco_stuff164k",
        data_prefix=dict(img_path="images/val2017", seg_map_path="annotations/val2017"),
        seg_map_suffix="_labelTrainIds.png",
        metainfo=dict(classes=CLASSES),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
