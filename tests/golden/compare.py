"""Segship's stages and results beside the official ones: every difference becomes a sentence, in network order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from golden.case import Case
from segship.core.spec import Slide
from segship.predictor import windows
from segship.tasks.semantic import resize_logits

Pick = Callable[[tuple[Any, ...], Any], Any]


def _output(_inputs: tuple[Any, ...], output: Any) -> Any:
    return output


def _nth(index: int) -> Pick:
    return lambda _inputs, output: output[index]


STAGES: dict[str, tuple[tuple[str, str, Pick], ...]] = {
    "unet": (
        ("inc", "inc", _output),
        ("down2", "down2", _output),
        ("down4", "down4", _output),
        ("up1_cat", "up1.conv", lambda inputs, _output: inputs[0]),
        ("up1", "up1", _output),
        ("up3", "up3", _output),
        ("up4", "up4", _output),
        ("logits", "", _output),
    ),
    "segformer": (
        ("patch_embed1", "backbone.patch_embed1", _nth(0)),
        ("block1_0_attn", "backbone.block1.0.attn", _output),
        ("block1_0", "backbone.block1.0", _output),
        ("c1", "backbone", _nth(0)),
        ("c2", "backbone", _nth(1)),
        ("c3", "backbone", _nth(2)),
        ("c4", "backbone", _nth(3)),
        ("fuse", "decode_head.linear_fuse", _output),
        ("logits_quarter", "", _output),
        ("window_logits_quarter", "", _output),
    ),
}
"""Array name, module path, and which of the module's values it is, in network order."""

EVERY_RUN = ("logits", "logits_quarter", "window_logits_quarter")
"""Arrays that hold all runs of the network; the others hold the first (of a sliding-window model: the first window)."""


@contextmanager
def recorded(module: Any, case: Case) -> Iterator[dict[str, np.ndarray]]:
    """While the block runs: the values of every stage that the case has, from forward hooks."""
    stages: dict[str, np.ndarray] = {}
    handles = []
    for name, path, pick in STAGES[case.family]:
        if name in case.arrays:
            handles.append(module.get_submodule(path).register_forward_hook(_keep(stages, name, pick)))
    try:
        yield stages
    finally:
        for handle in handles:
            handle.remove()


def _keep(stages: dict[str, np.ndarray], name: str, pick: Pick) -> Callable[..., None]:
    def hook(_module: Any, inputs: tuple[Any, ...], output: Any) -> None:
        value = pick(inputs, output).detach().clone().numpy()
        if name not in stages:
            stages[name] = value
        elif name in EVERY_RUN:
            stages[name] = np.concatenate([stages[name], value])

    return hook


def wrong_input(case: Case, tensor: np.ndarray) -> list[str]:
    """What is wrong with the network input (1, channel, height, width)."""
    return _compared(case, "input", tensor, case.limits.input)


def wrong_windows(case: Case, slide: Slide | None) -> list[str]:
    """What is wrong with the sliding windows, (top, left, bottom, right) in the order run."""
    if "window_boxes" not in case.arrays:
        return [] if slide is None else [f"{case.name}: windows are used, the official code looks at the whole image"]
    if slide is None:
        return [f"{case.name}: the whole image is used, the official code looks through windows"]
    height, width = case.arrays["input"].shape[2:]
    expected = [tuple(box) for box in case.arrays["window_boxes"].tolist()]
    found = windows((height, width), slide)
    return [] if found == expected else [f"{case.name}: the windows are {found}, the official ones {expected}"]


def wrong_stages(case: Case, stages: dict[str, np.ndarray]) -> list[str]:
    """What is wrong with the recorded stages, first stage first: where the first fault is, the error was made.

    Logits have the limit of the manifest, inner stages as much of their own largest value (1 at least).
    """
    wanted = [name for name, _, _ in STAGES[case.family] if name in case.arrays]
    missing = [f"{case.name}: the stage {name} never ran" for name in wanted if name not in stages]
    return missing + [
        fault for name in wanted if name in stages for fault in _compared(case, name, stages[name], case.limits.logits)
    ]


def wrong_resizes(case: Case, stages: dict[str, np.ndarray]) -> list[str]:
    """What is wrong with the logits after each official resize (to the input's size, to the image's)."""
    quarter = stages.get("logits_quarter")
    logits = stages.get("logits", quarter)
    if logits is None:
        return []
    faults, logits = [], logits[0]
    for name, size in (("logits_input", case.arrays["input"].shape[2:]), ("logits_full", case.labels.shape)):
        if name == "logits_input" and quarter is None:
            continue
        logits = resize_logits(logits, (size[0], size[1]))
        if name in case.arrays:
            faults += _compared(case, name, logits[None], case.limits.logits)
    return faults


def wrong_labels(case: Case, labels: np.ndarray) -> list[str]:
    """What is wrong with the final label map (height, width)."""
    if labels.shape != case.labels.shape:
        return [f"{case.name}: the label map has {labels.shape} pixels, the official one {case.labels.shape}"]
    differs = labels != case.labels
    clear = int((differs & (case.margin > case.limits.margin)).sum())
    faults = [f"{case.name}: {clear} labels differ where the margin is above {case.limits.margin}"] if clear else []
    percent = 100 * float(1 - differs.mean())
    if percent < case.limits.percent:
        faults.append(f"{case.name}: {percent:.3f} % of the labels are the official ones, expected {case.limits.percent} %")
    return faults


def _compared(case: Case, name: str, found: np.ndarray, limit: float) -> list[str]:
    expected, part = case.arrays[name], case.part(name, found)
    if part.shape != expected.shape:
        return [f"{case.name}: {name} has the shape {part.shape}, the official one {expected.shape}"]
    difference = float(np.abs(part - expected).max())
    if difference <= limit:  # a NaN is not
        return []
    return [f"{case.name}: {name} differs by {difference:.2g}, at most {limit:g} is allowed"]
