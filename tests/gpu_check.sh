#!/bin/sh
# gpu_check.sh: everything that needs a GPU, in one sitting: builds here with what is here (no network), then stage by stage.
#
#   tests/gpu_check.sh [OUT]          OUT: folder for logs and results.jsonl (default: $OUT, else ./gpu_check.out)
#
# Each stage is "ok", "failed", or "skipped" with the reason: what did not run is never reported as passed. A stage says what
# it is about to run, and what came of it; its output is OUT/STAGE.log. Results are JSON lines in OUT/results.jsonl, written
# one by one; a table is printed at the end. The exit status is the number of failed stages. Without a GPU all stages behind
# the build are skipped and the status is 0: nothing was shown to be wrong, and nothing to be right.
# Environment:
#   PD_BUILD   build folder (default SOURCE/build/gpu_check). One without CMakeCache.txt is taken as it is: bin, lib, tests
#   PD_ONLY    extended regular expression: only stages whose names match it, as "build|parity.*"
#   PD_JOBS    parallel jobs of the build
#   PD_SMALL   not empty: tiny benchmarks, PyTorch's on the CPU: to try this script itself
set -u
source=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-${OUT:-./gpu_check.out}}
mkdir -p "$out" || exit 99
out=$(cd "$out" && pwd)
build=${PD_BUILD:-$source/build/gpu_check}
jobs=${PD_JOBS:-$(nproc)}
results=$out/results.jsonl
: > "$results"
failed=0
table=""

# report STAGE STATE SECONDS NOTE
report() {
    note=$(printf '%s' "$4" | tr '\n\t' '  ' | LC_ALL=C tr -d '\\"' | LC_ALL=C tr -cd '[:print:]' | cut -c1-300)
    printf '{"stage": "%s", "state": "%s", "seconds": %s, "note": "%s"}\n' "$1" "$2" "$3" "$note" >> "$results"
    table="$table$(printf '%-22s %-8s %6s s  %s' "$1" "$2" "$3" "$note")
"
    printf '%-22s %-8s %6s s  %s\n' "$1" "$2" "$3" "$note"
    [ "$2" = failed ] && failed=$((failed + 1))
    return 0
}

wanted() {
    printf '%s\n' "$1" | grep -Eqx "${PD_ONLY:-.*}"
}

skip() {
    wanted "$1" && report "$1" skipped 0 "$2"
}

