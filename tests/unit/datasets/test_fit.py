"""Whether a data set fits a model, and truth in the model's class ids."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fake_deployments import spec as spec_of
from segship.core.errors import BadDataset
from segship.core.predictions import Instances, PanopticMap
from segship.datasets import check_classes, for_model, in_model_classes, open_dataset
from segship.scenes import CLASSES, THINGS, write_dataset

SIZE = (64, 96)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("fit")
    for task in ("semantic", "instance", "panoptic"):
        write_dataset(root / task, (7,), SIZE, task)
    return {task: root / task for task in ("semantic", "instance", "panoptic")}


@pytest.mark.parametrize("truth", ["semantic", "instance", "panoptic"])
@pytest.mark.parametrize("model", ["semantic", "instance", "panoptic"])
def test_the_task_must_fit(truth: str, model: str, folders: dict[str, Path]) -> None:
    dataset = open_dataset(folders[truth])
    n_classes = len(dataset.classes or ())
    if truth == model:
        check_classes(dataset, n_classes, task=model)  # type: ignore[arg-type]
        return
    with pytest.raises(BadDataset, match=f"are for the task {truth}, the model's is {model}: give "):
        check_classes(dataset, n_classes, task=model)  # type: ignore[arg-type]


def test_the_number_of_classes_must_fit_where_no_ids_say_more(folders: dict[str, Path]) -> None:
    with pytest.raises(BadDataset, match=r"has 4 classes \(sign ... cyclist\), the model has 80"):
        check_classes(open_dataset(folders["instance"]), 80, "instance")


def test_a_model_may_know_more_categories_than_the_data_set(folders: dict[str, Path]) -> None:
    dataset = open_dataset(folders["instance"])
    check_classes(dataset, 6, "instance", (4, 5, 1, 3, 9, 2))
    with pytest.raises(BadDataset, match=r"1 categories that the model does not know, 4 \(cyclist\); it knows 3 from 1 to 3"):
        check_classes(dataset, 3, "instance", (1, 2, 3))


def test_truth_in_the_models_class_ids(folders: dict[str, Path]) -> None:
    dataset = open_dataset(folders["instance"])
    ids = (4, 5, 1, 3, 9, 2)
    names = tuple(f"class {each}" for each in ids)
    matched = in_model_classes(dataset, names, ids)
    assert (matched.classes, matched.category_ids, matched.colors) == (names, ids, None)
    before, after = (each.load_truth(each.samples[0]) for each in (dataset, matched))
    assert isinstance(before, Instances)
    assert isinstance(after, Instances)
    assert [ids[each] for each in after.classes] == [each + 1 for each in before.classes]
    assert len(set(after.classes.tolist())) > 1


def test_panoptic_truth_in_the_models_class_ids(folders: dict[str, Path]) -> None:
    dataset = open_dataset(folders["panoptic"])
    ids = tuple(range(len(CLASSES), 0, -1))
    matched = in_model_classes(dataset, [str(each) for each in ids], ids)
    assert dataset.colors is not None
    assert matched.colors == dataset.colors[::-1]
    assert matched.things == tuple(each <= len(THINGS) for each in ids)
    before, after = (each.load_truth(each.samples[0]) for each in (dataset, matched))
    assert isinstance(before, PanopticMap)
    assert isinstance(after, PanopticMap)
    assert np.array_equal(before.ids, after.ids)
    expected = [(len(CLASSES) - 1 - each.class_id, each.is_thing) for each in before.segments]
    assert [(each.class_id, each.is_thing) for each in after.segments] == expected


def test_a_model_with_gaps_in_its_ids_gets_truth_in_its_own_classes(folders: dict[str, Path]) -> None:
    """Ids 0 to 5, of which the data set has 1 to 4, like torchvision's 90 for COCO's 80."""
    names = ("a", "b", "c", "d", "e", "f")
    spec = spec_of(task="instance", classes=names, category_ids=(0, 1, 2, 3, 4, 5))
    dataset = for_model(open_dataset(folders["instance"]), spec)
    assert dataset.classes == names
    truth = dataset.load_truth(dataset.samples[0])
    assert isinstance(truth, Instances)
    own = open_dataset(folders["instance"])
    before = own.load_truth(own.samples[0])
    assert isinstance(before, Instances)
    assert truth.classes.tolist() == (before.classes + 1).tolist() != []
    with pytest.raises(BadDataset, match="does not know"):
        for_model(open_dataset(folders["instance"]), spec_of(task="instance", classes=("a",), category_ids=(1,)))


def test_truth_of_another_task_is_named_not_overlooked(folders: dict[str, Path]) -> None:
    for task in ("instance", "panoptic"):
        assert open_dataset(folders["semantic"], task).task == "semantic"  # type: ignore[arg-type]
    assert open_dataset(folders["instance"], "semantic").task == "instance"


def test_without_ids_on_both_sides_nothing_changes(folders: dict[str, Path]) -> None:
    semantic, instance = open_dataset(folders["semantic"]), open_dataset(folders["instance"])
    assert in_model_classes(semantic, ("a",), (3,)) is semantic
    assert in_model_classes(instance, ("a",), None) is instance
    assert in_model_classes(instance, ("a",), [1, 2, 3, 4]) is instance
    check_classes(replace(semantic, classes=None), 5)


def test_object_ids(tmp_path: Path) -> None:
    label = np.zeros((6, 8), np.uint16)
    label[1:3, 2:5], label[4, 0], label[5, 7], label[0, 0:2] = 700, 3, 3, 9
    Image.fromarray(label).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / "a.jpg")
    about = {"task": "instance", "names": ["nucleus"], "ignore": 9}
    (tmp_path / "classes.json").write_text(json.dumps(about))
    dataset = open_dataset(tmp_path)
    check_classes(dataset, 1, "instance")
    truth = dataset.load_truth(dataset.samples[0])
    assert isinstance(truth, Instances)
    assert truth.boxes.tolist() == [[0, 4, 8, 6], [0, 0, 2, 1], [2, 1, 5, 3]]
    assert [mask.area for mask in truth.masks] == [2, 2, 6]
    assert truth.crowd is not None
    assert truth.crowd.tolist() == [False, True, False]
    Image.fromarray(np.zeros((6, 8), np.uint16)).save(tmp_path / "a.png")
    empty = dataset.load_truth(dataset.samples[0])
    assert isinstance(empty, Instances)
    assert len(empty) == 0


@pytest.mark.parametrize(
    ("about", "sentence"),
    [
        ({"task": "instance", "names": ["a", "b"]}, "object ids do not say which is whose"),
        ({"task": "panoptic", "names": ["a"]}, "only COCO's panoptic JSON can describe"),
    ],
)
def test_pairs_that_cannot_say_classes(about: object, sentence: str, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((6, 8), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / "a.jpg")
    (tmp_path / "classes.json").write_text(json.dumps(about))
    with pytest.raises(BadDataset, match=sentence):
        open_dataset(tmp_path)
