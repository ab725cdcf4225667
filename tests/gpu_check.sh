#!/bin/sh
# gpu_check.sh: everything that needs a GPU, in one sitting: builds here with what is here (no network), then stage by stage.
#
#   tests/gpu_check.sh [OUT]          OUT: folder for logs and results.jsonl (default: $OUT, else ./gpu_check.out)
#
# Each stage is "ok", "failed", or "skipped" with the reason: what did not run is never reported as passed. Results are JSON
# lines in OUT/results.jsonl, a table is printed at the end. The exit status is the number of failed stages. Without a GPU
# all stages behind the build are skipped and the status is 0: nothing was shown to be wrong, and nothing to be right.
# Environment: PD_BUILD (build folder, default OUT/build), PD_JOBS (parallel jobs).
set -u
source=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-${OUT:-./gpu_check.out}}
mkdir -p "$out" || exit 99
out=$(cd "$out" && pwd)
build=${PD_BUILD:-$out/build}
jobs=${PD_JOBS:-$(nproc)}
results=$out/results.jsonl
: > "$results"
failed=0
table=""

# report STAGE STATE SECONDS NOTE
report() {
    note=$(printf '%s' "$4" | tr -d '\\"' | tr '\n\t' '  ' | cut -c1-300)
    printf '{"stage": "%s", "state": "%s", "seconds": %s, "note": "%s"}\n' "$1" "$2" "$3" "$note" >> "$results"
    table="$table$(printf '%-22s %-8s %6s s  %s' "$1" "$2" "$3" "$note")
"
    printf '%-22s %-8s %6s s  %s\n' "$1" "$2" "$3" "$note"
    [ "$2" = failed ] && failed=$((failed + 1))
    return 0
}

# stage NAME LIMIT COMMAND...: exit status 77 of the command means that it skipped itself. Its last line is the note.
stage() {
    name=$1 limit=$2
    shift 2
    begin=$(date +%s)
    timeout "$limit" "$@" > "$out/$name.log" 2>&1
    code=$?
    seconds=$(($(date +%s) - begin))
    note=$(grep -v '^ *$' "$out/$name.log" | tail -n 1)
    case $code in
    0) report "$name" ok "$seconds" "$note" ;;
    77) report "$name" skipped "$seconds" "$note" ;;
    124) report "$name" failed "$seconds" "not done within $limit s; $note" ;;
    *) report "$name" failed "$seconds" "exit status $code; $note" ;;
    esac
    return $code
}

skip() {
    report "$1" skipped 0 "$2"
}

# ---- what is here ----
{
    date -u
    uname -a
    nproc
    nvidia-smi 2>&1
    command -v nvcc && nvcc --version
} > "$out/environment.log" 2>&1
gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1)
if [ -n "$gpu" ]; then report environment ok 0 "$gpu"; else report environment skipped 0 "nvidia-smi tells of no GPU"; fi

# ---- build ----
archs=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d '.')
if [ -x "$build/tests/test_cuda" ] && [ -e "$build/lib/libparadise_cuda.so" ] && [ -n "${PD_BUILD:-}" ]; then
    report build ok 0 "already in $build"
else
    cat > "$out/build.sh" << END
set -e
cmake -S "$source" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DPD_CUDA=ON -DPD_CUDA_ARCHS="${archs:-90}"
cmake --build "$build" -j "$jobs" --target paradise_cuda test_cuda check_cudnn pd_info
END
    if command -v nvcc > /dev/null || [ -x /usr/local/cuda/bin/nvcc ]; then
        stage build 400 sh "$out/build.sh"
    else
        skip build "nvcc is not here"
    fi
fi

# ---- without a GPU ----
if [ -x "$build/tests/check_cudnn" ]; then
    stage cudnn_offline 300 "$build/tests/check_cudnn" cls_pd_b_r50
else
    skip cudnn_offline "check_cudnn was not built"
fi

# ---- with one ----
device=$("$build/bin/pd_info" --table --device cuda 2>&1 > /dev/null | tail -n 1)
if [ -z "$device" ] && [ -x "$build/bin/pd_info" ]; then
    stage parity 120 "$build/tests/test_cuda" conv
    stage parity_layers 120 "$build/tests/test_cuda" PD
    stage training_parity 120 "$build/tests/test_cuda" resnet
    stage graphs 60 "$build/tests/test_cuda" graph
    if command -v compute-sanitizer > /dev/null; then
        stage memcheck 120 compute-sanitizer --error-exitcode 1 "$build/tests/test_cuda" "grouped"
        stage racecheck 120 compute-sanitizer --tool racecheck --error-exitcode 1 "$build/tests/test_cuda" "PD-B"
        stage initcheck 120 compute-sanitizer --tool initcheck --error-exitcode 1 "$build/tests/test_cuda" "excite"
    else
        for s in memcheck racecheck initcheck; do skip $s "compute-sanitizer is not here"; done
    fi
else
    # a GPU that the programs cannot use is a failure; none at all is not
    [ -n "$gpu" ] && report device failed 0 "${device:-pd_info was not built}"
    for s in parity parity_layers training_parity graphs memcheck racecheck initcheck; do
        skip $s "no GPU: ${device:-pd_info was not built}"
    done
fi
# Stages that do not exist yet are named, so that nobody takes their absence for success.
for s in detectors_parity nccl_world_1 benchmark_ours benchmark_pytorch; do skip $s "not written yet"; done

printf '\n%s' "$table"
printf '%d stages failed; results in %s\n' "$failed" "$results"
exit "$failed"
