"""One small trained model for all tests of inference and export."""

from pathlib import Path

import pytest

from tests.wsss.segmentation import squares


@pytest.fixture(scope="session")
def config_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("config") / "squares.py"
    path.write_text(squares.CONFIG)
    return path


@pytest.fixture(scope="session")
def trained(config_file, folders, tmp_path_factory):
    """Summary of 8 undisturbed iterations on `run`, validated on `val`."""
    from wsss.segmentation.train_settings import TrainRequest
    from wsss.segmentation.training import train_segmentor

    return train_segmentor(
        TrainRequest(
            config=config_file, run=folders / "run", val=folders / "val", work_dir=tmp_path_factory.mktemp("work") / "w"
        )
    )
