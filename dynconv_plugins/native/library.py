"""Compiles the C sources once for this processor, keeps the result in the user's cache, and loads it."""

from __future__ import annotations

import atexit
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

SOURCES = Path(__file__).parent
REAL = {torch.float32: "float", torch.float64: "double"}
# The first that the compiler takes: Apple's clang has no OpenMP, and some ARM compilers no -march=native.
FLAGS = (["-march=native", "-fopenmp"], ["-mcpu=native", "-fopenmp"], ["-march=native"], [])


class Shape(ctypes.Structure):
    """What the C functions call a Shape, see blocks.h."""

    _fields_ = [
        *((name, ctypes.c_long) for name in ("batch", "kernels", "taps", "in_", "out", "groups", "src_rows")),
        *((name, ctypes.c_long) for name in ("dst_rows", "vectors", "threads")),
        *((name, ctypes.c_void_p) for name in ("from_", "to", "offset")),
    ]


class Strides(ctypes.Structure):
    """A weight's strides in elements, see pack.c."""

    _fields_ = [(name, ctypes.c_long) for name in ("kernel", "group", "out", "in_", "tap")]


class Unavailable(Exception):
    """Why there is no library on this machine."""


@functools.cache
def library(dtype: torch.dtype) -> ctypes.CDLL:
    """The functions for `dtype`.

    Raises:
        Unavailable: Without a C compiler, or switched off by ``DYNCONV_NATIVE=0``.
    """
    if os.environ.get("DYNCONV_NATIVE") == "0":
        raise Unavailable("switched off by DYNCONV_NATIVE=0")
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))), None)
    if compiler is None or platform.system() == "Windows":
        raise Unavailable("no C compiler (cc, gcc or clang) was found")
    sources = sorted(SOURCES.glob("*.[ch]"))
    # The processor is part of the name: a home directory may be shared by machines that differ.
    about = [compiler, REAL[dtype], _processor(), *(path.read_text() for path in sources)]
    name = f"{hashlib.sha256('|'.join(about).encode()).hexdigest()[:24]}.so"
    for folder in (_cache, _temporary):
        try:
            path = folder() / name
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                _compile(compiler, REAL[dtype], [p for p in sources if p.suffix == ".c"], path)
            return _typed(ctypes.CDLL(str(path)))
        except OSError as error:  # not writable, or mounted without the right to execute
            reason = error
    raise Unavailable(f"the compiled library cannot be kept: {reason}")


def unavailable(dtype: torch.dtype) -> str | None:
    """Why `library` raises for `dtype`, or ``None`` where it does not."""
    return _unavailable(dtype)


@functools.cache
def _unavailable(dtype: torch.dtype) -> str | None:
    if dtype not in REAL:
        return f"it computes in float32 and float64, not {str(dtype).removeprefix('torch.')}"
    try:
        library(dtype)
    except Unavailable as error:
        return str(error)
    return None


# A constant for the compiler: what torch.compiler.assume_constant_result sets, at the price of importing the compiler.
unavailable._dynamo_marked_constant = True


def _cache() -> Path:
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dynconv_plugins"
    except RuntimeError as error:  # no HOME, and no entry in the list of users either, as in some containers
        raise OSError(str(error)) from error


@functools.cache
def _temporary() -> Path:
    """A folder of this process alone: what lies under a name that others can foresee may be theirs, and is run."""
    folder = tempfile.mkdtemp(prefix="dynconv_plugins_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def _compile(compiler: str, real: str, sources: list[Path], path: Path) -> None:
    for flags in FLAGS:
        # Under another name first: processes that start together must never load half a file.
        handle, part = tempfile.mkstemp(dir=path.parent, suffix=".so")
        os.close(handle)
        command = [compiler, "-std=gnu11", "-O2", *flags, f"-DREAL={real}", "-shared", "-fPIC", *sources, "-o", part]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode == 0:
            os.replace(part, path)
            return
        os.unlink(part)
    lines = result.stderr.strip().splitlines() or [f"exit code {result.returncode}"]
    raise Unavailable(f"{compiler} cannot compile it: {lines[0]}")


def _typed(library: ctypes.CDLL) -> ctypes.CDLL:
    """Pointers must not pass as 32-bit integers, which is what ctypes assumes."""
    shape, pointer = ctypes.POINTER(Shape), ctypes.c_void_p
    library.convolve.argtypes = [shape] + [pointer] * 7
    library.gradient.argtypes = [shape] + [pointer] * 12
    library.pack.argtypes = library.unpack.argtypes = [shape, ctypes.POINTER(Strides), pointer, pointer]
    for name in ("gradient_pieces", "packed_size", "vectors_for", "width_of"):
        getattr(library, name).restype = ctypes.c_long
    library.gradient_pieces.argtypes = library.packed_size.argtypes = [shape]
    library.vectors_for.argtypes = library.width_of.argtypes = [ctypes.c_long]
    return library
