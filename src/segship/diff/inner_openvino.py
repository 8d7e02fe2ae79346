"""Inner tensors of an OpenVINO engine: asked for only where the compiled network ends a fused layer, so it fuses as before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segship.backends.openvino import MODEL, properties
from segship.core.backend import Array, Feeds
from segship.core.engine import Engine
from segship.core.environment import available_threads
from segship.core.errors import BadEngine, RunFailed
from segship.core.graph import Graph
from segship.diff.inner import Held
from segship.diff.measure import relative_error
from segship.diff.segment import values_of


class OpenVinoInner:
    """See :class:`segship.diff.inner.Inner`."""

    def __init__(self, file: Path, results: Sequence[str], held: dict[str, Held]) -> None:
        self._file, self._results, self.held = file, tuple(results), held

    def run(self, feeds: Feeds, names: Sequence[str]) -> dict[str, Array]:
        """The values ``names``."""
        tensors = list(dict.fromkeys(self.held[name].tensor for name in names))
        found = _run(_only(_read(self._file), tensors), feeds, tensors)
        return {name: self.held[name].read(found[self.held[name].tensor]) for name in names}

    def effect(self, feeds: Feeds) -> float:
        """The engine's own results with all inner tensors asked for, beside those without."""
        inner = list(dict.fromkeys(held.tensor for held in self.held.values() if held.tensor not in self._results))
        alone = _run(_read(self._file), feeds, self._results)
        exposed = _read(self._file)
        exposed.add_outputs(inner)
        beside = _run(exposed, feeds, self._results)
        return max(relative_error(beside[name], alone[name]) for name in self._results)


def open_inner(engine: Engine, graph: Graph) -> OpenVinoInner:
    """The tensors of the network's file that go by a name of ``graph`` and end a layer of the compiled network."""
    file = engine.network / MODEL
    tensors = _tensors(_read(file))
    results = [output.name for output in engine.manifest.signature.outputs]
    last = _last_of_layers(file)
    held = {}
    for name, value in values_of(graph.ir.graph).items():
        node = value.producer()
        if f"{name}/quantised" in last and f"{name}/dequantised/out" in tensors:
            held[name] = Held(f"{name}/dequantised/out")
        elif name in tensors and (name in results or (node is not None and node.name in last)):
            held[name] = Held(name)
    return OpenVinoInner(file, results, held)


def _read(file: Path) -> Any:
    import openvino

    try:
        return openvino.Core().read_model(file)
    except RuntimeError as error:
        raise BadEngine(f"OpenVINO cannot open {file} ({error}): build the engine again") from error


def _tensors(model: Any) -> set[str]:
    return {name for node in model.get_ops() for output in node.outputs() for name in output.get_names()}


def _last_of_layers(file: Path) -> set[str]:
    """Of each layer of the compiled network the last operation of the file that went into it."""
    import openvino

    compiled = openvino.Core().compile_model(_read(file), "CPU", properties(available_threads()))
    found = set()
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        if "originalLayersNames" in info:
            found.add(str(info["originalLayersNames"].astype(str)).rpartition(",")[2])
    return found


def _only(model: Any, tensors: Sequence[str]) -> Any:
    """The model cut down to what gives ``tensors``."""
    import openvino

    by_name = {name: output for node in model.get_ops() for output in node.outputs() for name in output.get_names()}
    cut = openvino.Model([by_name[name] for name in tensors], model.get_parameters())
    unused = [each for each in cut.get_parameters() if not each.output(0).get_target_inputs()]
    for parameter in unused:
        cut.remove_parameter(parameter)
    return cut


def _run(model: Any, feeds: Feeds, tensors: Sequence[str]) -> Mapping[str, Array]:
    """The named tensors, compiled for exactly the sizes of ``feeds`` as the engine's session does it."""
    import openvino

    taken = {each.get_any_name(): feeds[each.get_any_name()] for each in model.inputs}
    try:
        model.reshape({name: list(array.shape) for name, array in taken.items()})
        compiled = openvino.Core().compile_model(model, "CPU", properties(available_threads()))
        results = compiled.create_infer_request().infer(taken, share_inputs=True, share_outputs=False)
    except RuntimeError as error:
        raise RunFailed(f"OpenVINO failed while running the engine: {str(error).partition(chr(10))[0]}") from error
    return {name: np.asarray(results[name]) for name in tensors}