# stage NAME LIMIT COMMAND...: exit status 77 of the command means that it skipped itself. Its last line is the note.
stage() {
    name=$1 limit=$2
    shift 2
    wanted "$name" || return 77
    case $1 in
    */*) [ -x "$1" ] || { skip "$name" "$1 was not built" && return 77; } ;;
    esac
    printf '%-22s ...      at most %s s: %s\n' "$name" "$limit" "$*"
    begin=$(date +%s)
    timeout -k 10 "$limit" "$@" > "$out/$name.log" 2>&1
    code=$?
    seconds=$(($(date +%s) - begin))
    note=$(grep -v '^ *$' "$out/$name.log" | tail -n 1)
    case $code in
    0) report "$name" ok "$seconds" "$note" ;;
    77) report "$name" skipped "$seconds" "$(grep -i skip "$out/$name.log" | head -n 1)" ;;
    124 | 137) report "$name" "$otherwise" "$seconds" "not done within $limit s; $note" ;;
    *) report "$name" "$otherwise" "$seconds" "exit status $code; $note" ;;
    esac
    return $code
}
otherwise=failed

# A stage that is not ours: where it fails, there is nothing to compare with, and nothing of ours is wrong.
peer() {
    otherwise=skipped
    stage "$@"
    otherwise=failed
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
cat > "$out/build.sh" << END
set -e
cmake -S "$source" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DPD_CUDA=ON -DPD_CUDA_ARCHS="${archs:-90}"
cmake --build "$build" -j "$jobs"
END
why=""
if [ -d "$build" ] && [ ! -e "$build/CMakeCache.txt" ]; then
    skip build "the programs are taken as they lie in $build"
elif command -v nvcc > /dev/null || [ -x /usr/local/cuda/bin/nvcc ]; then
    stage build 560 sh "$out/build.sh"
    case $? in 0 | 77) ;; *) why="the build failed" ;; esac # what an earlier build left is not looked at
else
    skip build "nvcc is not here"
fi

# PyTorch's side of the benchmark: ResNet-50 and PD-A-ResNet-50, AMP (bfloat16), channels_last; one JSON line a network.
cat > "$out/torch_baseline.py" << 'END'
import json, statistics, sys, time, torch, torchvision, torch.nn as nn
how, device = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "cuda"
size, batch, runs = (224, 256, 30) if device == "cuda" else (32, 2, 2)


class PDA(nn.Module):
    def __init__(s, c):
        super().__init__()
        f = lambda k, p, g=1: nn.Sequential(nn.Conv2d(c.in_channels, c.out_channels, k, c.stride, p, groups=g, bias=False),
                                            nn.BatchNorm2d(c.out_channels))
        s.b = nn.ModuleList([f(3, 1), f(3, 1), f((3, 1), (1, 0)), f((1, 3), (0, 1)), f(3, 1, 64)])

    def forward(s, x):
        return sum((m(x) for m in s.b[1:]), s.b[0](x))


def network(pd):
    m = torchvision.models.resnet50(weights=None)
    for b in [b for b in m.modules() if pd and hasattr(b, "conv2")]:
        b.conv2, b.bn2 = PDA(b.conv2), nn.Identity()
    return m.to(device, memory_format=torch.channels_last).train()


for name in "resnet50", "pd_a_resnet50":
    m = network(name.startswith("pd"))
    run = torch.compile(m) if how == "compile" else m
    x = torch.randn(batch, 3, size, size, device=device).to(memory_format=torch.channels_last)
    t = torch.randint(0, 1000, (batch,), device=device)
    opt = torch.optim.SGD(m.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)
    times = []
    for i in range(runs + 10 if device == "cuda" else runs):
        if device == "cuda":
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
        else:
            begin = time.perf_counter()
        opt.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16):
            loss = nn.functional.cross_entropy(run(x), t)
        loss.backward()
        opt.step()
        if device == "cuda":
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end))
        else:
            times.append(1000 * (time.perf_counter() - begin))
    ms = statistics.median(times[10 if device == "cuda" else 1:])
    print(json.dumps({"torch": torch.__version__, "how": how, "net": name, "batch": batch, "ms": ms, "img_s": 1000 * batch / ms}),
          flush=True)
END

# The same of detectors: torchvision's, with norms and first stage frozen as ours are, images of one size, 12 objects each.
cat > "$out/torch_detectors.py" << 'END'
import json, statistics, sys, time, torch
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
name, batch, device = sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "cuda"
h, w, runs = (800, 1344, 10) if device == "cuda" else (64, 96, 2)
norm = {"weights": None, "norm_layer": FrozenBatchNorm2d, "trainable_layers": 3}
if name == "retinanet":
    m = RetinaNet(resnet_fpn_backbone(backbone_name="resnet50", returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(2048, 256), **norm), 80,
                  min_size=h, max_size=w, score_thresh=0.0)
else:
    m = FasterRCNN(resnet_fpn_backbone(backbone_name="resnet50", **norm), 81, min_size=h, max_size=w)
m = m.to(device, memory_format=torch.channels_last)
images = [torch.rand(3, h, w, device=device) for _ in range(batch)]
corner = torch.rand(12, 2, device=device) * torch.tensor([w * 0.7, h * 0.7], device=device)
boxes = torch.cat([corner, corner + 16 + 0.28 * h * torch.rand(12, 1, device=device)], 1)
targets = [{"boxes": boxes, "labels": torch.randint(1, 80, (12,), device=device)} for _ in range(batch)]
opt = torch.optim.SGD([p for p in m.parameters() if p.requires_grad], 1e-5, momentum=0.9, weight_decay=1e-4)


def clock(work):
    times = []
    warm = 4 if device == "cuda" else 1
    for i in range(warm + runs):
        begin = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return statistics.median(times[warm:]) * 1000


def train():
    opt.zero_grad(set_to_none=True)
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        loss = sum(m(images, targets).values())
    loss.backward()
    opt.step()


def detect():
    with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        m(images)


for what, work in ("training", train), ("detection", detect):
    m.train(what == "training")
    ms = clock(work)
    print(json.dumps({"torch": torch.__version__, "net": name, "what": what, "batch": batch, "size": [h, w], "ms": ms,
                      "img_s": 1000 * batch / ms}), flush=True)
END

# A detector is pretrained, trained, folded and evaluated on drawn data, as on a CPU, where its AP is 0.46 to 0.47.
cat > "$out/demo.sh" << END
set -e
"$build/bin/pd_demo" "$out/demo" --configs "$source/configs"
grep -q "computing on cuda" "$out/demo.log" || { echo "it did not run on the GPU"; exit 1; }
awk '/^the same, folded/ { ap = \$4; print "AP " ap ", at least 0.40 is expected" } END { exit !(ap >= 0.40) }' "$out/demo.log"
END

# ---- without a GPU ----
if [ -z "$why" ]; then
    stage cudnn_offline 300 "$build/tests/check_cudnn" cls_pd_b_r50
else
    skip cudnn_offline "$why"
fi

# ---- with one ----
if [ -n "${PD_SMALL:-}" ]; then
    side=32 train_batch=2 batches=2 high=64 wide=96 detector_batches=1 rounds=1 torch_device=cpu
else
    side=224 train_batch=256 batches="1 32" high=800 wide=1344 detector_batches="2 8" rounds=5 torch_device=cuda
fi
classifiers="resnet50 pd_a_resnet50 pd_b_resnet50"
detectors="retinanet cascade_rcnn faster_rcnn"
usable=""
if [ -z "$why" ] && [ ! -x "$build/bin/pd_info" ]; then
    why="pd_info was not built"
elif [ -z "$why" ]; then
    why=$("$build/bin/pd_info" --table --device cuda 2>&1 > /dev/null) && usable=yes
fi
if [ -n "$usable" ]; then
    # the smallest first: what fails there explains the rest
    stage parity 200 "$build/tests/test_cuda" conv
    stage parity_layers 200 "$build/tests/test_cuda" PD
    stage parity_operations 500 "$build/tests/test_cuda" --operations
    stage training_parity 200 "$build/tests/test_cuda" resnet
    stage graphs 120 "$build/tests/test_cuda" graph
    stage retinanet_parity 400 "$build/tests/test_cuda" retinanet
    stage cascade_parity 400 "$build/tests/test_cuda" cascade_rcnn
    stage faster_parity 400 "$build/tests/test_cuda" faster_rcnn
    stage train_run 120 "$build/tests/test_cuda_train"
    stage nccl_world_1 60 "$build/tests/test_nccl"
    stage demo 560 sh "$out/demo.sh"
    for net in $classifiers; do
        stage "train_$net" 180 "$build/bin/bench_train" "$net" --device cuda --size "$side" --batch $train_batch --rounds 3 --wait 0 --no-peers
        for n in $batches; do
            stage "infer_${net}_$n" 120 "$build/bin/bench_infer" "$net" --device cuda --size "$side" --batch "$n" --rounds $rounds --wait 0 \
                --no-peers
        done
    done
    for net in $detectors; do
        for n in $detector_batches; do
            stage "bench_${net}_$n" 180 "$build/bin/bench_detect" "$net" --device cuda --height $high --width $wide --batch "$n" \
                --rounds $((2 * rounds))
        done
    done
    if python3 -c "import torch, torchvision, sys; sys.exit('$torch_device' == 'cuda' and not torch.cuda.is_available())" 2> /dev/null; then
        peer torch_eager 120 python3 "$out/torch_baseline.py" eager $torch_device
        peer torch_compile 240 python3 "$out/torch_baseline.py" compile $torch_device
        for n in $detector_batches; do
            peer "torch_retinanet_$n" 120 python3 "$out/torch_detectors.py" retinanet "$n" $torch_device
            peer "torch_faster_rcnn_$n" 120 python3 "$out/torch_detectors.py" faster_rcnn "$n" $torch_device
        done
    else
        for s in torch_eager torch_compile torch_retinanet torch_faster_rcnn; do
            skip $s "python3 has no torch and torchvision that see the GPU"
        done
    fi
    if command -v compute-sanitizer > /dev/null; then
        stage memcheck 300 compute-sanitizer --error-exitcode 1 "$build/tests/test_cuda" grouped
        stage racecheck 300 compute-sanitizer --tool racecheck --error-exitcode 1 "$build/tests/test_cuda" PD-B
        stage racecheck_lists 300 compute-sanitizer --tool racecheck --error-exitcode 1 "$build/tests/test_cuda" proposals
        stage initcheck 300 compute-sanitizer --tool initcheck --error-exitcode 1 "$build/tests/test_cuda" excite
    else
        for s in memcheck racecheck racecheck_lists initcheck; do skip $s "compute-sanitizer is not here"; done
    fi
else
    # a GPU that the programs cannot use is a failure; none at all is not
    why=$(printf '%s\n' "$why" | grep -v '^ *$' | tail -n 1)
    [ -n "$gpu" ] && report device failed 0 "$why"
    for s in parity parity_layers parity_operations training_parity graphs retinanet_parity cascade_parity faster_parity train_run \
        nccl_world_1 demo; do
        skip $s "$why"
    done
    for net in $classifiers; do
        skip "train_$net" "$why"
        for n in $batches; do skip "infer_${net}_$n" "$why"; done
    done
    for net in $detectors; do
        for n in $detector_batches; do skip "bench_${net}_$n" "$why"; done
    done
    for s in torch_eager torch_compile torch_retinanet torch_faster_rcnn memcheck racecheck racecheck_lists initcheck; do
        skip $s "$why"
    done
fi

printf '\n%s' "$table"
printf '%d stages failed; results in %s\n' "$failed" "$results"
exit "$failed"
