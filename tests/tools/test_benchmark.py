"""`tagclip benchmark` on a tiny model."""

import json
import sys

import pytest

from tests.clip_models import B16, make_model, save_safetensors
from tests.tools.commands import command


@pytest.fixture(scope="module")
def tool():
    return command("benchmark")


@pytest.fixture(scope="module")
def arguments(tmp_path_factory) -> list[str]:
    """Options for a model and classes that take no time."""
    folder = tmp_path_factory.mktemp("benchmark")
    model = save_safetensors(make_model(B16), folder / "tiny.safetensors", metadata={"quick_gelu": "true"})
    classes = folder / "classes.txt"
    classes.write_text("cat\ndog\nbus\n")
    return f"--model {model} --classes {classes} --size 96x64 --limit 2 --repeats 1 --threads 1".split()


@pytest.mark.parametrize("engine", [pytest.param("pydensecrf", marks=pytest.mark.pydensecrf), "torch"])
def test_table_and_json(tool, arguments, tmp_path, capsys, monkeypatch, engine):
    if engine == "torch":
        monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    out = tmp_path / "bench" / "tiny.json"
    assert tool([*arguments, "--tags-per-image", "1", "2", "--no-memory", "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    result = json.loads(out.read_text())
    assert [case["tags"] for case in result["cases"]] == [1, 2]
    case = result["cases"][1]
    assert set(case["sides"]) == {"straightforward", "float32", "bfloat16"}
    assert case["agreement"]["float32 / straightforward"]["max_difference_scores"] < 1e-4
    assert case["ratios"]["float32 / straightforward"]["both stages"] > 0
    assert case["sides"]["float32"]["gflop"]["trunk"] < case["sides"]["float32"]["gflop"]["both stages"]
    assert case["sides"]["float32"]["share_of_peak"]["trunk"] > 0
    assert case["crf_engine"] == engine
    for word in ("baseline", "bfloat16", "stage one", "mIoU", f"s per photo on one core, {engine}"):
        assert word in printed
    assert str(tmp_path.parent) not in out.read_text()


def test_int8_beside_float32(tool, arguments, tmp_path, capsys):
    options = ["--tags-per-image", "1", "--no-baseline", "--no-crf", "--no-memory", "--dtype", "float32", "int8"]
    assert tool([*arguments, *options, "--json", str(tmp_path / "out.json")]) == 0
    result = json.loads((tmp_path / "out.json").read_text())
    (case,) = result["cases"]
    sides = case["sides"]
    assert sides["int8"]["gflop"] == pytest.approx(sides["float32"]["gflop"])
    assert result["peak_gflop_per_s"]["int8"] > 0
    assert 0 < case["agreement"]["int8 / float32"]["max_difference_scores"] < 0.1
    assert "int8 / float32" in capsys.readouterr().out


def test_memory_is_measured_in_a_process_of_its_own(tool, arguments, tmp_path, capsys):
    options = ["--tags-per-image", "1", "--no-baseline", "--no-crf", "--dtype", "float32"]
    assert tool([*arguments, *options, "--json", str(tmp_path / "out.json")]) == 0
    memory = json.loads((tmp_path / "out.json").read_text())["memory"]
    assert memory["float32"]["peak"] >= memory["float32"]["loaded"] > 0
    assert "memory, MiB" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--size=500", "--tags-per-image=0", "--dtype=int4"])
def test_wrong_options(tool, option, capsys):
    with pytest.raises(SystemExit) as exit_info:
        tool([option])
    assert exit_info.value.code == 2
    assert option.partition("=")[0] in capsys.readouterr().err
