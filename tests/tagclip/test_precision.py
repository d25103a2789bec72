"""float32 stays float32: reduced precision is off while we compute, and the user's settings are back afterwards."""

import threading

import pytest
import torch
import torch.nn.functional as F

from tagclip import tagger
from tagclip.clip import wrap_clip
from tagclip.clip.pooled_gradient import PooledPatches
from tagclip.precision import exact_float32
from tests import clip_models
from tests.clip_models import B32

backends = torch.backends
PER_BACKEND = hasattr(backends.cudnn, "conv")  # PyTorch 2.9 and later


def settings() -> dict[str, object]:
    """Every switch of reduced precision by name; "refused" where PyTorch does not answer by an old name."""
    getters = {
        "cudnn.allow_tf32": lambda: backends.cudnn.allow_tf32,
        "cuda.matmul.allow_tf32": lambda: backends.cuda.matmul.allow_tf32,
        "float32_matmul_precision": torch.get_float32_matmul_precision,
    }
    if PER_BACKEND:
        getters |= {
            "all": lambda: backends.fp32_precision,
            "cuda": lambda: backends.cudnn.fp32_precision,
            "cuda.matmul": lambda: backends.cuda.matmul.fp32_precision,
            "cudnn.conv": lambda: backends.cudnn.conv.fp32_precision,
            "mkldnn.matmul": lambda: backends.mkldnn.matmul.fp32_precision,
            "mkldnn.conv": lambda: backends.mkldnn.conv.fp32_precision,
        }
    found: dict[str, object] = {}
    for name, getter in getters.items():
        try:
            found[name] = getter()
        except RuntimeError:
            found[name] = "refused"
    return found


def reduced() -> set[str]:
    """Names of switches that allow less than float32."""
    return {name for name, value in settings().items() if value in (True, "tf32", "bf16", "high", "medium")}


def assign(owner, name, value):
    return lambda: setattr(owner, name, value)


USERS = {
    "nothing": lambda: None,
    "products by the old name": assign(backends.cuda.matmul, "allow_tf32", True),
    "convolutions by the old name, off": assign(backends.cudnn, "allow_tf32", False),
    "products high": lambda: torch.set_float32_matmul_precision("high"),
    "products medium": lambda: torch.set_float32_matmul_precision("medium"),
}
if PER_BACKEND:
    USERS |= {
        "everything": assign(backends, "fp32_precision", "tf32"),
        "everything exact": assign(backends, "fp32_precision", "ieee"),
        "CUDA": assign(backends.cudnn, "fp32_precision", "tf32"),
        "CUDA products": assign(backends.cuda.matmul, "fp32_precision", "tf32"),
        "cuDNN convolutions, off": assign(backends.cudnn.conv, "fp32_precision", "ieee"),
        "oneDNN products": assign(backends.mkldnn.matmul, "fp32_precision", "bf16"),
        "both ways": lambda: (torch.set_float32_matmul_precision("medium"),
                              setattr(backends.cudnn.conv, "fp32_precision", "ieee")),
    }  # fmt: skip


def restore_defaults() -> None:
    if PER_BACKEND:
        # "none" follows the setting above it; cuDNN's own default is TF32.
        for owner in (backends, backends.cudnn, backends.cuda.matmul, backends.mkldnn.matmul, backends.mkldnn.conv):
            owner.fp32_precision = "none"
        backends.cudnn.conv.fp32_precision = backends.cudnn.rnn.fp32_precision = "tf32"
    torch.set_float32_matmul_precision("highest")
    if PER_BACKEND:
        backends.cuda.matmul.fp32_precision = backends.mkldnn.matmul.fp32_precision = "none"
    backends.cudnn.allow_tf32 = True


@pytest.fixture(params=USERS)
def user(request):
    """A way in which a user or another library may have set precision; the defaults are back after the test."""
    before = settings()
    USERS[request.param]()
    yield request.param
    restore_defaults()
    assert settings() == before


