"""Passes run in one order only, and say the truth about themselves."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from segship.core.errors import BuildFailed, FusionMissing
from segship.core.graph import Graph, PassRecord, Stage
from segship.graph.passes.edit import constant
from segship.graph.recipe import STAGES, Step, apply_steps, check_fused, optimise
from unit.graph.networks import Net, small_unet


def nothing(name: str, stage: Stage) -> Step:
    """A pass that changes nothing and says so."""
    return Step(name, stage, lambda graph: graph.after(graph.ir, PassRecord(name, stage, {}, changed=False)))


def test_stages_are_in_the_order_of_the_design() -> None:
    assert STAGES == ("export", "simplify", "fuse", "precision", "legalise")


def test_passes_of_one_stage_may_follow_each_other() -> None:
    steps = [nothing("a", "simplify"), nothing("b", "fuse"), nothing("c", "fuse"), nothing("d", "legalise")]
    assert [record.name for record in apply_steps(small_unet(), steps).history] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(("first", "second"), [("fuse", "simplify"), ("precision", "fuse"), ("legalise", "precision")])
def test_an_earlier_stage_after_a_later_one_is_refused(first: Stage, second: Stage) -> None:
    with pytest.raises(BuildFailed, match="order"):
        apply_steps(small_unet(), [nothing("a", first), nothing("b", second)])


def test_a_pass_that_hides_its_name_or_stage_is_refused() -> None:
    silent = Step("silent", "fuse", lambda graph: graph)
    liar = Step("liar", "fuse", nothing("other", "fuse").apply)
    for step in (silent, liar):
        with pytest.raises(BuildFailed, match="did not record"):
            apply_steps(small_unet(), [step])


def test_a_graph_without_anything_to_fuse_passes() -> None:
    optimised = optimise(small_unet())
    assert not any(record.changed for record in optimised.history)


def spelled_out(kind: str) -> Graph:
    """A network with one operator in single steps, as exporters of older opsets write it."""
    net = Net()
    x = net.conv(net.image, "a", 3, 4)
    if kind == "erf":
        x = net.node("Erf", [x], "gelu/Erf", 4)
    elif kind == "norm":
        mean = net.node("ReduceMean", [net.node("Mul", [x, x], "norm/Mul", 4)], "norm/ReduceMean", 4)
        epsilon = constant(net.graph, "epsilon", np.array(1e-5, np.float32))
        root = net.node("Sqrt", [net.node("Add", [mean, epsilon], "norm/Add", 4)], "norm/Sqrt", 4)
        x = net.node("Div", [x, root], "norm/Div", 4)
    else:
        parameters = [net.weight(f"bn.{name}", 4) for name in ("weight", "bias", "mean", "var")]
        x = net.node("BatchNormalization", [x, *parameters], "bn/BatchNormalization", 4)
    return net.done(net.conv(x, "last", 4, 3), 3)


@pytest.mark.parametrize(("kind", "word"), [("erf", "Gelu"), ("norm", "LayerNormalization"), ("bn", "BatchNorm")])
def test_an_operator_left_in_single_steps_is_an_error(kind: str, word: str) -> None:
    with pytest.raises(FusionMissing, match=word):
        check_fused(spelled_out(kind))


def test_a_square_root_alone_is_no_normalisation() -> None:
    net = Net()
    x: ir.Value = net.node("Sqrt", [net.node("Add", [net.image, net.image], "Add", 3)], "Sqrt", 3)
    check_fused(net.done(net.conv(x, "last", 3, 3), 3))
