"""Files that our configs refer to: configs of the installed mmseg, and weights that this package ships."""

from importlib.util import find_spec
from pathlib import Path

from tagclip.errors import UsageError

DEMO_BACKBONE = str(Path(__file__).parents[1] / "demo" / "assets" / "demo_resnet18.pth")  # see wsss/demo/backbone.py


def mmseg_config(relative: str) -> str:
    """Absolute path of a config that the installed mmsegmentation ships.

    Our configs write `_base_ = __import__(...).mmseg_config("...")` instead of mmengine's `_base_ = "mmseg::..."`:
    the latter looks for a distribution named exactly `mmsegmentation`, so it fails beside the maintained fork
    `onedl-mmsegmentation`. This form finds the configs beside either.

    Args:
        relative: path below mmseg's `configs` folder, e.g. "_base_/models/deeplabv3_r50-d8.py".

    Raises:
        UsageError: mmseg is not installed, or ships no such config.
    """
    spec = find_spec("mmseg")
    if spec is None or not spec.submodule_search_locations:
        raise UsageError("mmsegmentation is not installed; install the extra: pip install 'tagclip-wsss[seg]'")
    path = Path(spec.submodule_search_locations[0], ".mim", "configs", relative)
    if not path.is_file():
        raise UsageError(f"the installed mmsegmentation ships no config {relative}")
    return str(path)
