"""The command line: parse, call, print. Every command is a thin layer over the Python functions of the same name.

Exit codes: 0 done, 1 a verdict, build or run failed, 2 bad input (one clear sentence), 70 a fault of segship itself, 130
interrupted. With ``--json`` exactly one JSON object goes to standard output; progress and messages always go to standard error.
"""

from __future__ import annotations

import contextlib
import errno
import json
import platform
import shlex
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence

import click

from segship import __version__
from segship.cli import diff, lower, make, show, tune, use
from segship.core.errors import SegshipError

_BUILD_PACKAGES = ("jinja2", "onnx", "onnx_ir", "onnxscript", "pycocotools", "safetensors", "torch")
"""What only building needs; running an engine must work without."""

_FAULT = 70
"""EX_SOFTWARE of ``sysexits.h``."""

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(context_settings=_SETTINGS, no_args_is_help=True)
@click.version_option(__version__, prog_name="segship")
def cli() -> None:
    """From a trained segmentation checkpoint to a fast engine, with proof that it is still right.

    Exit codes: 0 done, 1 a verdict, build or run failed, 2 bad input, 70 a fault of segship itself, 130 interrupted.
    """


for _command in (*make.COMMANDS, *lower.COMMANDS, *tune.COMMANDS, *use.COMMANDS, *diff.COMMANDS, *show.COMMANDS):
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process with its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    with contextlib.suppress(ValueError):  # only the main thread may; a polite end request tidies up as Ctrl-C does
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(_run(words))


def _run(words: list[str]) -> int:
    try:
        return _called(words)
    except Exception as error:  # nothing that segship foresaw: a traceback on the terminal would help nobody but us
        return _failed(_fault(error, words), _FAULT, words)


def _fault(error: Exception, words: list[str]) -> str:
    """A sentence for what should not happen; the traceback goes to a file, or where none can be written to standard error."""
    where = f"segship {__version__}, Python {platform.python_version()}, {platform.platform()}"
    report = f"{where}\nsegship {shlex.join(words)}\n\n{''.join(traceback.format_exception(error))}"
    try:
        with tempfile.NamedTemporaryFile("w", prefix="segship-", suffix=".log", encoding="utf-8", delete=False) as file:
            file.write(report)
        kept = f"with {file.name}, which holds the traceback"
    except OSError:
        click.echo(report, err=True)
        kept = "with the traceback above"
    return f"this is a fault of segship itself ({type(error).__name__}: {_first_line(error)}): please report it {kept}"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _called(words: list[str]) -> int:
    try:
        result = cli.main(words, prog_name="segship", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except SegshipError as error:
        return _failed(str(error), error.exit_code, words)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.UsageError as error:
        hint = f" (see segship {error.ctx.info_name} --help)" if error.ctx and error.ctx.info_name != "segship" else ""
        return _failed(f"{error.format_message().rstrip('.')}{hint}", 2, words)
    except (KeyboardInterrupt, click.exceptions.Abort):
        return _failed("interrupted; nothing half-written was left; calibration and search go on where they stopped", 130, words)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _BUILD_PACKAGES:
            raise
        return _failed(f"this needs {error.name}, which is not installed: pip install 'segship[build]'", 2, words)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "can't allocate memory" not in str(error):  # PyTorch's words
            raise
        return _failed(f"this machine's memory is not enough ({_first_line(error)}): give smaller images", 1, words)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return _failed(
            f"the disk is full ({error.filename or 'no space left'}): free some space and run the command again", 2, words
        )


def _failed(sentence: str, code: int, words: list[str]) -> int:
    click.echo(f"segship: {sentence}", err=True)
    if "--json" in words:
        click.echo(json.dumps({"error": sentence, "exit_code": code}))
    return code
