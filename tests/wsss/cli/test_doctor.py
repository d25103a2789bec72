"""`tagclip doctor`: what it finds, and advice for what is not as it should be."""

import json
from types import SimpleNamespace

import pytest

from wsss.cli import console, health
from wsss.cli.health import Check
from wsss.cli.main import execute

CHECKS = [Check("Python", "3.12"), Check("weights", "none", "give --pretrained FILE")]


@pytest.fixture
def told(monkeypatch):
    monkeypatch.setattr(health, "all_checks", lambda: iter(CHECKS))


def test_table_and_advice(told, capsys):
    assert execute(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["check    found", "Python   3.12", "weights  none", "weights: give --pretrained FILE"]


def test_quiet_shows_what_needs_attention_only(told, monkeypatch, capsys):
    execute(["doctor", "--quiet"])
    assert capsys.readouterr().out.splitlines()[1:] == ["weights  none", "weights: give --pretrained FILE"]
    monkeypatch.setattr(health, "all_checks", lambda: iter(CHECKS[:1]))
    execute(["doctor", "--quiet"])
    assert capsys.readouterr().out == "everything is as it should be\n"


def test_json(told, capsys):
    execute(["doctor", "--json", "-"])
    found = json.loads(capsys.readouterr().out)["checks"]
    assert found[1] == {"name": "weights", "value": "none", "advice": "give --pretrained FILE"}


def test_every_check_runs_here(monkeypatch):
    monkeypatch.setattr(health, "spinning_cost", lambda: None)
    found = {check.name: check for check in health.all_checks()}
    assert set(found) == {
        "Python", "packages", "PyTorch", "cores", "memory", "disk", "OpenMP", "weights", "mmseg", "CRF",
    }  # fmt: skip
    assert "torch" in found["packages"].value
    assert found["mmseg"].advice == ""
    assert all(check.value and "\n" not in check.advice for check in found.values())


@pytest.mark.parametrize(
    ("policy", "load", "cost", "advice"),
    [
        ("PASSIVE", 9.0, 9.0, ""),
        ("active", 0.0, 1.0, "export OMP_WAIT_POLICY=PASSIVE beside other work"),
        (None, 0.1, 9.0, ""),
        (None, 9.0, 1.1, ""),
        (None, 9.0, 2.9, "export OMP_WAIT_POLICY=PASSIVE"),
        (None, 9.0, None, ""),
    ],
)
def test_openmp(monkeypatch, policy, load, cost, advice):
    if policy is None:
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    else:
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    monkeypatch.setattr(health.os, "getloadavg", lambda: (load, load, load))
    monkeypatch.setattr(health, "cores", lambda: 2)
    monkeypatch.setattr(health, "spinning_cost", lambda: cost)
    found = health.check_openmp()
    assert found.advice == advice
    assert (f"{cost} times" in found.value) == (policy is None and load > 1 and cost is not None)


def test_spinning_cost_compares_the_policies(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    seen = []

    def run(command, env, **_):
        seen.append(env.get("OMP_WAIT_POLICY"))
        return SimpleNamespace(returncode=0, stdout="3.0\n" if seen[-1] is None else "1.5\n")

    assert health.spinning_cost(run) == 2.0
    assert seen == [None, "PASSIVE"]
    assert health.spinning_cost(lambda *_, **__: SimpleNamespace(returncode=1, stdout="")) is None


def test_the_spinning_test_prints_seconds(capsys):
    exec(health.SPIN_TEST.replace("range(300)", "range(3)").replace("range(20)", "range(1)"), {})
    assert float(capsys.readouterr().out) > 0


def test_weights_in_the_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(health.Path, "home", lambda: tmp_path)
    assert health.check_weights().advice.startswith("the first run downloads")
    blob = tmp_path / "hub" / "models--timm--vit_base_patch16_clip_224.openai" / "blobs" / "abc"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(bytes(3 * 2**20))
    (tmp_path / ".cache" / "clip").mkdir(parents=True)
    (tmp_path / ".cache" / "clip" / "ViT-B-16.pt").write_bytes(bytes(2**20))
    (tmp_path / "hub" / "models--bert" / "blobs").mkdir(parents=True)
    found = health.check_weights()
    assert (found.value, found.advice) == ("timm/vit_base_patch16_clip_224.openai (3 MiB), ViT-B-16.pt (1 MiB)", "")


def test_the_limit_of_a_container(tmp_path):
    quota = tmp_path / "cpu.max"
    quota.write_text("150000 100000\n")
    assert health.cpu_quota(quota) == 1.5
    quota.write_text("max 100000\n")
    assert health.cpu_quota(quota) is None
    assert health.cpu_quota(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("quota", "load", "advice"),
    [
        (None, 0.5, ""),
        (2.0, 0.5, "give --threads 2 and --mask-workers 2"),
        (None, 9.0, "other programs are busy: runs take longer, and --dry-run estimates too much"),
    ],
)
def test_cores(monkeypatch, quota, load, advice):
    monkeypatch.setattr(health, "cores", lambda: 4)
    monkeypatch.setattr(health, "cpu_quota", lambda: quota)
    monkeypatch.setattr(health.os, "getloadavg", lambda: (load, load, load))
    assert health.check_cores().advice == advice


@pytest.mark.parametrize(("free", "advised"), [(2**30, True), (2**33, False)])
def test_memory(monkeypatch, free, advised):
    monkeypatch.setattr(health, "available_memory", lambda: free)
    assert bool(health.check_memory().advice) == advised


def test_what_cannot_be_imported_is_told_with_the_remedy(monkeypatch):
    def broken(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(health.importlib, "import_module", broken)
    assert health.check_torch().value == "cannot be imported: ModuleNotFoundError: No module named 'torch'"
    assert health.check_torch().advice.startswith("pip install torch")
    assert health.check_crf().value.startswith("torch, in place of pydensecrf, which cannot be imported: Module")
    assert health.check_crf().advice.startswith("only --preset reference needs pydensecrf: the package pydensecrf is ")
    monkeypatch.setattr(console, "load_mmseg", lambda: broken("mmcv"))
    assert health.check_mmseg().advice == "the package mmcv is missing: pip install 'tagclip-wsss[seg]'"


def test_a_broken_installation_is_told_too(monkeypatch):
    def broken(*_):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(console, "load_mmseg", broken)
    found = health.check_mmseg()
    assert found.value == "cannot be imported: RuntimeError: operator torchvision::nms does not exist"
    assert found.advice == "pip install --force-reinstall 'tagclip-wsss[seg]'"
    monkeypatch.setattr(health.importlib, "import_module", broken)
    assert "pip uninstall pydensecrf2" in health.check_crf().advice
