"""Commands that show: inspect, report, doctor."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import click
import msgspec

from segship import __version__
from segship.cli import options
from segship.cli.console import say, say_json, table
from segship.core.engine import MANIFEST, open_engine
from segship.core.environment import exact_weight_bits, package_version, processor
from segship.core.errors import BadArgument


@click.command()
@options.path_argument("thing")
@click.option("--profile", is_flag=True, help="Of an engine: where its time goes, by the runtime's own clocks.")
@click.option("--image", type=click.Path(path_type=Path), help="The image to profile on; default: noise.")
@options.facts
@options.threads
@options.as_json
def inspect(thing: Path, profile: bool, image: Path | None, facts: tuple[str, ...], threads: int | None, as_json: bool) -> None:
    """What a CHECKPOINT, an ONNX graph or an ENGINE is, and what was assumed about it."""
    if profile:
        _profile(thing, image, threads, as_json)
        return
    if image is not None or threads is not None:
        raise BadArgument(
            "--image and --threads say how to run a profile, and none is asked for: add --profile, or leave them out"
        )
    if (thing / MANIFEST).is_file() or thing.name.endswith(".engine"):
        described = _described_engine(thing)
    elif thing.suffix == ".onnx":
        described = _described_graph(thing)
    else:
        from segship.models import load_model

        described = {"kind": "checkpoint", **msgspec.to_builtins(load_model(thing, **options.parsed_facts(facts)).spec)}
    if as_json:
        say_json(described)
    else:
        _say_nested(described, 0)


def _profile(path: Path, image: Path | None, threads: int | None, as_json: bool) -> None:
    """The kernels that take longest, and the shares of all."""
    from segship.evaluation import profile as run
    from segship.evidence.gains import time_in_words

    found = run(path, image, threads=threads)
    if as_json:
        say_json({"engine": str(path), **msgspec.to_builtins(found)})
        return
    if not found.kernels:
        say(f"{path}: its runtime has no clocks of its own")
        return
    rows = [
        [kernel.name or "-", kernel.kind, kernel.role, f"{kernel.ms:.3f}", f"{share:.1f}"] for kernel, share in found.slowest(20)
    ]
    say(table(["kernel", "operator", "runs in", "ms", "% of time"], rows))
    say(f"\n  {time_in_words(found)}\n  {len(found.kernels)} kernels, {found.total_ms:.1f} ms with the profiler on\n")


def _described_engine(path: Path) -> dict[str, Any]:
    engine = open_engine(path, check_processor=False)
    return {"kind": "engine", "path": str(path), "bytes": engine.size_bytes, **msgspec.to_builtins(engine.manifest)}


def _described_graph(path: Path) -> dict[str, Any]:
    from segship.graph.describe import describe

    return {"kind": "graph", **describe(path)}


def _say_nested(value: Any, depth: int) -> None:
    """Nested dicts as indented text; long lists are counted."""
    for key, item in value.items():
        pad = "  " * depth
        if isinstance(item, dict) and item:
            say(f"{pad}{key}")
            _say_nested(item, depth + 1)
        elif isinstance(item, list | tuple) and item and isinstance(item[0], dict):
            say(f"{pad}{key} ({len(item)})")
            for each in item[:8]:
                say(f"{pad}  - " + ", ".join(f"{name} {text}" for name, text in each.items()))
            if len(item) > 8:
                say(f"{pad}  - and {len(item) - 8} more (--json shows all)")
        else:
            text = ", ".join(map(str, item)) if isinstance(item, list | tuple) else str(item)
            say(f"{pad}{key:<20} {text if len(text) < 200 else text[:200] + ' ...'}")


@click.command()
@options.path_argument("engine")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where to write it; default: report.html in the engine.")
def report(engine: Path, output: Path | None) -> None:
    """Make an engine's report again, from its evidence."""
    from segship import showcase

    opened = open_engine(engine, check_processor=False)
    deployment, examples = showcase.read_evidence(opened)
    target = output or engine / showcase.REPORT
    showcase.write_report(target, deployment, opened.manifest, examples, engine.resolve())
    say(str(target))


@click.command()
@options.as_json
def doctor(as_json: bool) -> None:
    """Which backends work here, and why the others do not."""
    from segship.backends import BACKENDS, load_backend

    found = {}
    for name in BACKENDS:
        backend = load_backend(name)
        problem = backend.probe()
        found[name] = {"works": problem is None, "version": None if problem else backend.version(), "problem": problem}
    here = processor()
    if as_json:
        say_json(
            {
                "segship": __version__,
                "python": platform.python_version(),
                "processor": msgspec.to_builtins(here),
                "backends": found,
            }
        )
        return
    say(f"segship {__version__}, Python {platform.python_version()}")
    say(f"processor  {here.model}, {here.cores} cores, {' '.join(here.instruction_sets) or 'no vector extensions known'}")
    if exact_weight_bits() < 8:
        say("           no VNNI: INT8 gains little here")
    for name, state in found.items():
        say(f"{'works' if state['works'] else 'no   '}      {name} {state['version'] or ': ' + str(state['problem'])}")
    for package in ("torch", "onnx"):
        if package_version(package) is None:
            say(f"no         {package}: running engines works, building needs `pip install segship[build]`")


COMMANDS = (inspect, report, doctor)