def effective() -> set[str]:
    """Switches of the operations that we use which allow less than float32."""
    names = {"cuda.matmul", "cudnn.conv", "mkldnn.matmul", "mkldnn.conv"}
    legacy = {"cudnn.allow_tf32", "cuda.matmul.allow_tf32", "float32_matmul_precision"}
    return reduced() & (names if PER_BACKEND else legacy)


def test_inside_everything_is_exact_and_afterwards_as_before(user):
    before = settings()
    with exact_float32():
        assert effective() == set()
    assert settings() == before


def test_by_default_it_is_the_convolutions_that_are_reduced():
    """Why the context is needed: without a wish of the user cuDNN rounds to TF32."""
    assert settings()["cudnn.allow_tf32"] is True
    assert effective() == ({"cudnn.conv"} if PER_BACKEND else {"cudnn.allow_tf32"})


def test_settings_are_back_after_an_error(user):
    before = settings()

    def fail():
        with exact_float32():
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert settings() == before


def test_nested_and_from_several_threads_the_last_one_restores(user):
    before = settings()
    inside, leave, seen = threading.Barrier(2), threading.Event(), []

    def work():
        with exact_float32():
            inside.wait(10)
            leave.wait(10)
            seen.append(effective())

    thread = threading.Thread(target=work)
    with exact_float32():
        thread.start()
        inside.wait(10)
        with exact_float32():
            pass
        assert effective() == set()
    assert effective() == set()  # the thread is still at work
    leave.set()
    thread.join(10)
    assert seen == [set()]
    assert settings() == before


@pytest.fixture(scope="module")
def clip(device):
    return wrap_clip(clip_models.make_model(B32), device=device)


def pooled(clip, images):
    patches = PooledPatches(clip, clip.trunk(images).tokens[0])
    return patches.gradient(torch.ones(1, clip.embed_dim, device=clip.device))


FORWARDS = {
    "trunk": lambda clip, images: clip.trunk(images),
    "last block": lambda clip, images: clip.last_block(clip.trunk(images).tokens),
    "blocks": lambda clip, images: clip.run_blocks(clip.trunk(images).tokens, 4, 4),
    "projection": lambda clip, images: clip.project(clip.trunk(images).tokens),
    "crops": lambda clip, images: clip.encode_masked(images, torch.ones(1, 2, 2, dtype=torch.bool)),
    "text": lambda clip, images: clip.encode_text(["a cat"]),
    "gradient": pooled,
}


@pytest.mark.parametrize("forward", FORWARDS)
def test_every_product_and_convolution_of_a_forward_pass_is_exact(forward, clip, monkeypatch):
    torch.set_float32_matmul_precision("high")
    watched = {}

    def watch(owner, name):
        function = getattr(owner, name)

        def watching(*args, **kwargs):
            watched.setdefault(name, set()).update(effective())
            return function(*args, **kwargs)

        monkeypatch.setattr(owner, name, watching)

    for name in ("conv2d", "linear", "scaled_dot_product_attention"):
        watch(F, name)
    watch(torch.Tensor, "__matmul__")
    try:
        FORWARDS[forward](clip, torch.zeros(1, 3, 64, 64))
        assert watched
        assert all(found == set() for found in watched.values()), watched
        assert settings()["float32_matmul_precision"] == "high"
    finally:
        restore_defaults()


def test_the_tagger_s_own_products_are_exact(golden_tagger, monkeypatch):
    """DMAR and CWR multiply outside of the model."""
    found = []
    for name in ("coarse_scores", "refine_scores", "reidentify"):
        function = getattr(tagger, name)
        monkeypatch.setattr(tagger, name, lambda *a, _f=function, **k: (found.append(effective()), _f(*a, **k))[1])
    golden_tagger(preset="default")([torch.zeros(48, 48, 3, dtype=torch.uint8).numpy()])
    assert found == [set()] * 3
