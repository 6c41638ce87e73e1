#!/usr/bin/env bash
# The C++ tests on processors that this machine is not: older x86 and 64-bit Arm, by qemu-user.
#
#   tests/cpp/run_emulated.sh [BUILD_DIR]     default: build/emulated
#
# Every machine must offer exactly the rows named here and give the same hashes of whole forward
# passes as this machine natively (forward_test), its kernels the sums of plain loops (kernel_test).
# Needs Linux on x86_64, g++-aarch64-linux-gnu and qemu-user. thread_pool_test stays out: qemu-user
# 7.2 itself fails when a forked child starts a thread.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:-build/emulated}
cmake=${CMAKE:-cmake}
mkdir -p "$build"
build=$(cd "$build" && pwd)

fail() {
  echo "emulation: $*" >&2
  exit 1
}

[ "$(uname -sm)" = "Linux x86_64" ] || fail "needs Linux on x86_64, this is $(uname -sm)"
for tool in qemu-aarch64 qemu-x86_64 aarch64-linux-gnu-g++; do
  command -v "$tool" >/dev/null || fail "$tool is missing: apt install qemu-user g++-aarch64-linux-gnu"
done

# compile NAME [cmake options]: static programs, so that no emulated machine needs libraries
compile() {
  local name=$1 log="$build/$1.log"
  shift
  echo "compiling for $name"
  {
    $cmake -S . -B "$build/$name" -DBITINFER_PYTHON=OFF -DBITINFER_TESTS=ON \
      -DBITINFER_STATIC_TESTS=ON "$@" &&
      $cmake --build "$build/$name" --parallel "$(nproc)" --target kernel_test forward_test pack_test
  } >"$log" 2>&1 || { tail -n 25 "$log" >&2; fail "$name does not compile (all of it in $log)"; }
}

# run MACHINE PROGRAM COMMAND...: stdout to $build/MACHINE.PROGRAM; the emulator's warnings are dropped
run() {
  local machine=$1 program=$2 out
  out="$build/$machine.$program"
  shift 2
  local code=0
  timeout 600 "$@" >"$out" 2>"$out.err" || code=$?
  [ "$code" -eq 0 ] || {
    { grep -v "TCG doesn't support" "$out.err" || true; } | tail -n 5 >&2
    fail "$program failed on $machine (exit code $code)"
  }
}

# try_logits MACHINE "ROWS" FOLDER [EMULATOR...]: the rows on offer, and the hashes
try_logits() {
  local machine=$1 rows=$2 programs="$build/$3/tests/cpp" got
  shift 3
  run "$machine" rows "$@" "$programs/kernel_test" --rows
  got=$(xargs <"$build/$machine.rows")
  [ "$got" = "$rows" ] || fail "$machine must offer the rows '$rows', offers '$got'"
  run "$machine" forward_test "$@" "$programs/forward_test"
  diff "$build/native.forward_test" "$build/$machine.forward_test" >&2 ||
    fail "logits on $machine (>) differ from those of this machine (<)"
  echo "$machine: logits agree on $rows"
}

# try_all MACHINE "ROWS" FOLDER [EMULATOR...]
try_all() {
  local machine=$1 programs="$build/$3/tests/cpp"
  try_logits "$@"
  shift 3
  run "$machine" kernel_test "$@" "$programs/kernel_test" --quick
  run "$machine" pack_test "$@" "$programs/pack_test"
  echo "$machine: kernels and packing are exact"
}

compile x86_64
compile aarch64 -DBITINFER_WERROR=ON "-DCMAKE_TOOLCHAIN_FILE=$PWD/tests/cpp/aarch64.cmake"
run native forward_test "$build/x86_64/tests/cpp/forward_test"

# glibc's own AVX2 memcpy and memset are ten times slower than its SSE2 ones here.
export GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX2,-AVX_Fast_Unaligned_Load

try_all haswell "avx2 sse41 scalar" x86_64 qemu-x86_64 -cpu Haswell &
haswell=$!
trap 'kill "$haswell" 2>/dev/null || true' EXIT
try_all armv8.6 "neoni8mm neondot neon scalar" aarch64 qemu-aarch64 -cpu max
try_logits neoverse-n1 "neondot neon scalar" aarch64 qemu-aarch64 -cpu neoverse-n1
try_logits cortex-a53 "neon scalar" aarch64 qemu-aarch64 -cpu cortex-a53
try_all nehalem "sse41 scalar" x86_64 qemu-x86_64 -cpu Nehalem
try_logits conroe "scalar" x86_64 qemu-x86_64 -cpu Conroe
# AVX2 in the CPU, but an operating system that does not save its registers
try_logits haswell-no-xsave "sse41 scalar" x86_64 qemu-x86_64 -cpu Haswell,-xsave
wait "$haswell" || exit 1
echo "emulated machines agree"
