"""The kernels, in a process of their own: the interpreter has to be chosen before Triton is imported, and Triton
compiles functions by their source, so that none may be wrapped to check shapes.
"""

import os
import subprocess
import sys

import pytest
import torch

PROGRAM = """
import sys
import torch
from unveil_backbones.swin_attention import cosine_attention

torch.set_default_device(sys.argv[1])
tolerance = float(sys.argv[2])
# Twelve windows are more than the slices of the backward pass: some programs add up two.
for tokens, windows, groups in [(144, 2, 1), (36, 12, 2), (196, 1, 1)]:
    torch.manual_seed(0)
    heads = 2
    qkv = torch.randn(windows, tokens, 3, heads, 32, requires_grad=True)
    scale = torch.randn(heads, 1, 1, requires_grad=True)
    bias = torch.randn(heads, tokens, tokens, requires_grad=True)
    regions = None if groups == 1 else torch.arange(groups * tokens).view(groups, tokens).remainder(3).to(torch.int8)
    results = []
    for kind in ("plain", "triton"):
        found = cosine_attention(qkv, scale, bias, regions, kind=kind)
        weight = torch.linspace(-1, 1, found.numel()).view_as(found)
        results.append([found, *torch.autograd.grad((found * weight).sum(), (qkv, scale, bias))])
    for plain, ours in zip(*results):
        assert ((ours - plain).abs().max() / plain.abs().max()).item() < tolerance, (tokens, groups)
print("equal")
"""


def test_the_kernels_equal_plain_attention_for_windows_of_6_12_and_14():
    pytest.importorskip("triton", reason="triton is not installed; it comes with PyTorch for CUDA")
    assert run("cpu", 2e-5, {"TRITON_INTERPRET": "1"}).stdout == "equal\n"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_kernels_equal_plain_attention_on_a_gpu():
    assert run("cuda", 1e-3, {}).stdout == "equal\n"


def run(device, tolerance, environment):
    command = [sys.executable, "-c", PROGRAM, device, str(tolerance)]
    return subprocess.run(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=None, text=True, check=False
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("shifted", [False, True])
def test_fused_attention_on_a_gpu_equals_plain_attention(shifted):
    from unveil_backbones.swin_attention import cosine_attention

    torch.manual_seed(0)
    qkv = torch.randn(32, 144, 3, 4, 32, device="cuda", requires_grad=True)
    scale = torch.randn(4, 1, 1, device="cuda", requires_grad=True)
    bias = torch.randn(4, 144, 144, device="cuda", requires_grad=True)
    regions = torch.arange(4 * 144, device="cuda").view(4, 144).remainder(3).to(torch.int8) if shifted else None
    results = []
    for way in ("plain", "sdpa"):
        found = cosine_attention(qkv, scale, bias, regions, kind=way)
        weight = torch.linspace(-1, 1, found.numel(), device="cuda").view_as(found)
        results.append([found, *torch.autograd.grad((found * weight).sum(), (qkv, scale, bias))])
    for plain, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours / plain.abs().max(), plain / plain.abs().max(), atol=1e-3, rtol=0)
