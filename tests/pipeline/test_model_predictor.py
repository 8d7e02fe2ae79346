"""The PyTorch reference is timed beside the engines: it must run as they do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from segship import load_model


def test_naming_the_classes_keeps_the_threads(tiny_checkpoint: Path) -> None:
    threads = torch.get_num_threads()
    try:
        model = load_model(tiny_checkpoint, scale=1.0, threads=1).named_after(("road", "car"), None)
        assert model.spec.classes == ("road", "car")
        torch.set_num_threads(2)
        model.session.run({"image": model.prepare(np.full((64, 96, 3), 128, np.uint8)).tensor})
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
