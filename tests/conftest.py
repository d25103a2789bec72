"""Fixtures that several test folders share."""

import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tagclip import devices
from tests.golden import COPY, DATA, golden_root, golden_settings
from tests.oracle.model import OracleCLIP


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips tests marked `pydensecrf` on machines that could not build it."""
    if item.get_closest_marker("pydensecrf") and find_spec("pydensecrf") is None:
        pytest.skip("pydensecrf is not installed")


@pytest.fixture(scope="session", autouse=True)
def few_threads():
    """Small models run fastest on few threads, and the cores are shared by the workers of pytest-xdist."""
    before, workers = torch.get_num_threads(), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    torch.set_num_threads(1 if workers > 1 else min(before, 2))
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def cache_of_their_own(tmp_path_factory):
    """Tests, and the processes that they start, keep nothing in the cache of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def cpu_by_default():
    """Tests that name no device run on the CPU, where there is an accelerator as well: recorded figures are a CPU's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "default_device", lambda: torch.device("cpu"))
        yield


@pytest.fixture(scope="session", params=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def device(request) -> torch.device:
    """Every device that the core has to work on: the CPU, and CUDA where there is a device."""
    return torch.device(request.param)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """tests/data: small files of ours."""
    return DATA


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """The full golden folder when it lies beside the checkout, otherwise tests/data/golden, which has its layout."""
    return golden_root()


@pytest.fixture(scope="session")
def golden_model_path() -> Path:
    """The golden model with its compact token embedding, a file of tests/data."""
    return COPY / "model.safetensors"


@pytest.fixture(scope="session")
def golden_clip_on(golden_model_path):
    """Device -> the golden model as a FrozenCLIP in fp32, loaded once per device."""
    from tagclip.clip import load_clip

    return cache(lambda device: load_clip(golden_model_path, device=device))


@pytest.fixture(scope="session")
def golden_clip(golden_clip_on):
    """The golden model as a FrozenCLIP, fp32 on the CPU."""
    return golden_clip_on(torch.device("cpu"))


@pytest.fixture(scope="session")
def golden_tagger(golden_clip_on, tmp_path_factory):
    """(vocabulary name, preset) -> TagCLIP on the golden model; text classifiers are made once per session."""
    from tagclip.tagger import TagCLIP

    cache_dir, cpu = tmp_path_factory.mktemp("text"), torch.device("cpu")

    def make(vocabulary: str = "voc", preset: str = "reference", config=None, device: torch.device = cpu) -> TagCLIP:
        recipe = golden_settings(vocabulary, preset)
        clip = golden_clip_on(device)
        return TagCLIP(clip, recipe.vocabulary, config=config or recipe.tagging, cache_dir=cache_dir)

    return make


@pytest.fixture(scope="session")
def oracle_clip(golden_model_path) -> OracleCLIP:
    """The golden model in the plain transcription."""
    return OracleCLIP.from_file(golden_model_path)
