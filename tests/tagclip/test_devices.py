"""Devices: the default, those that are not there, and arithmetic that a device does not have."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tagclip import boxes, devices, dmar
from tagclip.clip import load_clip, wrap_clip
from tagclip.devices import default_device, resolve_device, to_double
from tagclip.errors import UsageError
from tests import clip_models
from tests.clip_models import B32


@pytest.mark.parametrize(("available", "expected"), [(True, "cuda"), (False, "cpu")])
def test_default_is_cuda_if_there_is_one(available, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert default_device() == torch.device(expected)


def test_models_go_to_the_default_device_unless_told(monkeypatch):
    asked = []
    monkeypatch.setattr(devices, "default_device", lambda: asked.append(True) or torch.device("cpu"))
    model = clip_models.make_model(B32)
    wrap_clip(model)
    load_clip("demo")
    assert len(asked) == 2
    wrap_clip(model, device="cpu")
    load_clip("demo", device=torch.device("cpu"))
    assert len(asked) == 2


def test_devices_that_are_here(device):
    assert resolve_device(device) == device
    assert resolve_device(str(device)) == device


# "meta" holds no numbers; the others are not on any machine that has PyTorch for another one.
@pytest.mark.parametrize("name", ["quantum", "cuda:99", "meta", "hpu", "maia", ""])
def test_devices_that_are_not_here_are_one_line(name):
    with pytest.raises(UsageError) as caught:
        resolve_device(name)
    assert str(caught.value).startswith(f"--device {name}: cannot be used here (")
    assert "use cpu" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError):
        load_clip("demo", device=name)


@pytest.mark.parametrize(("driver", "expected"), [(True, "cuda:0"), (False, "cpu")])
def test_names_of_devices_need_torch_only_where_there_may_be_one(driver, expected, monkeypatch):
    asked = []

    def load(name):
        asked.append(name)
        if not driver:
            raise OSError(name)

    monkeypatch.setattr(devices.sys, "platform", "linux")
    monkeypatch.setattr(devices, "ROCM_DEVICE", Path("/nowhere"))
    monkeypatch.setattr(devices.ctypes, "CDLL", load)
    monkeypatch.setattr(devices, "default_device", lambda: torch.device("cuda:0"))
    assert devices.device_name() == expected
    assert asked == [devices.CUDA_DRIVER]
    assert devices.device_name("cpu") == devices.device_name(torch.device("cpu")) == "cpu"
    monkeypatch.setattr(devices, "ROCM_DEVICE", Path("/"))
    assert devices.device_name() == "cuda:0"
    monkeypatch.setattr(devices.sys, "platform", "win32")
    assert devices.device_name() == "cuda:0"
    with pytest.raises(UsageError, match="--device quantum: cannot be used here"):
        devices.device_name("quantum")


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is an MPS device")
def test_mps_is_refused_where_there_is_none():
    with pytest.raises(UsageError, match="--device mps: cannot be used here"):
        resolve_device("mps")


def test_double_is_exact(device):
    values = torch.tensor([0.1, 1 / 3], device=device)
    found = to_double(values)
    assert found.dtype == torch.float64
    assert found.device.type == device.type
    assert found.tolist() == [float(np.float32(0.1)), float(np.float32(1 / 3))]


class NoFloat64(TorchDispatchMode):
    """Raises where an operation makes float64, as MPS does."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor) and value.dtype == torch.float64:
                raise TypeError(f"{function} makes float64, which MPS does not have")
        return result


def test_tagging_uses_float64_only_through_to_double(golden_tagger, monkeypatch):
    """MPS has no float64. With `to_double` as float32, no other operation of the road from image to tags makes any."""
    tagger = golden_tagger(preset="default")
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    expected = tagger([image])[0].scores
    with NoFloat64(), pytest.raises(TypeError, match="float64"):
        tagger([image])
    monkeypatch.setattr(boxes, "to_double", torch.Tensor.float)
    monkeypatch.setattr(dmar, "to_double", torch.Tensor.float)
    with NoFloat64():
        scores = tagger([image])[0].scores
    assert np.abs(scores - expected).max() < 1e-5
