"""Vocabularies: the built-in ones, files of every form, and what is wrong with bad ones."""

import json

import numpy as np
import pytest

from tagclip.errors import VocabularyError
from tagclip.vocabulary import GENERIC_BACKGROUND, Vocabulary, voc_palette


@pytest.mark.parametrize(
    ("name", "classes", "background", "cam_background", "has_background"),
    [
        ("voc", 20, 25, 25, True),
        ("coco", 80, 23, 23, True),
        ("cocostuff", 171, 0, 1, False),
        ("context", 59, 0, 1, False),
    ],
)
def test_built_in(name, classes, background, cam_background, has_background):
    vocabulary = Vocabulary.named(name)
    assert len(vocabulary) == len(vocabulary.prompts) == len(vocabulary.cam_prompts) == classes
    assert len(vocabulary.background) == background
    assert len(vocabulary.cam_background) == cam_background
    assert vocabulary.has_background is has_background
    assert vocabulary.palette.shape == (classes + 1, 3)
    assert vocabulary.palette.dtype == np.uint8
    assert len(vocabulary.label_palette) == classes + has_background
    assert len({tuple(colour) for colour in vocabulary.palette.tolist()}) == classes + 1


def test_labels_with_and_without_a_background():
    with_background = Vocabulary(["cat", "dog"])
    assert with_background.label_names == ("background", "cat", "dog")
    assert with_background.label_palette[:2].tolist() == [[0, 0, 0], [128, 0, 0]]
    without = Vocabulary(["cat", "dog"], has_background=False)
    assert without.label_names == ("cat", "dog")
    assert without.label_palette.tolist() == [[128, 0, 0], [0, 128, 0]]


def test_one_string_is_one_word():
    vocabulary = Vocabulary(["cat"], background="sky", cam_background="grass", coarse=[0], coarse_names="pets")
    assert vocabulary.background == ("sky",)
    assert vocabulary.cam_background == ("grass",)
    assert vocabulary.coarse_names == ("pets",)
    assert Vocabulary(["cat"], prompts={"cat": "tomcat"}).prompts == (("tomcat",),)
    with pytest.raises(VocabularyError, match=r"Vocabulary\(\['cat'\]\) has this one class"):
        Vocabulary("cat")
    with pytest.raises(VocabularyError, match="prompts: 'tomcat' for 1 classes; give one per class"):
        Vocabulary(["cat"], prompts="tomcat")


def test_all_built_in_names_are_listed():
    assert Vocabulary.built_in() == ("coco", "cocostuff", "context", "voc")


def test_voc_prompts():
    voc = Vocabulary.named("voc")
    assert voc.names[0] == "aeroplane"
    assert voc.prompts[voc.index("tvmonitor")] == ("tvmonitor",)
    assert voc.cam_prompts[voc.index("person")] == "person with clothes,people,human"
    assert voc.cam_prompts[voc.index("cow")] == "cow"
    assert voc.cam_prompts == voc.cam_prompts_reference


def test_coco_prompts():
    coco, voc = Vocabulary.named("coco"), Vocabulary.named("voc")
    assert coco.prompts[coco.index("motorcycle")] == ("motorbike",)
    assert coco.cam_prompts[coco.index("tv")] == "tvmonitor screen"
    assert set(voc.background) - set(coco.background) == {"keyboard", "sign"}
    differing = [
        (name, plain, published)
        for name, plain, published in zip(coco.names, coco.cam_prompts, coco.cam_prompts_reference, strict=True)
        if plain != published
    ]
    assert differing == [("snowboard", "snowboard", "sknowboard")]


def test_cocostuff_ids():
    stuff = Vocabulary.named("cocostuff")
    assert stuff.cam_background == ("background",)
    assert len(stuff.raw_ids) == len(stuff.coarse) == 171
    assert (stuff.raw_ids[0], stuff.raw_ids[-1]) == (0, 181)
    assert set(stuff.coarse) == set(range(27))
    assert len(stuff.coarse_names) == 27
    assert stuff.coarse_names[stuff.coarse[stuff.index("dog")]] == "animal"


def test_palette_is_the_voc_colour_map():
    assert voc_palette(256)[[0, 1, 2, 15, 255]].tolist() == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [192, 128, 128], [224, 224, 192]
    ]  # fmt: skip


def test_list_defaults():
    vocabulary = Vocabulary(["cat", "tree"], prompts={"cat": ["cat", "kitten"]})
    assert vocabulary.prompts == (("cat", "kitten"), ("tree",))
    assert vocabulary.cam_prompts == ("cat,kitten", "tree")
    assert vocabulary.background == tuple(word for word in GENERIC_BACKGROUND if word != "tree")
    assert Vocabulary(["cat"], background=()).cam_background == ("background",)


def test_text_file(tmp_path):
    path = tmp_path / "pets.txt"
    path.write_bytes("\ufeff# pets\ncat\n\n  dog : puppy,  hound  # two\r\nc# book\nécureuil\n".encode())
    vocabulary = Vocabulary.from_file(path)
    assert vocabulary.name == "pets"
    assert vocabulary.names == ("cat", "dog", "c# book", "écureuil")
    assert vocabulary.prompts[1] == ("dog", "puppy", "hound")


def test_yaml_file(tmp_path):
    path = tmp_path / "pets.yaml"
    path.write_text("classes:\n- cat\n- dog: [puppy]\n- no\nbackground: [grass]\nhas_background: false\n")
    vocabulary = Vocabulary.from_file(path)
    assert vocabulary.names == ("cat", "dog", "no")
    assert vocabulary.prompts[1] == ("dog", "puppy")
    assert vocabulary.background == ("grass",)
    assert not vocabulary.has_background
    path.write_text("[cat, dog]")
    assert Vocabulary.from_file(path).names == ("cat", "dog")


