"""Commands that use engines: predict, evaluate, verify, bench."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segship.cli import options
from segship.cli.console import Console, say, say_json, table
from segship.core.errors import BadArgument
from segship.core.files import write_atomically

if TYPE_CHECKING:
    from segship.core.predictions import Prediction
    from segship.predictor import Predictor


@click.command()
@options.path_argument("engine")
@options.path_argument("images", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("segship-out"),
    show_default=True,
    help="Folder for the results.",
)
@click.option("--overlay/--no-overlay", default=True, help="Write the overlay picture beside the label map.")
@options.threads
@options.as_json
def predict(engine: Path, images: tuple[Path, ...], output: Path, overlay: bool, threads: int | None, as_json: bool) -> None:
    """Run ENGINE on IMAGES: NAME.json, NAME.overlay.jpg and (but for instances) NAME.png in the output folder."""
    from segship.predictor import load_engine

    _refuse_same_names(images)
    _refuse_overwriting(images, output)
    results = []
    with load_engine(engine, threads=threads) as predictor:
        for image in images:
            pixels = predictor.read(image)
            results.append(_write_result(predictor, image, pixels, predictor.predict(pixels), output, overlay))
            if not as_json:
                say(_line(results[-1]))
    if as_json:
        say_json({"engine": str(engine), "results": results})


def _line(result: dict[str, Any]) -> str:
    """One result for a person: where it is, and the most of what is in it."""
    if "classes" in result:
        found = [f"{name} {100 * share:.0f} %" for name, share in result["classes"].items()]
    else:
        counts = Counter(each["class"] for each in result.get("objects", result.get("segments", ())))
        found = [f"{count} {name}" for name, count in counts.most_common()]
    where = result.get("labels") or result.get("overlay") or result["json"]
    return f"{result['image']} -> {where}  ({', '.join(found[:4]) or 'nothing found'})"


def _refuse_same_names(images: tuple[Path, ...]) -> None:
    seen: dict[str, Path] = {}
    for image in images:
        other = seen.setdefault(image.stem, image)
        if other != image:
            raise BadArgument(f"{other} and {image} would write the same result files: run them with two output folders")


def _refuse_overwriting(images: tuple[Path, ...], output: Path) -> None:
    """NAME.png beside NAME.jpg is its label in a labelled folder, and NAME.png is the image itself where that is a PNG."""
    for image in images:
        if (output / f"{image.stem}.png").exists() and image.resolve().parent == output.resolve():
            raise BadArgument(
                f"{output / image.stem}.png lies beside {image} and would be overwritten: give another folder with -o"
            )


def _write_result(
    predictor: Predictor, image: Path, pixels: Any, prediction: Prediction, output: Path, overlay: bool
) -> dict[str, Any]:
    import json

    from segship.results import facts_of, picture_bytes, picture_of

    result: dict[str, Any] = {"image": str(image), "height": prediction.size[0], "width": prediction.size[1]}
    labels = picture_of(prediction, predictor.spec)
    if labels is not None:
        file = output / f"{image.stem}.png"
        write_atomically(file, picture_bytes(labels, "PNG"))
        result["labels"] = str(file)
    result |= facts_of(prediction, predictor.spec, image.name)
    if overlay:
        from segship.draw import overlay as draw_overlay

        picture = draw_overlay(pixels, prediction, predictor.spec.classes, predictor.spec.colors)
        file = output / f"{image.stem}.overlay.jpg"
        write_atomically(file, picture_bytes(picture, "JPEG"))
        result["overlay"] = str(file)
    file = output / f"{image.stem}.json"
    write_atomically(file, json.dumps(result, indent=1).encode())
    result["json"] = str(file)
    return result


@click.command()
@options.path_argument("model")
@options.data
@options.facts
@options.threads
@options.as_json
def evaluate(model: Path, data: Path, facts: tuple[str, ...], threads: int | None, as_json: bool) -> None:
    """The task's metric of an ENGINE or a CHECKPOINT on a labelled folder."""
    from segship.evaluation import evaluate as run
    from segship.evaluation import open_predictor

    with Console() as progress:
        result = run(open_predictor(model, threads=threads, facts=options.parsed_facts(facts)), data, progress=progress)
    if as_json:
        say_json(result.as_json())
        return
    rows = [[name, "-" if value is None else f"{value:.2f}"] for name, value in result.classes.items()]
    say(table(["class", f"{result.metric_name} %"], rows))
    points = f"{result.metric_name} {result.metric:.2f}"
    say(f"\n  {model} on {data}: {points} over {result.images} images, {result.ms_per_image:.1f} ms per image\n")


