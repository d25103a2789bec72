"""A run on a Ray cluster: the bytes of one process, also where actors, mask workers or a node are killed.

`bash tools/test_ray.sh` makes an environment with Ray.
"""

import json
import subprocess
import sys

import pytest
import torch

pytest.importorskip("ray", reason="bash tools/test_ray.sh makes an environment with Ray")

from tagclip.errors import RequirementError, RunError, UsageError
from tests import kill_cluster
from tests.kill_cluster import Killing, draw_scenes, kill_node, kill_process, made, make_run, patiently, two_nodes
from wsss.cli.main import execute
from wsss.engines import ray_engine
from wsss.engines.ray_engine import ProgressBoard, RayOptions, our_error, run_on_ray
from wsss.files.run_folder import PARTIAL
from wsss.files.run_mirror import RECORD, RunMirror

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a cluster on a second loopback address")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Eight scenes and a file that is no photo."""
    return draw_scenes(tmp_path_factory.mktemp("ray") / "photos", 8)


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    """Files of the run of one process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("whole") / "out"
    make_run(photos, out).execute()
    torch.set_num_threads(before)
    return made(out)


@pytest.fixture(scope="module")
def cluster():
    """Two nodes."""
    with two_nodes() as found:
        yield found


@pytest.mark.parametrize("actors", [1, 2, 4])
def test_the_bytes_of_one_process(photos, whole, cluster, tmp_path, actors):
    seen = []

    class Watching:
        def __call__(self, total, done):
            seen.append((total, done))
            return self

        def __enter__(self):
            return lambda progress: seen.append(dict(progress.times.images))

        def __exit__(self, *_):
            pass

    run = run_on_ray(make_run(photos, tmp_path / "out"), RayOptions(actors=actors, threads=1), watch=Watching())
    assert made(tmp_path / "out") == whole
    assert not (tmp_path / "out" / PARTIAL).exists()
    assert run.times["actors"] == actors
    assert run.times["images"]["masks"] == run.times["images"]["cams"] == 8
    assert seen[0] == (8, 0)
    assert max(step.get("masks", 0) for step in seen if isinstance(step, dict)) == 8
    assert json.loads((tmp_path / "out" / "times.json").read_text()) == run.times
    # Once more: there is nothing left, and no part of the cluster is needed.
    assert run_on_ray(make_run(photos, tmp_path / "out"), RayOptions(address="nowhere:1")).times is None
    assert made(tmp_path / "out") == whole


def test_parts_go_to_a_store_as_they_are_done(photos, whole, cluster, tmp_path, monkeypatch):
    run = make_run(photos, tmp_path / "out")
    run.mirror = RunMirror("memory://ray-run/out", tmp_path / "out")
    seen = []
    push = RunMirror.push

    def watched(mirror):
        push(mirror)
        seen.append(sum(name.endswith("/done") for name in mirror._listing()))

    monkeypatch.setattr(RunMirror, "push", watched)
    run_on_ray(run, RayOptions(actors=1, threads=1))
    assert len(seen) == len(run.parts) == 4
    assert seen[0] < 4
    assert seen[-1] == 4
    (tmp_path / "out" / RECORD).unlink()  # of what is uploaded
    assert made(tmp_path / "out") == whole


@pytest.mark.parametrize("name", [kill_cluster.ACTOR, kill_cluster.MASK_WORKER])
def test_a_killed_process_takes_nothing_with_it(photos, whole, cluster, tmp_path, name):
    with Killing(tmp_path / "out" / "masks", lambda: kill_process(name), after=1) as killing:
        run_on_ray(make_run(photos, tmp_path / "out"), RayOptions(actors=2, threads=1))
    assert killing.killed is not None
    assert made(tmp_path / "out") == whole


def test_a_killed_node_takes_nothing_with_it(photos, whole, cluster, tmp_path):
    with Killing(tmp_path / "out" / "masks", lambda: kill_node(cluster), after=1) as killing:
        run_on_ray(make_run(photos, tmp_path / "out"), RayOptions(actors=2, threads=1))
    patiently(lambda: cluster.add_node(**kill_cluster.NODE))
    assert killing.killed is not None
    assert made(tmp_path / "out") == whole


def test_what_a_part_says_is_said_here(photos, cluster, tmp_path, monkeypatch):
    run = make_run(photos, tmp_path / "out")
    run.begin_parts(range(4))
    manifest = tmp_path / "out" / "manifest.json"
    values = json.loads(manifest.read_text())
    values["masks"]["confidence"] = 0.123
    monkeypatch.setattr(type(run), "begin_parts", lambda run, numbers: list(numbers))
    manifest.write_text(json.dumps(values))
    with pytest.raises(RunError, match=r"masks\.confidence"):
        run_on_ray(run, RayOptions(actors=1, threads=1))


def test_the_local_cluster_of_the_command_line(photos, whole, tmp_path):
    line = [sys.executable, "-m", "wsss.cli.main", "run", "--engine", "ray", "--actors", "2", "--images", str(photos),
            "--classes", "voc", "--model", "demo", "--config", "demo/masks", "--batch-size", "2", "--threads", "1",
            "--mask-workers", "2", "--out", str(tmp_path / "out")]  # fmt: skip
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert made(tmp_path / "out") == whole
    assert "8 masks" in done.stdout


def test_options_that_do_not_fit(photos, tmp_path, monkeypatch):
    words = ["run", "--images", str(photos), "--classes", "voc", "--model", "demo", "--out", str(tmp_path / "out")]
    with pytest.raises(UsageError, match="--actors: of a Ray cluster; add --engine ray"):
        execute([*words, "--actors", "2"])
    with pytest.raises(UsageError, match="--shard: --engine ray shares the parts out"):
        execute([*words, "--engine", "ray", "--shard", "1/2"])
    monkeypatch.setattr(ray_engine, "find_spec", lambda name: None)
    with pytest.raises(RequirementError, match=r'pip install "tagclip-wsss\[ray\]"'):
        execute([*words, "--engine", "ray"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "device", "resources", "machines", "expected"),
    [
        (RayOptions(), "cpu", {"CPU": 8.0}, 2, (2, 0.0, 8)),
        (RayOptions(), "cpu", {"CPU": 2.0}, 4, (1, 0.0, 2)),
        (RayOptions(actors=3), "cpu", {"CPU": 4.0}, 1, (3, 0.0, 4)),
        (RayOptions(), "cuda", {"CPU": 32.0, "GPU": 4.0}, 2, (4, 1.0, 32)),
        (RayOptions(gpus_per_actor=0.5), "cuda", {"CPU": 32.0, "GPU": 4.0}, 2, (8, 0.5, 32)),
        (RayOptions(gpus_per_actor=0.0), "cuda", {"CPU": 32.0, "GPU": 4.0}, 2, (2, 0.0, 32)),
        (RayOptions(), "cpu", {"CPU": 32.0, "GPU": 4.0}, 3, (3, 0.0, 32)),
        (RayOptions(actors=4), "cpu", {"CPU": 4.0}, 1, "--actors 4: the cluster has 4 CPUs"),
        (RayOptions(), "cpu", {"CPU": 1.0}, 1, "--actors 1: the cluster has 1 CPUs"),
        (RayOptions(gpus_per_actor=1.0), "cuda", {"CPU": 4.0}, 1, "--gpus-per-actor 1: the cluster has 0 GPUs"),
        (RayOptions(actors=3), "cuda", {"CPU": 8.0, "GPU": 2.0}, 1, "enough for 2 actors, not 3"),
    ],
)
def test_actors_that_a_cluster_has_room_for(options, device, resources, machines, expected):
    if isinstance(expected, tuple):
        assert ray_engine._share_out(options, device, resources, machines) == expected
        return
    with pytest.raises(UsageError, match=expected):
        ray_engine._share_out(options, device, resources, machines)


def test_the_board_counts_starts_without_progress():
    board = ProgressBoard()
    assert [board.begin(3, 0), board.begin(3, 0), board.begin(3, 2), board.begin(3, 2), board.begin(4, 2)] == [
        1, 2, 1, 2, 1,
    ]  # fmt: skip
    board.report(3, {"masks": 1.0}, {"masks": 2})
    board.report(3, {"masks": 1.5}, {"masks": 3})  # a part's later report takes the place of an earlier one
    board.report(4, {"masks": 1.0, "cams": 2.0}, {"masks": 1, "cams": 4})
    assert board.totals() == ({"masks": 2.5, "cams": 2.0}, {"masks": 4, "cams": 4})


def test_errors_of_ours_come_back_as_they_were():
    class TaskError(Exception):
        cause = RunError("full")

    assert str(our_error(TaskError())) == "full"
    assert type(our_error(TaskError())) is RunError
    TaskError.cause = ValueError("a bug")
    assert isinstance(our_error(TaskError()), TaskError)
