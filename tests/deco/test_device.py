"""Which machines compute in bfloat16."""

from __future__ import annotations

import pytest
import torch

from decodiff_pipeline.deco.device import resolve_bfloat16


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"architecture": "x86_64", "avx2": True, "avx512_bf16": False}, False),
        ({"architecture": "x86_64", "avx512_f": True}, False),
        ({"architecture": "x86_64", "avx512_bf16": True}, True),
        ({"architecture": "x86_64", "amx_bf16": True}, True),
        ({"architecture": "arm64", "bf16": True}, True),
    ],
)
def test_auto_is_what_the_processor_has(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, object], expected: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert resolve_bfloat16("auto", "cpu") is expected
    assert resolve_bfloat16(True, "cpu")  # obeyed
    assert not resolve_bfloat16(False, "cpu")


@pytest.mark.parametrize("emulated", [False, True])
def test_a_gpu_that_emulates_does_not_count(
    monkeypatch: pytest.MonkeyPatch, emulated: bool
) -> None:
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation: including_emulation or not emulated,
    )
    assert resolve_bfloat16("auto", "cuda") is not emulated
