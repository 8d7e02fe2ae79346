"""Where a number was measured and where an engine can run: processor, operating system, package versions."""

from __future__ import annotations

import math
import os
import platform
from functools import cache
from importlib import metadata
from pathlib import Path

import msgspec

_ISA_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_tile", "amx_int8")
"""Instruction sets that decide which kernels a CPU runtime picks, and thus both speed and INT8 rounding."""


class Processor(msgspec.Struct, frozen=True):
    """Architecture, model name and the instruction sets that matter to inference kernels."""

    architecture: str
    model: str
    instruction_sets: tuple[str, ...]
    cores: int


class Environment(msgspec.Struct, frozen=True):
    """The machine and the packages behind a measurement."""

    processor: Processor
    system: str
    python: str
    packages: dict[str, str]
    threads: int


def environment(packages: tuple[str, ...], threads: int) -> Environment:
    """This process's environment; ``packages`` that are not installed are left out."""
    return Environment(
        processor=processor(),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        packages={name: version for name in packages if (version := package_version(name))},
        threads=threads,
    )


def package_version(name: str) -> str | None:
    """Installed version of a distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def available_threads() -> int:
    """Processor cores that this process may use: by its affinity, and by its container's share of time, rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _container_cores(Path("/sys/fs/cgroup")) or cores)


def _container_cores(cgroup: Path) -> int | None:
    """What a container's quota allows (``docker run --cpus 2``, a Kubernetes limit); None without a quota.

    More threads than that are not run faster but stopped for most of every period.
    """
    try:
        if (cgroup / "cpu.max").is_file():  # version 2: "200000 100000" or "max 100000", microseconds
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return max(1, math.ceil(int(quota) / int(period))) if int(quota) > 0 else None
    except (OSError, ValueError):
        return None


def cache_folder() -> Path | None:
    """Where work worth keeping between runs lies: ``$XDG_CACHE_HOME/segship``, by default ``~/.cache/segship``.

    None where it cannot be written, as in many containers: then nothing is kept.
    """
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "segship"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: this user has no home
        return None
    return folder if os.access(folder, os.W_OK) else None


@cache
def processor() -> Processor:
    """The processor this process runs on. Instruction sets are read where Linux lists them, else left empty."""
    fields: dict[str, str] = {}
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    flags = set(fields.get("flags", "").split())
    return Processor(
        architecture=platform.machine(),
        model=fields.get("model name", platform.processor() or "unknown"),
        instruction_sets=tuple(flag for flag in _ISA_FLAGS if flag in flags),
        cores=available_threads(),
    )


def exact_weight_bits() -> int:
    """Bits of a weight that this processor multiplies with uint8 exactly: 7 on x86 without VNNI, whose ``vpmaddubsw`` adds two
    products in 16 bits; 8 elsewhere. Also 7 where an x86's instruction sets cannot be read."""
    here = processor()
    sums_in_32_bits = {"avx512_vnni", "avx_vnni"} & set(here.instruction_sets)
    return 8 if sums_in_32_bits or here.architecture.lower() not in ("x86_64", "amd64") else 7
