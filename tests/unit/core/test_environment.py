"""What is read of the processor."""

from __future__ import annotations

import pytest

from segship.core import environment
from segship.core.environment import Processor, exact_weight_bits


@pytest.mark.parametrize(
    ("architecture", "instruction_sets", "bits"),
    [
        ("x86_64", ("avx2", "avx512f", "avx512_vnni"), 8),
        ("x86_64", ("avx2", "avx_vnni"), 8),
        ("x86_64", ("avx2",), 7),
        ("x86_64", ("avx2", "avx512f"), 7),
        ("AMD64", (), 7),  # Windows lists no instruction sets: the safe side
        ("aarch64", (), 8),
    ],
)
def test_x86_without_vnni_multiplies_seven_bits_exactly(
    architecture: str, instruction_sets: tuple[str, ...], bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "processor", lambda: Processor(architecture, "any", instruction_sets, 2))
    assert exact_weight_bits() == bits
