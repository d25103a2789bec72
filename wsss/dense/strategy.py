"""What a training-free strategy is, and how the one that a name or a file stands for is found.

A strategy is one Python file with a constant `STRATEGY`. The files of `wsss/dense/strategies` are known by name;
any other file is known by its path, so that trying an idea takes one file and no change to this package.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.machinery
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from torch import Tensor

from tagclip.config import PRESETS
from tagclip.errors import TagclipError, UsageError

if TYPE_CHECKING:
    from tagclip.clip import FrozenCLIP, Grid, PositionInterpolation, Trunk
    from wsss.dense.logits import LogitField, WordMaps


@dataclass(frozen=True)
class NoOptions:
    """Options of a strategy that has none."""


@dataclass(frozen=True)
class Needs:
    """What a strategy wants from the blocks before the last one. Blocks are numbered 1..L.

    Attributes:
        attention: blocks whose queries and keys `mix` reads from `Context.earlier`.
        restart: first block whose output the strategy changes; blocks before it are shared with other users of the
            trunk, blocks from it to L-1 are run again by the strategy's own `run_block`. None: nothing is changed.
        keep: blocks whose input tokens `features`, `feedback` and `decide` read from the trunk.
        positions: how positional embeddings are interpolated, in the place of the model's own way. Such a strategy has
            a trunk of its own.
    """

    attention: tuple[int, ...] = ()
    restart: int | None = None
    keep: tuple[int, ...] = ()
    positions: PositionInterpolation | None = None


@dataclass(frozen=True)
class Context:
    """What `mix` may read besides q, k and v.

    Attributes:
        grid: patch grid, grid.height * grid.width == N.
        earlier: block number -> (queries, keys), each (B, heads, 1+N, d), for the blocks in `Needs.attention`.
    """

    grid: Grid
    earlier: Mapping[int, tuple[Tensor, Tensor]] = field(default_factory=dict)


def needs_nothing(options: Any, depth: int) -> Needs:
    """The last block's own input is enough."""
    return Needs()


@dataclass(frozen=True)
class Strategy:
    """One training-free method: what the last block does instead of softmax(QK) V.

    Most methods are a `mix`. One that does more gives `features` in its place; one whose features depend on the words
    adds `feedback`, and one that decides on regions instead of pixels adds `decide`.

    Attributes:
        name: how configs and tables call it.
        mix: (q, k, v, context, options) -> attended values with heads merged, (B, 1+N, width), before the output
            projection; q, k, v are (B, heads, 1+N, d), [CLS] first, width = heads * d. None of them is scaled:
            ordinary attention is softmax(q k^T / sqrt(d)) v. Pure. None: `features` does everything.
        residual: add the last block's input.
        mlp: apply the last block's MLP (with its own residual).
        options: frozen dataclass instance with the method's constants; left out, it has none.
        needs: (options, depth L) -> Needs.
        run_block: (clip, block number, tokens, options) -> tokens, for the blocks from `Needs.restart` to L-1.
        prepare: (clip, images (B, 3, H, W), options) -> options, run before anything else: fills in options that
            have to be found on the model, as the global-token blocks of gclip.
        features: (clip, trunk, options) -> patch features, (B, N, D), not yet of unit norm.
        feedback: (clip, trunk of one image, its input (3, H, W) or None where that is gone, unit-norm rows of the Q
            words (Q, D), options) -> patch features (N, D) in the place of those of `features`, not yet of unit norm;
            None where it is switched off.
        decide: (clip, trunk of one image, word maps, options) -> logits of its pixels in the place of interpolated
            cosines; None where it leaves them alone.
        reference: the options that the preset "reference" differs in: the quirks of the published code.
        source: where the method is published.

    Raises:
        UsageError: options that are not a dataclass instance, neither `mix` nor `features`.
    """

    name: str
    mix: Callable[[Tensor, Tensor, Tensor, Context, Any], Tensor] | None = None
    residual: bool = False
    mlp: bool = False
    options: Any = NoOptions()
    needs: Callable[[Any, int], Needs] = needs_nothing
    run_block: Callable[[FrozenCLIP, int, Tensor, Any], Tensor] | None = None
    prepare: Callable[[FrozenCLIP, Tensor, Any], Any] | None = None
    features: Callable[[FrozenCLIP, Trunk, Any], Tensor] | None = None
    feedback: Callable[[FrozenCLIP, Trunk, Tensor | None, Tensor, Any], Tensor | None] | None = None
    decide: Callable[[FrozenCLIP, Trunk, WordMaps, Any], LogitField | None] | None = None
    reference: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        if not dataclasses.is_dataclass(self.options) or isinstance(self.options, type):
            raise UsageError(
                f"strategy {self.name}: options={self.options!r} is not a dataclass instance; give one, or leave "
                "options out if the strategy has none"
            )
        if self.mix is None and self.features is None:
            raise UsageError(f"strategy {self.name}: give it a mix, or features")

    def preset(self, name: str) -> Strategy:
        """The strategy as published, quirks included ("reference"), or with each quirk fixed ("default").

        Raises:
            UsageError: unknown preset.
        """
        if name not in PRESETS:
            raise UsageError(f"unknown preset {name!r}: use one of {', '.join(PRESETS)}")
        return self.with_options(self.reference) if name == "reference" else self

    def with_options(self, options: Mapping[str, Any] | None) -> Strategy:
        """The same strategy with some constants changed.

        Raises:
            UsageError: a name that the strategy's options lack.
        """
        known = [item.name for item in dataclasses.fields(self.options)]
        for name in options or {}:
            if name not in known:
                raise UsageError(f"strategy {self.name} has no option {name!r}; it has: {', '.join(known) or 'none'}")
        given = {name: _as_option(getattr(self.options, name), value) for name, value in (options or {}).items()}
        changed: Any = dataclasses.replace(self.options, **given)
        return dataclasses.replace(self, options=changed)

    def check(self, depth: int) -> None:
        """Raise UsageError if the options name blocks that a model of this depth lacks."""
        needs = self.needs(self.options, depth)
        for block in (*needs.attention, *((needs.restart,) if needs.restart is not None else ())):
            if not 1 <= block < depth:
                raise UsageError(f"strategy {self.name}: block {block} is not among blocks 1..{depth - 1} of the model")
        for block in needs.keep:
            if not 1 <= block <= depth:
                raise UsageError(f"strategy {self.name}: block {block} is not among blocks 1..{depth} of the model")


