"""naclip: key-key attention that favours neighbours."""

from dataclasses import dataclass

from torch import Tensor

from tagclip.clip import DINO_POSITIONS
from tagclip.clip.attention import attend
from wsss.dense.attention import patch_gaussian
from wsss.dense.strategy import Context, Needs, Strategy


@dataclass(frozen=True)
class NaclipOptions:
    """Constants of NACLIP.

    Attributes:
        std: standard deviation of the Gaussian, in patches. 0 leaves the Gaussian out (plain key-key attention).
        dino_positions: quirk, see `tagclip.clip.encoder.DINO_POSITIONS`.
    """

    std: float = 5.0
    dino_positions: bool = False


def needs(options: NaclipOptions, depth: int) -> Needs:
    """Nothing but its way to interpolate positions."""
    return Needs(positions=DINO_POSITIONS if options.dino_positions else None)


def mix(q: Tensor, k: Tensor, v: Tensor, context: Context, options: NaclipOptions) -> Tensor:
    """softmax(KK / sqrt(d) + G) V, G the Gaussian of the patch distance, zero for [CLS]."""
    if options.std <= 0:
        return attend(k, k, v)
    grid = context.grid
    return attend(k, k, v, patch_gaussian(grid.height, grid.width, options.std, device=k.device, dtype=k.dtype))


STRATEGY = Strategy(
    "naclip",
    mix,
    residual=False,
    mlp=False,
    options=NaclipOptions(),
    needs=needs,
    reference={"dino_positions": True},
    source="NACLIP, arXiv 2404.08181, section 3",
)
