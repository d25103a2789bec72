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
    assert Vocabulary.load("voc") == Vocabulary.load("VOC") == Vocabulary.named("voc")
    assert Vocabulary.load(str(path)).names == Vocabulary.load(path).names == Vocabulary.load(["cat"]).names == ("cat",)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("person", ("person",)),
        ("dining table", ("dining table",)),
        ("cat,dog", ("cat", "dog")),
        ("cat, dog,", ("cat", "dog")),
        ("vocc,", ("vocc",)),
        ("coconut", ("coconut",)),
        ("Dr. Pepper", ("Dr. Pepper",)),
        ("St.John,car/van", ("St.John", "car/van")),
    ],
)
def test_load_takes_class_names(text, names):
    assert Vocabulary.load(text).names == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vocc", "'vocc': unknown, did you mean 'voc'[?] one of coco, cocostuff, context, voc; .*`vocc,` is a class"),
        ("coco2017", "did you mean 'coco'"),
        ("VOC-2012", "did you mean 'voc'"),
        ("coco-stuff", "did you mean 'cocostuff'"),
        ("imagenet", "'imagenet': unknown, one of coco"),
        ("ADE20k", "'ADE20k': unknown, one of coco"),
        ("classes.txt", "class file classes.txt: No such file"),
        ("folder/classes", "class file folder/classes: No such file"),
        ("a,b.txt", "class file a,b.txt: No such file"),
        ("cat,,dog", "entry 2: empty class name"),
        ("cat,background", "entry 2: 'background' is no class"),
        ("", "entry 1: empty class name"),
    ],
)
def test_load_refuses_what_is_none_of_these(text, message):
    with pytest.raises(VocabularyError, match=message):
        Vocabulary.load(text)


@pytest.mark.parametrize(
    "name", ["background", "Background", "_background_", "__ignore__", "bg", "<void>", "unlabeled", "don't care"]
)
def test_background_is_no_class(name):
    with pytest.raises(VocabularyError, match=r"entry 2: .* is no class .* leave it out"):
        Vocabulary(["cat", name])


@pytest.mark.parametrize("name", ["voided check", "bgt", "ground", "foreground", "backgrounds"])
def test_names_that_only_look_like_background(name):
    assert Vocabulary(["cat", name]).names == ("cat", name)


def test_names_are_equal_up_to_accents_case_and_underscores():
    assert Vocabulary(["e\u0301cureuil"]).names == ("écureuil",)
    with pytest.raises(VocabularyError, match="entry 2: class 'Traffic_Light' is already there as 'traffic light'"):
        Vocabulary(["traffic light", "Traffic_Light"])
    with pytest.raises(VocabularyError, match="entry 2: class 'e\u0301' is already there, entry 1"):
        Vocabulary(["é", "e\u0301"])