@click.command()
@options.path_argument("engine")
@click.option(
    "--against", type=click.Path(path_type=Path), help="The checkpoint that the engine was made of: PyTorch is the reference."
)
@click.option("--data", type=click.Path(path_type=Path), help="Folder of images; default: noise, for the invariance tests alone.")
@click.option("--max-drop", type=options.Finite(0, 100), default=0.5, show_default=True)
@options.facts
@options.as_json
def verify(engine: Path, against: Path | None, data: Path | None, max_drop: float, facts: tuple[str, ...], as_json: bool) -> int:
    """Prove ENGINE again: invariance, and beside PyTorch its output, predictions and metric. Exit code 1 if a limit breaks."""
    from segship.evaluation import verify as run

    with Console() as progress:
        verdicts = run(engine, against, data, max_drop=max_drop, facts=options.parsed_facts(facts), progress=progress)
    if as_json:
        import msgspec

        say_json({"engine": str(engine), "passed": all(verdicts), "verdicts": msgspec.to_builtins(verdicts)})
    for verdict in () if as_json else verdicts:
        say(f"{'holds ' if verdict.passed else 'BROKEN'}  {verdict.level}: {verdict.title} ({verdict.images} images)")
        for quantity, value in verdict.measured.items():
            limit = next((limit for limit in verdict.limits if limit.quantity == quantity), None)
            bound = (
                ""
                if limit is None
                else f"  limit {limit.at_most if limit.at_most is not None else limit.at_least:g}: {limit.reason}"
            )
            say(f"          {quantity:<22} {value:10.4g}{bound}")
        for note in verdict.notes:
            say(f"          note: {note}")
    return 0 if all(verdicts) else 1


@click.command()
@options.path_argument("engines", nargs=-1, required=True)
@click.option("--against", type=click.Path(path_type=Path), help="A checkpoint: PyTorch eager takes part.")
@click.option(
    "--image", type=click.Path(path_type=Path), help="The image to run; default: noise of the engine's size, or 512 x 512."
)
@click.option("--rounds", type=click.IntRange(3, 1000), default=7, show_default=True)
@options.facts
@options.threads
@options.as_json
def bench(
    engines: tuple[Path, ...],
    against: Path | None,
    image: Path | None,
    rounds: int,
    facts: tuple[str, ...],
    threads: int | None,
    as_json: bool,
) -> None:
    """Time ENGINES side by side, in turns: the network alone, and image file to mask."""
    from segship.evaluation import bench as run

    with Console() as progress:
        timings = run(
            list(engines), against, image, rounds=rounds, threads=threads, facts=options.parsed_facts(facts), progress=progress
        )
    if as_json:
        import msgspec

        say_json({"timings": [msgspec.to_builtins(t) | {"median_ms": t.median_ms, "p95_ms": t.p95_ms} for t in timings]})
        return
    rows = [[t.candidate, t.scope, f"{t.median_ms:.2f}", f"{t.p95_ms:.2f}", str(len(t.samples_ms))] for t in timings]
    say(table(["candidate", "scope", "median ms", "p95 ms", "runs"], rows))


COMMANDS = (predict, evaluate, verify, bench)
