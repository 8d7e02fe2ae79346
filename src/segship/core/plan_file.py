"""A precision plan as a TOML file that a person can read and edit."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import msgspec

from segship.core.errors import BadArgument
from segship.core.files import write_atomically
from segship.core.precision import Keep, PrecisionPlan, in_words

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_FORM = (
    'a plan has `default` ("fp32", "fp16", "bf16" or "int8"), if wanted `rest` (a float precision, for what INT8 cannot '
    "hold) and `recipe` (how its numbers are made), and for each exception a table `[[keep]]` with `where`, `precision` and "
    "`reason`, if wanted `effect_ms` and `effect_points`"
)

_HEADER = """\
# Precision plan: {words}.
# `where` is a module path (shell pattern) or op: and an ONNX operator; the last exception that covers a layer wins.
"""


def read_plan(path: Path | str) -> PrecisionPlan:
    """The plan in a file that :func:`write_plan` or a person wrote.

    Raises :class:`BadArgument` for a file that cannot be read, unknown keys or precisions, and missing reasons. Whether each
    exception covers something shows only beside a graph: :func:`segship.graph.plan.check_plan`.
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise BadArgument(f"cannot read the precision plan {path} ({error.strerror}): name a TOML file") from error
    except UnicodeDecodeError as error:
        raise BadArgument(f"the precision plan {path} is not text in UTF-8: name a TOML file") from error
    except tomllib.TOMLDecodeError as error:
        raise BadArgument(f"the precision plan {path} is not TOML ({error}): mend it there") from error
    try:
        plan = msgspec.convert(content, PrecisionPlan)
    except msgspec.ValidationError as error:
        raise BadArgument(f"the precision plan {path} cannot be used ({error}): {_FORM}") from error
    _check_finite(plan, path)
    return plan


def _check_finite(plan: PrecisionPlan, path: Path | str) -> None:
    """TOML knows inf and nan, a measured effect is neither."""
    for keep in plan.keep:
        for effect in (keep.effect_ms, keep.effect_points):
            if effect is not None and not math.isfinite(effect):
                raise BadArgument(
                    f"the precision plan {path} gives {keep.where!r} an effect of {effect}: write the number that was measured, "
                    "or leave it out"
                )


def write_plan(plan: PrecisionPlan, path: Path | str) -> None:
    """Write ``plan`` so that :func:`read_plan` gives an equal one. Raises :class:`segship.core.errors.StorageFailed`."""
    tables = [{"default": plan.default, "rest": plan.rest, "recipe": plan.recipe}, *(_table(keep) for keep in plan.keep)]
    blocks = ["".join(f"{key} = {_literal(value)}\n" for key, value in table.items() if value is not None) for table in tables]
    text = _HEADER.format(words=in_words(plan)) + "\n" + "\n[[keep]]\n".join(blocks)
    write_atomically(Path(path), text.encode())


def _table(keep: Keep) -> dict[str, Any]:
    return {name: getattr(keep, name) for name in keep.__struct_fields__}


def _literal(value: str | float) -> str:
    """A TOML string or number. JSON's strings are TOML's, but for DEL, which TOML wants escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f") if isinstance(value, str) else repr(float(value))