def _as_option(current: Any, value: Any) -> Any:
    """What a config file can write (lists, nested dicts) as what the options hold (tuples, dataclasses)."""
    if isinstance(value, Mapping) and dataclasses.is_dataclass(current) and not isinstance(current, type):
        known = [item.name for item in dataclasses.fields(current)]
        for name in value:
            if name not in known:
                raise UsageError(f"{type(current).__name__} has no option {name!r}; it has: {', '.join(known)}")
        given = {name: _as_option(getattr(current, name), one) for name, one in value.items()}
        return dataclasses.replace(current, **given)
    return tuple(value) if isinstance(value, list) else value


def strategy_names() -> list[str]:
    """Names of the strategies in `wsss/dense/strategies`, sorted."""
    return sorted(_built_in())


def get_strategy(
    name: str | Path | Strategy, options: Mapping[str, Any] | None = None, preset: str = "default"
) -> Strategy:
    """A strategy by name ("gclip"), by the path of its file ("my_idea.py"), or itself; with options changed.

    Args:
        preset: "default", or "reference" with the quirks of the published code; `options` are written over it.

    Raises:
        UsageError: unknown name or preset, missing file, a file without `STRATEGY`, or an unknown option.
    """
    return _found(name).preset(preset).with_options(options)


def _found(name: str | Path | Strategy) -> Strategy:
    if isinstance(name, Strategy):
        return name
    if str(name).endswith(".py"):
        return _read(_import_file(Path(name)), str(name))
    known = _built_in()
    if name not in known:
        raise UsageError(f"unknown strategy {str(name)!r}; choose from {', '.join(sorted(known))}, or give a .py file")
    return _read(importlib.import_module(known[name]), str(name))


def _built_in() -> dict[str, str]:
    """Strategy name -> module. The file name is the name, with - for _."""
    from wsss.dense import strategies

    return {
        item.name.replace("_", "-"): f"{strategies.__name__}.{item.name}"
        for item in pkgutil.iter_modules(strategies.__path__)
    }


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"strategy file {path} does not exist")
    module = ModuleType(f"wsss_dense_strategy_{path.stem}")
    module.__file__ = str(path)
    try:
        importlib.machinery.SourceFileLoader(module.__name__, str(path)).exec_module(module)
    except TagclipError:
        raise
    except Exception as error:  # a strategy file is Python and may raise anything
        raise UsageError(f"strategy file {path}: {type(error).__name__}: {error}") from error
    return module


def _read(module: ModuleType, name: str) -> Strategy:
    strategy = getattr(module, "STRATEGY", None)
    if not isinstance(strategy, Strategy):
        raise UsageError(f"strategy {name}: the file defines no STRATEGY = Strategy(...)")
    return strategy
