"""Text features and classifiers: exact with short contexts, equal to the golden rows, cached on disk."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F

from tagclip.clip import CAM_TEMPLATE, TAGGING_TEMPLATES, build_text_classifier, prompts, wrap_clip
from tagclip.errors import UsageError, VocabularyError
from tests import clip_models
from tests.clip_models import B32
from tests.golden import golden_text
from tests.oracle.vocabularies import VOC, VOC_BACKGROUND, VOC_CAM

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def model():
    return clip_models.make_model(B32)


@pytest.fixture(scope="module")
def clip(model):
    return wrap_clip(model)


def test_templates():
    assert len(TAGGING_TEMPLATES) == len(set(TAGGING_TEMPLATES)) == 85
    assert TAGGING_TEMPLATES[0] == "a bad photo of a {}."
    assert TAGGING_TEMPLATES[-1] == "this is one {} in the scene."
    assert all(template.count("{}") == 1 for template in TAGGING_TEMPLATES)
    assert CAM_TEMPLATE == "a clean origami {}."


def test_templates_are_open_clips_and_need_no_torch():
    code = (
        "import json, sys; from tagclip.clip.templates import IMAGENET_TEMPLATES as ours; "
        "quick = [name for name in ('torch', 'open_clip') if name in sys.modules]; import open_clip; "
        "theirs = [one('{}') for one in open_clip.OPENAI_IMAGENET_TEMPLATES]; "
        "print(json.dumps([quick, list(ours) == theirs]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(done.stdout) == [[], True]


def test_one_string_is_one_class_and_one_template(clip):
    expected = build_text_classifier(clip, ["cat"], ["a photo of a {}."])
    assert expected.shape == (1, clip.embed_dim)
    assert torch.equal(build_text_classifier(clip, "cat", "a photo of a {}."), expected)


def test_golden_tagging_rows(golden_clip):
    some = slice(None, None, 4)  # a row depends on its own name alone
    rows = build_text_classifier(golden_clip, [*VOC, *VOC_BACKGROUND][some], TAGGING_TEMPLATES)
    np.testing.assert_allclose(rows.numpy(), golden_text("tagging")["voc"][some], atol=1e-5)


def test_golden_cam_rows(golden_clip):
    golden = golden_text("cam")
    rows = build_text_classifier(golden_clip, VOC_CAM, [CAM_TEMPLATE])
    np.testing.assert_allclose(rows.numpy(), golden["voc"], atol=1e-5)
    rows = build_text_classifier(golden_clip, VOC_BACKGROUND, [CAM_TEMPLATE])
    np.testing.assert_allclose(rows.numpy(), golden["voc_background"], atol=1e-5)


def test_short_contexts_are_exact_and_order_is_kept(clip, model, monkeypatch):
    monkeypatch.setattr("tagclip.clip.text.CHUNK_PROMPTS", 4)
    texts = [f"a photo of {'very ' * (7 * index % 11)}many things" for index in range(11)]
    expected = model.encode_text(open_clip.tokenize(texts), normalize=True)
    torch.testing.assert_close(clip.encode_text(texts), expected, atol=1e-5, rtol=0)


def test_only_as_many_positions_as_the_longest_prompt(clip, monkeypatch):
    lengths = []
    encode = type(clip._text)._encode_causal

    def spy(self, tokens, ends):
        lengths.append(tokens.shape[1])
        return encode(self, tokens, ends)

    monkeypatch.setattr(type(clip._text), "_encode_causal", spy)
    clip.encode_text(["cat", "a photo of a dog"])
    assert lengths == [7]


def test_no_prompt_and_one_string(clip):
    assert clip.encode_text([]).shape == (0, B32.embed_dim)
    assert torch.equal(clip.encode_text("cat"), clip.encode_text(["cat"]))


@pytest.mark.parametrize(("words", "fits"), [(75, True), (76, False)])
def test_overlong_prompt(words, fits, clip):
    text = " ".join(["cat"] * words)
    if fits:
        assert clip.encode_text([text]).shape == (1, B32.embed_dim)
    else:
        with pytest.raises(VocabularyError, match="more than the 77 tokens"):
            clip.encode_text(["dog", text])


def test_ensemble_normalises_before_and_after_the_mean(clip):
    templates = ["a {}.", "the {}."]
    features = clip.encode_text(["a cat.", "the cat.", "a dog.", "the dog."]).unflatten(0, (2, 2))
    rows = build_text_classifier(clip, ["cat", "dog"], templates)
    torch.testing.assert_close(rows, F.normalize(features.mean(1), dim=-1), atol=1e-6, rtol=0)
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(2))


def test_synonyms_share_one_row(clip):
    rows = build_text_classifier(clip, [("cat", "kitten"), "dog"], ["a {}."])
    features = clip.encode_text(["a cat.", "a kitten.", "a dog."])
    torch.testing.assert_close(rows[0], F.normalize(features[:2].mean(0), dim=-1), atol=1e-6, rtol=0)
    torch.testing.assert_close(rows[1], features[2], atol=1e-6, rtol=0)


def test_a_name_with_braces_is_taken_literally(clip):
    rows = build_text_classifier(clip, ["c{0}t"], ["a {}."])
    torch.testing.assert_close(rows, clip.encode_text(["a c{0}t."]), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("names", "templates", "error"),
    [
        (["cat"], [], UsageError),
        (["cat"], ["no placeholder"], UsageError),
        (["cat"], ["{} and {}"], UsageError),
        (["cat", " "], ["a {}."], VocabularyError),
        ([()], ["a {}."], VocabularyError),
    ],
)
def test_wrong_names_and_templates(names, templates, error, clip):
    with pytest.raises(error):
        build_text_classifier(clip, names, templates)


class Counter:
    """Counts the prompts that a model is asked to encode."""

    def __init__(self, clip, monkeypatch):
        self.prompts, encode = 0, clip.encode_text

        def counted(texts):
            self.prompts += len(texts)
            return encode(texts)

        monkeypatch.setattr(clip, "encode_text", counted)


def test_cache_answers_the_second_time(clip, tmp_path, monkeypatch):
    counter = Counter(clip, monkeypatch)
    folder = tmp_path / "new" / "cache"
    first = build_text_classifier(clip, ["cat", "dog"], ["a {}."], cache_dir=folder)
    assert counter.prompts == 2
    second = build_text_classifier(clip, ["cat", "dog"], ["a {}."], cache_dir=folder)
    assert counter.prompts == 2
    assert torch.equal(first, second)
    (path,) = folder.iterdir()
    with np.load(path, allow_pickle=False) as stored:
        assert stored["classifier"].dtype == np.float32


def test_cache_key_holds_all_that_matters(clip, tmp_path, monkeypatch):
    counter = Counter(clip, monkeypatch)
    variants = [
        (["cat", "dog"], ["a {}."]),
        (["dog", "cat"], ["a {}."]),
        ([("cat", "dog")], ["a {}."]),
        (["cat", "dog"], ["the {}."]),
    ]
    for names, templates in variants:
        build_text_classifier(clip, names, templates, cache_dir=tmp_path)
    assert counter.prompts == 8
    for other in (
        wrap_clip(clip_models.make_model(B32, seed=9)),
        wrap_clip(clip_models.make_model(B32, quick_gelu=False)),
        wrap_clip(clip_models.make_model(B32), dtype="bfloat16"),
    ):
        build_text_classifier(other, *variants[0], cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 7


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "other shape", "other key"])
def test_damaged_cache_is_made_anew(damage, clip, tmp_path, monkeypatch):
    names, templates = ["cat", "dog"], ["a {}."]
    first = build_text_classifier(clip, names, templates, cache_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("hello")
    elif damage == "other shape":
        np.savez(path, classifier=np.zeros((1, 2), np.float32))
    else:
        np.savez(path, rows=np.zeros((2, B32.embed_dim), np.float32))
    counter = Counter(clip, monkeypatch)
    assert torch.equal(build_text_classifier(clip, names, templates, cache_dir=tmp_path), first)
    assert counter.prompts == 2
    build_text_classifier(clip, names, templates, cache_dir=tmp_path)
    assert counter.prompts == 2
    assert list(tmp_path.iterdir()) == [path]


def test_failed_write_leaves_no_file_and_still_answers(clip, tmp_path, monkeypatch, caplog):
    def fail(stream, **arrays):
        raise OSError("disk full")

    monkeypatch.setattr(prompts.np, "savez", fail)
    rows = build_text_classifier(clip, ["cat"], ["a {}."], cache_dir=tmp_path)
    assert rows.shape == (1, B32.embed_dim)
    assert "disk full" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_cache_holds_no_pickle(clip, tmp_path):
    build_text_classifier(clip, ["cat"], ["a {}."], cache_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    with np.load(path, allow_pickle=False) as stored:
        shapes = {name: list(stored[name].shape) for name in stored.files}
    assert json.dumps(shapes) == json.dumps({"classifier": [1, B32.embed_dim]})


def test_many_classes_go_through_in_groups_of_whole_classes(clip, monkeypatch):
    names = ["cat", ("dog", "hound"), "sea lion", "kite", ("bus", "coach", "omnibus")]
    expected = build_text_classifier(clip, names, ["a {}.", "the {}."])
    sizes = []
    encode = clip.encode_text
    monkeypatch.setattr(prompts, "PROMPTS_AT_ONCE", 5)
    monkeypatch.setattr(type(clip), "encode_text", lambda _, some: (sizes.append(len(some)), encode(some))[1])
    torch.testing.assert_close(build_text_classifier(clip, names, ["a {}.", "the {}."]), expected, rtol=0, atol=1e-6)
    assert sizes == [2, 4, 4, 6]


def test_a_name_too_long_among_many_is_told_before_anything_is_encoded(clip, monkeypatch):
    monkeypatch.setattr(prompts, "PROMPTS_AT_ONCE", 2)
    monkeypatch.setattr(type(clip), "encode_text", lambda *_: pytest.fail("encoded before the names were checked"))
    with pytest.raises(VocabularyError, match="more than the 77 tokens"):
        build_text_classifier(clip, ["cat", "dog", "very " * 80 + "long"], ["a {}.", "a photo of the {}."])