@pytest.mark.parametrize(
    ("file", "content", "names", "raw_ids"),
    [
        ("x.json", '["person", "cat"]', ("person", "cat"), None),
        ("x.json", '["person", {"cat": ["kitten"]}]', ("person", "cat"), None),
        ("x.json", '{"classes": ["\\ud83d\\udc08", "b"],\n\t"background": []}', ("🐈", "b"), None),
        ("x.json", '{"1": "dog", "0": "cat"}', ("cat", "dog"), None),
        ("x.json", '{"cat": 1, "dog": 0}', ("dog", "cat"), None),
        ("x.json", '{"model_type": "x", "id2label": {"0": "cat", "1": "dog"}}', ("cat", "dog"), None),
        ("x.json", '{"images": [], "categories": [{"id": 3, "name": "dog", "supercategory": "x"}, '
         '{"id": 1, "name": "cat"}]}', ("cat", "dog"), (1, 3)),
        ("x.yaml", "- person\n- cat\n", ("person", "cat"), None),
        ("x.yaml", "0: cat\n1: no\n", ("cat", "no"), None),
        ("x.yaml", "1: cat\n2: dog\n", ("cat", "dog"), (1, 2)),
        ("x.yaml", "cat: 0\ndog: 1\n", ("cat", "dog"), None),
        ("data.yaml", "path: ../x\nnc: 2\nnames: [cat, dog]\n", ("cat", "dog"), None),
        ("data.yml", "train: x\nnames:\n  0: cat\n  1: dog\n", ("cat", "dog"), None),
        ("x.csv", "cat\ndog\n", ("cat", "dog"), None),
        ("x.csv", "\ufeffclass_name\r\ncat\r\n\r\n\"hot dog, big\"\r\n", ("cat", "hot dog, big"), None),
        ("x.txt", "0: cat\n1: dog\n", ("cat", "dog"), None),
        ("x.txt", "0 cat\n1\tdog\n", ("cat", "dog"), None),
        ("x.names", "2: tench, Tinca tinca\n5: cat\n", ("tench", "cat"), (2, 5)),
        ("x.txt", "7 up\n", ("7 up",), None),
        ("x.txt", "cat\n7 up\n", ("cat", "7 up"), None),
    ],
)  # fmt: skip
def test_class_files_of_other_tools(tmp_path, file, content, names, raw_ids):
    (tmp_path / file).write_bytes(content.encode())
    vocabulary = Vocabulary.from_file(tmp_path / file)
    assert vocabulary.names == names
    assert vocabulary.raw_ids == raw_ids


def test_synonyms_of_other_formats(tmp_path):
    (tmp_path / "x.json").write_text('[{"cat": ["kitten", "tom"]}, {"dog": "puppy"}]')
    assert Vocabulary.from_file(tmp_path / "x.json").prompts == (("cat", "kitten", "tom"), ("dog", "puppy"))
    (tmp_path / "x.txt").write_text("0: tench, Tinca tinca\n1: cat\n")
    assert Vocabulary.from_file(tmp_path / "x.txt").prompts == (("tench", "Tinca tinca"), ("cat",))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("x.json", "[1, 2]", "entry 1: class name 1 is not text; put it in quotes"),
        ("x.json", '["a",]', "not valid JSON"),
        ("x.json", '"cat"', "no list of classes"),
        ("x.json", '{"cat": "dog"}', "no list of classes"),
        ("x.json", '{"classes": ["a"], "nc": 1}', "key 'nc': unknown key 'nc'"),
        ("x.json", '{"0": "cat", "0": "dog"}', "number 0 is already at key '0'"),
        ("x.json", '[{"cat": [1]}]', "synonyms of 'cat' are not a list of words"),
        ("x.json", '["cat", "_background_"]', "entry 2: '_background_' is no class"),
        ("x.yaml", "0: background\n1: cat\n", "line 1: 'background' is no class .* leave it out"),
        ("x.yaml", "0: cat\n0: dog\n", "line 2: number 0 is already at line 1"),
        ("x.yaml", "- cat\n- {id: 1, name: dog}\n", "line 1: class 'cat' has no number"),
        ("x.yaml", "classes: &a [cat, *a]\n", "an alias that holds itself"),
        ("x.yaml", "", "no list of classes"),
        ("x.csv", "name,colour\ncat,red\n", "row 1: 2 columns; leave only the one with class names"),
        ("x.csv", '"cat\n', "not a CSV file"),
        ("x.csv", "name\n", "no class name in it"),
        ("x.txt", "cat, dog\n", "line 1: 'cat, dog' looks like several names; write one name per line"),
        ("x.txt", "cat;dog\n", "looks like several names"),
        ("x.txt", "cat\tdog\n", "looks like several names"),
        ("x.txt", "0: cat\n0: dog\n", "line 2: number 0 is already at line 1"),
    ],
)
def test_class_files_that_are_not_understood(tmp_path, file, content, message):
    (tmp_path / file).write_text(content)
    with pytest.raises(VocabularyError, match=message):
        Vocabulary.from_file(tmp_path / file)


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
