#!/usr/bin/env bash
# What only a machine with a GPU can tell, in under 10 minutes: docs/gpu.md.
#
#   tools/gpu_check.sh [--cpu] [build|test|sanitize|bench ...]    no stage: all four
#
#   build      dgpose_ext._C and _C_cuda in place, for the GPU that is present
#   test       the tests of all ops, on the GPU and on the CPU
#   sanitize   the CUDA tests under compute-sanitizer: memcheck, and racecheck on a part
#   bench      python -m benchmarks.gpu
#
# Needs python3 with torch, and a C++ compiler; says at the start what else is missing. Logs, facts
# about the machine and results/gpu_<op>.json go to ${OUT:-build/gpu_check}. With --cpu, build, test
# and bench run without a GPU, the last on tiny inputs: to try this script.
#
# Exit status: 0 all passed, 1 a stage failed, 2 something is missing.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

export PYTHONPATH="$PWD:$PWD/python${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
python=${PYTHON:-python3}
out=${OUT:-build/gpu_check}
device=cuda
stages=()
for argument in "$@"; do
  case $argument in
    --cpu) device=cpu ;;
    build | test | sanitize | bench) stages+=("$argument") ;;
    *)
      echo "error: a stage must be one of build, test, sanitize, bench, got '$argument'" >&2
      exit 2
      ;;
  esac
