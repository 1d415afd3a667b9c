"""CUDA libraries that compute nothing: MindSpore's GPU back end on a machine without a GPU.

Every function of CUDA that the back end calls returns 0, which is success; a few do what their
callers need. So graphs are compiled, kernels selected, memory planned and steps run to their end;
what does not compile for a GPU is found, and numbers mean nothing. Needs gcc and nm, on x86-64.

    python tests/cuda_stand_in.py FOLDER        # prints the variables to run under
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, Set

# What each needs beyond functions that return 0. The types are those of CUDA 11 as far as callers
# look: handles are pointers, enumerations are int.
HANDLE = "int {name}(void **handle) {{ *handle = calloc(1, 64); return 0; }}\n"
RUNTIME = r"""
/* cudaDeviceProp of CUDA 11: 728 bytes, the fields that are read at their places. */
static void at(char *properties, int offset, long value, int size) {
  memcpy(properties + offset, &value, size);
}
int cudaGetDeviceProperties(char *properties, int device) {
  memset(properties, 0, 728);
  strcpy(properties, "stand-in");
  at(properties, 288, 6l << 30, 8); /* totalGlobalMem */
  at(properties, 296, 49152, 8);    /* sharedMemPerBlock */
  at(properties, 308, 32, 4);       /* warpSize */
  at(properties, 320, 1024, 4);     /* maxThreadsPerBlock */
  for (int i = 0; i < 3; ++i) {
    at(properties, 324 + 4 * i, i < 2 ? 1024 : 64, 4);             /* maxThreadsDim */
    at(properties, 336 + 4 * i, i == 0 ? 2147483647 : 65535, 4);   /* maxGridSize */
  }
  at(properties, 360, 8, 4);    /* major */
  at(properties, 388, 108, 4);  /* multiProcessorCount */
  at(properties, 624, 2048, 4); /* maxThreadsPerMultiProcessor */
  return 0;
}
int cudaGetDeviceCount(int *count) { *count = 1; return 0; }
int cudaMemGetInfo(size_t *left, size_t *total) { *left = 3ul << 30; *total = 4ul << 30; return 0; }
int cudaMalloc(void **p, size_t size) { *p = calloc(1, size ? size : 1); return *p ? 0 : 2; }
int cudaHostAlloc(void **p, size_t size, unsigned flags) { return cudaMalloc(p, size); }
int cudaFree(void *p) { free(p); return 0; }
int cudaFreeHost(void *p) { free(p); return 0; }
int cudaMemcpyAsync(void *to, void *from, size_t size, int kind) {
  memcpy(to, from, size);
  /* What comes from the device (2) as one byte is a condition, which nothing computed: true. */
  if (kind == 2 && size == 1) memset(to, 1, 1);
  return 0;
}
int cudaMemcpy(void *to, void *from, size_t size, int kind) {
  return cudaMemcpyAsync(to, from, size, kind);
}
int cudaMemset(void *p, int value, size_t size) { memset(p, value, size); return 0; }
int cudaMemsetAsync(void *p, int value, size_t size) { memset(p, value, size); return 0; }
int cudaEventElapsedTime(float *ms) { *ms = 0.1f; return 0; }
const char *cudaGetErrorString(int error) { return "no error"; }
"""
DNN = r"""
/* cudnnConvolutionAlgoPerf_t: algorithm, status, time, memory, determinism, type, 3 reserved. */
typedef struct { int algorithm, status; float time; size_t memory; int rest[5]; } Plan;
#define PLANS(name) \
  int name(void *handle, void *a, void *b, void *c, void *d, int wanted, int *found, Plan *plan) { \
    memset(plan, 0, sizeof *plan); \
    plan->algorithm = 1; \
    *found = 1; \
    return 0; \
  }
PLANS(cudnnGetConvolutionForwardAlgorithm_v7)
PLANS(cudnnGetConvolutionBackwardDataAlgorithm_v7)
PLANS(cudnnGetConvolutionBackwardFilterAlgorithm_v7)
/* Bytes of work space: the last argument. */
#define BYTES(name, ...) int name(__VA_ARGS__, size_t *bytes) { *bytes = 256; return 0; }
typedef void *P;
BYTES(cudnnGetConvolutionForwardWorkspaceSize, P h, P x, P w, P c, P y, int algorithm)
BYTES(cudnnGetConvolutionBackwardDataWorkspaceSize, P h, P w, P dy, P c, P dx, int algorithm)
BYTES(cudnnGetConvolutionBackwardFilterWorkspaceSize, P h, P x, P dy, P c, P dw, int algorithm)
BYTES(cudnnGetTensorSizeInBytes, P h)
BYTES(cudnnGetFilterSizeInBytes, P h)
BYTES(cudnnDropoutGetStatesSize, P h)
BYTES(cudnnGetReductionWorkspaceSize, P h, P r, P a, P c)
BYTES(cudnnGetReductionIndicesSize, P h, P r, P a, P c)
BYTES(cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize,
      P h, int mode, int op, P x, P z, P y, P norm, P activation)
