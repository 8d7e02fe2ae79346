"""Numbers per channel over images: streamed, resumed, cached, and never trusted when damaged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segship.core.errors import BuildFailed
from segship.core.graph import Graph
from segship.graph.channels import ChannelStatistics
from segship.graph.observe import channel_maxima_graph
from unit.graph.networks import PlainSession, small_unet
from unit.graph.test_calibrate import read, write_images

AXES = {"deep/Relu/out": 1, "image": 1}


def statistics(
    files: list[Path], cache: Path | None = None, stop_after: int | None = None, **changes: object
) -> ChannelStatistics:
    runs = 0

    def opened(graph: Graph) -> PlainSession:
        session, run = PlainSession(graph), PlainSession.run

        def counted(feeds: dict) -> dict:
            nonlocal runs
            runs += 1
            if stop_after is not None and runs > stop_after:
                raise KeyboardInterrupt
            return run(session, feeds)

        session.run = counted
        return session

    facts = {"prepare": read, "preprocessing": "npy", "open_session": opened, "cache": cache, **changes}
    return ChannelStatistics(channel_maxima_graph(small_unet(), AXES), files, **facts)


def test_maxima_and_means_are_those_of_the_tensors(tmp_path: Path) -> None:
    files = write_images(tmp_path, 3)
    largest = np.array([np.abs(read(file)["image"]).max(axis=(0, 2, 3)) for file in files])
    assert statistics(files).maxima()["image"] == pytest.approx(largest.max(axis=0))
    assert statistics(files).means()["image"] == pytest.approx(largest.mean(axis=0))
    assert statistics(files).maxima()["deep/Relu/out"].shape == (16,)


def test_an_interrupted_run_goes_on_and_a_finished_one_is_not_repeated(tmp_path: Path) -> None:
    files, cache = write_images(tmp_path, 3), tmp_path / "cache"
    with pytest.raises(KeyboardInterrupt):
        statistics(files, cache, stop_after=2).means()
    found = statistics(files, cache, stop_after=1).means()
    expected = statistics(files).means()
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in found)
    assert statistics(files, cache, stop_after=0).means()["image"] == pytest.approx(expected["image"])


def test_what_was_learnt_otherwise_is_not_used(tmp_path: Path) -> None:
    files, cache = write_images(tmp_path, 2), tmp_path / "cache"
    statistics(files, cache).maxima()
    for other in (statistics(files, cache, stop_after=0), statistics(files, cache, stop_after=0, preprocessing="other")):
        with pytest.raises(KeyboardInterrupt):
            other.means() if other.preprocessing == "npy" else other.maxima()


@pytest.mark.parametrize("damage", [b"", b"PK", b"not a zip"])
def test_a_damaged_cache_counts_as_none(damage: bytes, tmp_path: Path) -> None:
    files, cache = write_images(tmp_path, 2), tmp_path / "cache"
    expected = statistics(files, cache).maxima()
    (file,) = cache.iterdir()
    file.write_bytes(damage)
    assert np.array_equal(statistics(files, cache).maxima()["image"], expected["image"])


def test_nothing_to_observe_runs_nothing(tmp_path: Path) -> None:
    files = write_images(tmp_path, 1)
    nothing = channel_maxima_graph(small_unet(), {})
    assert replace(statistics(files, stop_after=0), graph=nothing).maxima() == {}


def test_no_image_is_refused() -> None:
    with pytest.raises(BuildFailed, match="no image"):
        statistics([]).maxima()