done
if [ ${#stages[@]} -eq 0 ]; then
  stages=(build test bench)
  [ $device = cpu ] || stages=(build test sanitize bench)
fi

wanted() { [[ " ${stages[*]} " == *" $1 "* ]]; }

# ---- what is there ----

missing=()
need_command() { command -v "$1" >/dev/null || missing+=("$1"); }
need_package() { "$python" -c "import $1" 2>/dev/null || missing+=("the Python package $1"); }

need_command "$python"
need_package torch
if [ $device = cuda ]; then
  "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null ||
    missing+=("a GPU that torch sees")
fi
if wanted build; then
  for name in c++ cmake ninja; do need_command $name; done
  for name in setuptools pybind11; do need_package $name; done
  [ $device = cpu ] || need_command nvcc
fi
if wanted test || wanted sanitize; then need_package pytest; fi
if wanted sanitize; then
  for name in nvcc compute-sanitizer; do need_command $name; done
  [ $device = cuda ] || missing+=("a GPU: sanitize does not go with --cpu")
fi
if [ ${#missing[@]} -gt 0 ]; then
  printf 'error: missing: %s\n' "${missing[@]}" >&2
  exit 2
fi
for name in triton hypothesis; do
  "$python" -c "import $name" 2>/dev/null || echo "note: $name is not installed; its tests are left out"
done

mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd)
{
  command -v nvidia-smi >/dev/null &&
    nvidia-smi --query-gpu=name,driver_version,memory.total,compute_cap --format=csv
  command -v nvcc >/dev/null && nvcc --version | tail -n 2
  "$python" -c 'import sys, torch; print("python", sys.version.split()[0], "torch", torch.__version__)'
  git rev-parse HEAD 2>/dev/null
} | tee "$out/machine.txt"

# ---- the stages ----

build() {
  local architecture
  if [ $device = cpu ]; then
    DGPOSE_CUDA=0 "$python" setup.py build_ext --inplace
    return
  fi
  architecture=$("$python" -c \
    'import torch; print("{}{}-real".format(*torch.cuda.get_device_capability()))') || return
  DGPOSE_CUDA=1 DGPOSE_CUDA_ARCHITECTURES=$architecture "$python" setup.py build_ext --inplace
}

# Tests skip what is not built: here that is an error.
kernels_load() {
  [ $device = cpu ] || "$python" -c \
    'import sys; from dgpose_ext import _loader; sys.exit(_loader.why_no_cuda() or None)'
}

# The tests of all ops, but for files that need a package that is not here.
test_files() {
  "$python" - <<'PYTHON'
import importlib
import sys
from pathlib import Path

from dgpose_ext.testing import discover

sys.path.insert(0, "tests")
stems = ["cuda", "hand_net_cuda", "triton", "every_op", "gpu_benchmark", *(spec.name for spec in discover())]
for stem in stems:
    try:
        importlib.import_module(f"test_{stem}")
    except ModuleNotFoundError as error:
        print(f"left out: tests/test_{stem}.py needs {error.name}", file=sys.stderr)
    except BaseException:  # a skip, or an error that pytest shows better
        print(f"tests/test_{stem}.py")
    else:
        print(f"tests/test_{stem}.py")
PYTHON
}

run_tests() {
  local files parallel=
  kernels_load || return
  files=$(test_files) || return
  "$python" -c 'import xdist' 2>/dev/null && parallel="-n 8 --dist loadfile"
  # shellcheck disable=SC2086  # one word a file, or an option
  "$python" -m pytest -q -p no:cacheprovider --durations=10 $parallel $files
}

# sanitizer TOOL COMMAND ...: on the kernels of namespace dgpose alone; status 99 for what it finds.
sanitizer() {
  local tool=$1
  shift
  compute-sanitizer --tool "$tool" --kernel-name kns=dgpose --error-exitcode 99 "$@"
}

# A sanitizer that cannot see a planted error proves nothing by its silence.
try_sanitizer() {
  local tool=$1 folder
  folder=$(mktemp -d) || return
  cat >"$folder/planted.cu" <<'CUDA'
namespace dgpose {
__global__ void memcheck(int* x) { x[threadIdx.x + 1] = 1; }
__global__ void racecheck(int* x) {  // no __syncthreads() between two warps
  __shared__ int values[64];
  values[threadIdx.x] = x[threadIdx.x];
  x[threadIdx.x] = values[63 - threadIdx.x];
}
}  // namespace dgpose
int main() {
  int* x;
  cudaMalloc(&x, 64 * sizeof(int));
  dgpose::TOOL<<<1, 64>>>(x);
  return cudaDeviceSynchronize() == cudaSuccess ? 0 : 1;
}
CUDA
  nvcc -arch=native -DTOOL="$tool" -o "$folder/planted" "$folder/planted.cu" || return
  sanitizer "$tool" "$folder/planted" >"$folder/log" 2>&1
  if [ $? -ne 99 ]; then
    cat "$folder/log"
    echo "error: $tool did not see a planted error"
    return 1
  fi
  rm -r "$folder"
}

# Without the caching allocator, whose large blocks hide what lies outside a tensor.
sanitize_with() {
  local tool=$1 tests=$2
  kernels_load || return
  try_sanitizer "$tool" || return
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 sanitizer "$tool" "$python" -m pytest \
    -q -p no:cacheprovider tests/test_cuda.py tests/test_hand_net_cuda.py -k "$tests"
}
memcheck() { sanitize_with memcheck "equals_reference or hostile"; }
racecheck() { sanitize_with racecheck "gradients or hostile"; }

run_bench() {
  if [ $device = cpu ]; then
    "$python" -m benchmarks.gpu --device cpu --batch 1 --rounds 2 --no-compile --out "$out/results"
  else
    "$python" -m benchmarks.gpu --out "$out/results"
  fi
}

failed=()
# stage NAME SECONDS FUNCTION: into a log, with a limit; a failure is remembered.
stage() {
  local name=$1 seconds=$2 function=$3 start=$SECONDS status
  echo "=== $name"
  timeout --kill-after=5 "$seconds" bash -c "$function" 2>&1 | tee "$out/$name.log"
  status=${PIPESTATUS[0]}
  if [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then
    echo "error: $name did not end within $seconds s" | tee -a "$out/$name.log"
  fi
  [ "$status" -eq 0 ] || failed+=("$name")
  echo "=== $name: status $status, $((SECONDS - start)) s"
}
export python device out
export -f build kernels_load run_tests test_files run_bench memcheck racecheck sanitize_with try_sanitizer sanitizer

if wanted build; then
  stage build 150 build
  [ ${#failed[@]} -eq 0 ] || exit 1
fi
if wanted test; then stage test 170 run_tests; fi
if wanted sanitize; then
  stage memcheck 70 memcheck
  stage racecheck 50 racecheck
fi
if wanted bench; then stage bench 150 run_bench; fi

if [ ${#failed[@]} -gt 0 ]; then
  echo "failed: ${failed[*]}; see $out"
  exit 1
fi
echo "all passed in $SECONDS s; see $out"
