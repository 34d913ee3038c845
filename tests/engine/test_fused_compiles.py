"""The kernels through Triton's compiler, which takes less than its interpreter, for a GPU that need not be there."""

from __future__ import annotations

import inspect
import os

import pytest
import torch

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("Triton was told to interpret everything", allow_module_level=True)

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from dynconv_plugins.kernels import launch, tiles
from dynconv_plugins.kernels.compiling import kernel
from dynconv_plugins.kernels.convolve import convolve
from dynconv_plugins.kernels.correlate import correlate

HOPPER = GPUTarget("cuda", 90, 32)
SHARED_MEMORY = 227 * 1024
POINTERS = {"x", "w", "a", "s", "c", "f", "y", "gy"}
SUMS = {"gw", "ga", "gs", "gc", "gf"}
ONE = {"xc", "yc", "gch", "wr", "wi", "n0", "o0", "t0", "stride0", "step0", "groups"}
FLAGS = dict.fromkeys(("HAS_A", "HAS_S", "HAS_C", "HAS_F"), True)
ALL = dict.fromkeys(("FOR_W", "FOR_A", "FOR_S", "FOR_C", "FOR_F"), True)


@pytest.fixture(autouse=True)
def really_compiled(monkeypatch, tmp_path):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def compiled(function, dtype: str, constants: dict, warps: int, stages: int):
    """For channels last in two dimensions: channels lie side by side, and every other stride is divisible by 16."""
    signature, values, attributes = {}, {}, {}
    for i, name in enumerate(inspect.signature(function).parameters):
        if name in constants or name in ONE:
            signature[name], values[(i,)] = "constexpr", constants.get(name, 1)
            continue
        signature[name] = f"*{dtype}" if name in POINTERS else "*fp32" if name in SUMS else "i32"
        attributes[(i,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel(function), signature, values, attributes)
    return triton.compile(source, target=HOPPER, options={"num_warps": warps, "num_stages": stages})


@pytest.mark.parametrize(
    ("tile", "shared"), [*((t, False) for t in tiles.CONVOLVE), *((t, True) for t in tiles.CONVOLVE[::3])], ids=str
)
def test_convolve(tile, shared):
    bm, bn, br, warps, stages = tile
    constants = FLAGS | {"K": 4, "SHARED": shared, "PRECISION": "ieee", "WIDEN": False, "BM": bm, "BN": bn, "BR": br}
    binary = compiled(convolve, "bf16", constants, warps, stages)
    assert binary.metadata.shared <= SHARED_MEMORY
    # Tiles are fetched 16 bytes a thread, ahead of the products that take them.
    assert "cp.async.cg" in binary.asm["ptx"]
    assert "wgmma" in binary.asm["ptx"] or bm < 64


@pytest.mark.parametrize(("kernels", "dtype"), [(1, "bf16"), (4, "bf16"), (4, "fp32"), (8, "fp16")])
def test_correlate(kernels, dtype):
    tile = tiles.correlate_tile(kernels, 512, 512, 49, dtype == "fp32", small=False)
    constants = FLAGS | ALL | {"K": kernels, "PRECISION": "tf32" if dtype == "fp32" else "ieee", "WIDEN": False}
    constants |= {"BO": tile.BO, "BI": tile.BI, "BP": tile.BP}
    binary = compiled(correlate, dtype, constants, tile.warps, tile.stages)
    assert binary.metadata.shared <= SHARED_MEMORY
    assert "mma" in binary.asm["ptx"]


def test_the_last_tile_fits_where_others_do_not():
    """Deterministic mode has no other choice: 16 kernels of 32-bit numbers."""
    options = launch._config(tiles.CONVOLVE[-1]).all_kwargs()
    warps, stages = options.pop("num_warps"), options.pop("num_stages")
    sizes = {name: options[name] for name in ("BM", "BN", "BR")}
    constants = FLAGS | {"K": 16, "SHARED": False, "PRECISION": "tf32", "WIDEN": False} | sizes
    assert compiled(convolve, "fp32", constants, warps, stages).metadata.shared <= SHARED_MEMORY


def test_tiles_that_are_timed():
    """Every row of the table is tried on a wide layer, and something on the narrowest one that is supported."""
    tuned = launch._tuned(0)
    assert len(tuned.configs) == len(tiles.CONVOLVE)
    wide, narrow = (launch._fitting(tuned.configs, {"M": m, "R": m}) for m in (512, 16))
    assert len(wide) == len(tiles.CONVOLVE)
    assert 0 < len(narrow) < len(wide)
    assert all(c.kwargs["BM"] <= 32 and c.kwargs["BR"] <= 32 for c in narrow)


def test_another_batch_may_take_another_tile():
    """One that a few samples chose says nothing of a batch that fills the device; nearly equal ones share it."""
    few, many, fewer = (launch._launched(batch * 56 * 56)[0] for batch in (4, 256, 200))
    assert few is not many and many is fewer
    assert few.fn is many.fn  # what is compiled for one serves the other


def test_single_precision_goes_by_the_setting_of_convolutions():
    """As the static network's convolutions do; that of matrix products is another one's."""
    was = torch.get_float32_matmul_precision()
    try:
        for allowed, precision, products in ((True, "tf32", "highest"), (False, "ieee", "high")):
            torch.set_float32_matmul_precision(products)
            with torch.backends.cudnn.flags(allow_tf32=allowed):
                assert launch._numbers(torch.float32)["PRECISION"] == precision
                assert launch._numbers(torch.bfloat16)["PRECISION"] == "ieee"
    finally:
        torch.set_float32_matmul_precision(was)