BYTES(cudnnGetBatchNormalizationBackwardExWorkspaceSize,
      P h, int mode, int op, P x, P y, P dy, P dz, P dx, P norm, P activation)
BYTES(cudnnGetBatchNormalizationTrainingExReserveSpaceSize, P h, int mode, int op, P act, P x)
"""
OWN = {"libcudart.so.11.0": RUNTIME, "libcudnn.so.8": DNN}
PLUGIN = "libmindspore_gpu.so.11.6"
NVCC = "#!/bin/sh\necho 'Cuda compilation tools, release 11.6, V11.6.124'\n"


def plugin_folder() -> Path:
    """Of the installed wheel."""
    spec = importlib.util.find_spec("mindspore")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "lib" / "plugin"


def symbols(library: Path, kind: str) -> List[str]:
    """Names `nm` gives, with their version after an @."""
    command = ["nm", "-D", f"--{kind}", str(library)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [line.split()[-1] for line in lines]


def needed_functions(plugins: Path) -> Dict[str, Set[str]]:
    """Library -> the functions that MindSpore's plugin asks of it."""
    plugin, kernels = plugins / PLUGIN, plugins / "gpu" / "libcuda_ops.so.11"
    undefined = symbols(plugin, "undefined")
    kernel_names = set(symbols(kernels, "defined-only"))
    found: Dict[str, Set[str]] = {"libcuda_ops.so.11": set(undefined) & kernel_names}
    # Without a version: of the driver (cuXxx), cuBLAS's and cuFFT's. Whoever has them is asked.
    for symbol in undefined:
        name, _, library = symbol.partition("@")
        if library.startswith(("libcu", "libnvrtc")):
            found.setdefault(library, set()).add(name)
        elif name.startswith("cublas"):
            found.setdefault("libcublas.so.11", set()).add(name)
        elif name.startswith("cufft"):
            found.setdefault("libcufft.so.10", set()).add(name)
        elif name.startswith("cu") and name[2:3].isupper():
            found.setdefault("libcuda.so.1", set()).add(name)
    return found


def source(library: str, names: Set[str]) -> str:
    """C of a library whose functions return 0, but for those in `OWN` and those that create."""
    own = OWN.get(library, "")
    lines = ["#include <stdlib.h>", "#include <string.h>", own, "static int zero() { return 0; }"]
    for name in sorted(names):
        if re.search(rf"\b{name}\b", own):
            continue
        if "Create" in name and name.startswith("cu"):
            lines.append(HANDLE.format(name=name))
        else:
            lines.append(f'int {name}() __attribute__((alias("zero")));')
    return "\n".join(lines) + "\n"


def build(folder: Path) -> Dict[str, str]:
    """Makes the libraries in `folder`; returns the variables of a process that is to use them."""
    for library, names in needed_functions(plugin_folder()).items():
        code, versions = folder / f"{library}.c", folder / f"{library}.map"
        code.write_text(source(library, names), encoding="utf-8")
        versions.write_text(f"{library} {{ global: *; }};\n", encoding="utf-8")
        command = ["gcc", "-w", "-shared", "-fPIC", f"-Wl,-soname,{library}", str(code)]
        command += [f"-Wl,--version-script={versions}", "-o", str(folder / library)]
        subprocess.run(command, check=True)
    compiler = folder / "bin" / "nvcc"
    compiler.parent.mkdir(exist_ok=True)
    compiler.write_text(NVCC, encoding="utf-8")
    compiler.chmod(0o755)
    inherited = os.environ.get("LD_LIBRARY_PATH")
    return {
        "CUDA_HOME": str(folder),
        "LD_LIBRARY_PATH": f"{folder}:{inherited}" if inherited else str(folder),
        # The wheel's own would be found first.
        "LD_PRELOAD": str(folder / "libcuda_ops.so.11"),
    }


if __name__ == "__main__":
    for variable, value in build(Path(sys.argv[1]).resolve()).items():
        print(f"export {variable}={value}")
