"""A finished run, read back by image id."""

import numpy as np
import pytest

from tagclip.errors import ImageError, RunError, UsageError
from tagclip.tag_files import TagRecord
from tests.wsss.runs import VOCABULARY
from wsss.files.map_files import read_maps
from wsss.files.mask_files import read_mask
from wsss.files.run_reader import RunReader


def test_everything_of_a_run_is_read_by_id(finished):
    run = RunReader(str(finished.run))
    assert run.vocabulary == VOCABULARY
    records = list(run.records())
    assert [record.id for record in records] == sorted(record.id for record in records)
    assert len(records) == len(finished.paths)
    assert run.failed() == []
    for record in records:
        assert record.scores.shape == (3,)
        assert record.size == run.mask(record.id).shape
        assert run.photo(record) in finished.paths
        assert np.array_equal(run.mask(record.id), read_mask(finished.run / "masks" / f"{record.id}.png"))
        maps = run.maps(record.id)
        assert list(maps) == [VOCABULARY.names[index] for index in record.indices]
        stored = read_maps(finished.run / "cams" / f"{record.id}.npz").maps
        assert all(np.array_equal(one, other) for one, other in zip(maps.values(), stored, strict=True))


def test_what_is_not_there_is_named(finished, tmp_path):
    run = RunReader(finished.run)
    with pytest.raises(ImageError, match=r"nobody\.png: no such mask"):
        run.mask("nobody")
    with pytest.raises(ImageError, match=r"nobody\.npz: no such file of class maps"):
        run.maps("nobody")
    with pytest.raises(UsageError, match="nobody"):
        run.photo(TagRecord("nobody", ()))
    with pytest.raises(RunError, match="the run is not complete"):
        next(RunReader(tmp_path).records())
    with pytest.raises(UsageError, match="give a run folder"):
        RunReader(tmp_path).vocabulary  # noqa: B018


def test_damaged_lines_are_named(tmp_path):
    (tmp_path / "failures.jsonl").write_text('{"id": "a"}\nno\n')
    with pytest.raises(RunError, match=r"failures\.jsonl line 2: not JSON"):
        RunReader(tmp_path).failed()
    (tmp_path / "failures.jsonl").write_text('\n["a"]\n')
    with pytest.raises(RunError, match=r"failures\.jsonl line 2: not a record"):
        RunReader(tmp_path).failed()