def test_load_takes_what_users_give(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("cat\n")
    assert Vocabulary.load("voc") == Vocabulary.named("voc")
    assert Vocabulary.load(str(path)).names == Vocabulary.load(["cat"]).names == ("cat",)
    with pytest.raises(VocabularyError, match="unknown, one of coco, cocostuff"):
        Vocabulary.load("imagenet")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat\ndog\nCat\n", "line 3: class 'Cat' is already there, line 1; remove one"),
        ("cat\n : kitten\n", "line 2: no class name"),
        ("cat: kitten,,\n", "line 1: empty synonym"),
        ("# nothing\n\n", "no class name in it"),
        ("cat\n" + "very " * 80 + "long\n", r"line 2: 'very .* tokens, CLIP reads 77; shorten it"),
        ("dog: puppy\npuppy\n", "line 1: synonym 'puppy' is also the class there, line 2"),
        ("a\0b\n", "not a text file"),
    ],
)
def test_bad_text_files(tmp_path, text, message):
    path = tmp_path / "classes.txt"
    path.write_text(text)
    with pytest.raises(VocabularyError, match=message):
        Vocabulary.from_file(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: [cat, dog\n", "not valid YAML"),
        ("classes: cat\n", "no list of classes"),
        ("classes:\n- cat\n- cat\n", "line 3: class 'cat' is already there, line 2"),
        ("classes:\n- [cat]\n", "line 2: a class is"),
        ("classes: [cat]\ncolours: 3\n", "line 2: unknown key 'colours'"),
        ("classes: [cat]\ncoarse: [a]\n", "line 2: `coarse` must be a list of whole numbers"),
        ("classes: [cat]\ncam_prompts: {dog: hound}\n", "'dog' is not a class"),
        ("classes: ['']\n", "line 1: empty class name"),
    ],
)
def test_bad_yaml_files(tmp_path, text, message):
    path = tmp_path / "classes.yaml"
    path.write_text(text)
    with pytest.raises(VocabularyError, match=message):
        Vocabulary.from_file(path)


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ([], {}, "no class name"),
        ("cat", {}, "a list of names is needed"),
        (["cat", 3], {}, "entry 2: class name 3 is not text"),
        (["cat", " "], {}, "entry 2: empty class name"),
        (["cat"], {"prompts": [["cat"], ["dog"]]}, "2 entries for 1 classes"),
        (["cat"], {"prompts": {"cat": []}}, "no prompt name"),
        (["cat"], {"palette": [[0, 0, 0]]}, "not 2 colours"),
        (["cat"], {"raw_ids": [1, 2]}, "2 ids for 1 classes"),
    ],
)
def test_bad_lists(names, options, message):
    with pytest.raises(VocabularyError, match=message):
        Vocabulary(names, **options)


@pytest.mark.parametrize("name", ["missing.txt", "folder.txt", "binary.txt"])
def test_unreadable_files(tmp_path, name):
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "binary.txt").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(VocabularyError, match=name):
        Vocabulary.from_file(tmp_path / name)


def test_digest_tells_what_results_depend_on():
    base = Vocabulary(["cat", "dog"])
    assert base.digest == Vocabulary(["cat", "dog"], name="other").digest
    others = [
        Vocabulary(["dog", "cat"]),
        Vocabulary(["cat", "dog"], background=()),
        Vocabulary(["cat", "dog"], prompts={"cat": "kitten"}),
        Vocabulary(["cat", "dog"], cam_prompts={"cat": "kitten"}),
        Vocabulary(["cat", "dog"], has_background=False),
    ]
    assert len({base.digest, *(other.digest for other in others)}) == 1 + len(others)


@pytest.mark.parametrize("name", ["voc", "cocostuff"])
def test_dict_round_trip(name):
    vocabulary = Vocabulary.named(name)
    again = Vocabulary.from_dict(json.loads(json.dumps(vocabulary.to_dict())))
    assert again == vocabulary
    assert again.digest == vocabulary.digest
    assert (again.palette == vocabulary.palette).all()


def test_index():
    assert Vocabulary.named("voc").index("train") == 18
    with pytest.raises(VocabularyError, match="'tram': not in vocabulary 'voc'"):
        Vocabulary.named("voc").index("tram")


@pytest.mark.parametrize(("name", "rows"), [("voc", 45), ("coco", 103), ("cocostuff", 171)])
def test_prompts_give_the_golden_classifiers(golden_clip, data_dir, name, rows):
    from tagclip.clip import TAGGING_TEMPLATES, build_text_classifier

    vocabulary = Vocabulary.named(name)
    prompts = [*vocabulary.prompts, *((word,) for word in vocabulary.background)]
    assert len(prompts) == rows
    golden = np.load(data_dir / "golden" / "text_tagging.npz")[name]
    renamed = [index for index, name in enumerate(vocabulary.names) if prompts[index] != (name,)]
    chosen = sorted({*range(0, rows, 9), *renamed})
    ours = build_text_classifier(golden_clip, [prompts[index] for index in chosen], TAGGING_TEMPLATES)
    assert np.abs(ours.cpu().numpy() - golden[chosen]).max() < 1e-5


def test_cam_prompts_give_the_golden_classifier(golden_clip, data_dir):
    from tagclip.clip import CAM_TEMPLATE, build_text_classifier

    voc = Vocabulary.named("voc")
    ours = build_text_classifier(golden_clip, [*voc.cam_prompts, *voc.cam_background], [CAM_TEMPLATE])
    with np.load(data_dir / "golden" / "text_cam.npz") as golden:
        assert np.abs(ours.cpu().numpy() - np.concatenate([golden["voc"], golden["voc_background"]])).max() < 1e-5
