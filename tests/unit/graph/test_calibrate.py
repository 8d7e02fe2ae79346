"""Calibration learns true ranges, image by image, and never runs an image twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segship.core.errors import BuildFailed
from segship.core.graph import Graph
from segship.core.precision import PrecisionPlan
from segship.graph.calibrate import Calibration
from segship.graph.labels import label_map
from segship.graph.observe import SAMPLES, observing_graph, sampling_step, shapes_graph
from segship.graph.passes.insert_qdq import tensors_to_quantise
from unit.graph.networks import PlainSession, images, kinds, small_unet


def write_images(folder: Path, count: int) -> list[Path]:
    files = []
    for index, image in enumerate(images(count)):
        files.append(folder / f"{index}.npy")
        np.save(files[-1], image * (index + 1))
    return files


def read(file: Path) -> dict[str, np.ndarray]:
    return {"image": np.load(file)}


class Opener:
    """Opens sessions and counts the images that observing ones have run; fails after ``limit``."""

    def __init__(self, limit: int | None = None) -> None:
        self.runs, self.limit = 0, limit

    def __call__(self, graph: Graph) -> PlainSession:
        session, run = PlainSession(graph), PlainSession.run
        if graph.signature.outputs[0].name.endswith("/min"):
            session.run = lambda feeds: self._counted(lambda: run(session, feeds))
        return session

    def _counted(self, run: Callable[[], dict]) -> dict:
        if self.limit is not None and self.runs >= self.limit:
            raise KeyboardInterrupt
        self.runs += 1
        return run()


def calibration(files: list[Path], cache: Path | None = None, opener: Opener | None = None, **changes: object) -> Calibration:
    graph = changes.pop("graph", None) or small_unet()
    tensors = tensors_to_quantise(graph, PrecisionPlan("int8"))
    facts = {"prepare": read, "preprocessing": "npy", "open_session": opener or Opener(), "cache": cache, **changes}
    return Calibration(graph, tensors, files, **facts)


def test_ranges_are_the_extremes_over_all_images(tmp_path: Path) -> None:
    files = write_images(tmp_path, 3)
    found = calibration(files).run(method="minmax")
    assert found.images == 3
    graph = small_unet()
    value = next(node.outputs[0] for node in graph.ir.graph if node.name == "deep/Relu")
    graph.ir.graph.outputs.append(value)
    session = PlainSession(graph)._session
    largest = max(float(session.run([value.name], read(file))[0].max()) for file in files)
    assert found.tensors[value.name].high == pytest.approx(largest, rel=1e-6)
    assert found.tensors[value.name].low == 0
    assert found.tensors["image"].high == pytest.approx(max(read(file)["image"].max() for file in files))


def test_an_interrupted_calibration_goes_on_and_repeats_no_image(tmp_path: Path) -> None:
    files = write_images(tmp_path, 5)
    expected = calibration(files).run()
    with pytest.raises(KeyboardInterrupt):
        calibration(files, tmp_path / "cache", Opener(limit=2)).run()
    second = Opener()
    assert calibration(files, tmp_path / "cache", second).run() == expected
    assert second.runs == 3


def test_a_finished_calibration_is_never_run_again_whatever_the_method(tmp_path: Path) -> None:
    files = write_images(tmp_path, 2)
    first = calibration(files, tmp_path / "cache").run(method="mse")
    again = Opener()
    for method in ("mse", "percentile", "minmax"):
        assert calibration(files, tmp_path / "cache", again).run(method=method).method == method
    assert again.runs == 0
    assert calibration(files, tmp_path / "cache", again).run(method="mse") == first


def test_the_hash_covers_graph_images_preprocessing_and_method(tmp_path: Path) -> None:
    files = write_images(tmp_path, 2)
    base = calibration(files).run(method="minmax").sha256
    assert calibration(files).run(method="minmax").sha256 == base
    others = [
        calibration(files).run(method="mse").sha256,
        calibration(files[:1]).run(method="minmax").sha256,
        calibration(files, preprocessing="other").run(method="minmax").sha256,
        calibration(files, graph=small_unet(classes=5)).run(method="minmax").sha256,
    ]
    np.save(files[1], read(files[1])["image"] * 1.001)
    others.append(calibration(files).run(method="minmax").sha256)
    assert len({base, *others}) == 6


@pytest.mark.parametrize("damage", [b"", b"{", b'{"key": "x", "done": 1, "histograms": []}'])
def test_a_damaged_cache_counts_as_none(damage: bytes, tmp_path: Path) -> None:
    files = write_images(tmp_path, 2)
    expected = calibration(files, tmp_path / "cache").run()
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(damage)
    opener = Opener()
    assert calibration(files, tmp_path / "cache", opener).run() == expected
    assert opener.runs == 2


def test_progress_is_told_once_for_each_image(tmp_path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    calibration(write_images(tmp_path, 3)).run(progress=lambda *facts: told.append(facts))
    assert told == [("calibrate", index, 3) for index in range(4)]


def test_an_image_that_overflows_is_named(tmp_path: Path) -> None:
    files = write_images(tmp_path, 2)
    np.save(files[1], np.full_like(read(files[1])["image"], np.inf))
    with pytest.raises(BuildFailed, match=r"image is not finite on .*1\.npy"):
        calibration(files).run()


def test_no_image_is_refused() -> None:
    with pytest.raises(BuildFailed, match="no image"):
        calibration([]).run()


def test_images_of_several_sizes_calibrate_together(tmp_path: Path) -> None:
    files = [tmp_path / "small.npy", tmp_path / "large.npy"]
    for file, size in zip(files, [(8, 12), (32, 20)], strict=True):
        np.save(file, images(1, size)[0])
    assert calibration(files, graph=small_unet(size=None)).run().images == 2


def test_a_label_graph_calibrates_without_its_second_input(tmp_path: Path) -> None:
    graph = label_map(small_unet(size=None), None)
    found = calibration(write_images(tmp_path, 1), graph=graph).run(method="minmax")
    logits_only = calibration(write_images(tmp_path, 1), graph=small_unet(size=None)).run(method="minmax")
    assert {name: bounds for name, bounds in found.tensors.items() if name != "logits"} == logits_only.tensors


def test_only_extremes_and_a_bounded_sample_leave_the_runtime() -> None:
    graph = small_unet(size=None)
    tensors = tensors_to_quantise(graph, PrecisionPlan("int8"))
    image = images(1, (256, 256))[0]
    found = PlainSession(shapes_graph(graph, tensors)).run({"image": image})
    shapes = {name: tuple(found[f"{index}/shape"]) for index, name in enumerate(tensors)}
    observed = PlainSession(observing_graph(graph, tensors, shapes)).run({"image": image})
    assert len(observed) == 3 * len(tensors)
    assert max(array.size for array in observed.values()) <= 2 * SAMPLES
    assert "Conv" in kinds(observing_graph(graph, tensors, shapes))


@pytest.mark.parametrize("shape", [(1, 320, 64, 64), (1, 3, 1024, 2048), (1, 5), (1, 64, 257, 129), (1, 16384, 256)])
def test_the_sample_passes_over_no_channel_row_or_column(shape: tuple[int, ...]) -> None:
    step = sampling_step(shape)
    assert np.prod(shape) / step <= 2 * SAMPLES
    indices = np.unravel_index(np.arange(0, np.prod(shape), step), shape)
    for side, seen in zip(shape, indices, strict=True):
        assert len(np.unique(seen)) == side


def test_a_tensor_of_another_graph_is_refused() -> None:
    with pytest.raises(BuildFailed, match="no tensor unknown"):
        shapes_graph(small_unet(), ["unknown"])


def test_what_the_last_quarter_of_the_images_moved_is_learnt_and_survives_an_interruption(tmp_path: Path) -> None:
    files = write_images(tmp_path, 4)  # each brighter than all before
    found = calibration(files).run()
    assert found.moved["image"] == pytest.approx(1 / 4, abs=0.01)  # the fourth is a third brighter than the third
    assert calibration(files[:1]).run().moved == {}
    with pytest.raises(KeyboardInterrupt):
        calibration(files, tmp_path / "cache", Opener(limit=3)).run()
    assert calibration(files, tmp_path / "cache").run() == found
    steady = tmp_path / "steady"
    steady.mkdir()
    for index in range(4):
        np.save(steady / f"{index}.npy", read(files[0])["image"] + index * 1e-6)
    assert max(calibration(sorted(steady.iterdir())).run().moved.values()) < 0.01
