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
cmake --build "$build" -j "$jobs" --target paradise_cuda test_cuda test_nccl check_cudnn pd_info bench_train bench_infer bench_detect
END
    if command -v nvcc > /dev/null || [ -x /usr/local/cuda/bin/nvcc ]; then
        stage build 400 sh "$out/build.sh"
    else
        skip build "nvcc is not here"
    fi
fi

# PyTorch's side of the benchmark: ResNet-50 and PD-A-ResNet-50, AMP (bfloat16), channels_last; one JSON line a network.
cat > "$out/torch_baseline.py" << 'END'
import json, statistics, sys, torch, torchvision, torch.nn as nn
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


last = "nothing ran"
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
        opt.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16):
            loss = nn.functional.cross_entropy(run(x), t)
        loss.backward()
        opt.step()
        if device == "cuda":
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end))
    if device == "cuda":
        ms = statistics.median(times[10:])
        last = json.dumps({"torch": torch.__version__, "how": how, "net": name, "batch": batch, "ms": ms, "img_s": 1000 * batch / ms})
        print(last, flush=True)
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
    m = RetinaNet(resnet_fpn_backbone("resnet50", returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(2048, 256), **norm), 80,
                  min_size=h, max_size=w, score_thresh=0.0)
else:
    m = FasterRCNN(resnet_fpn_backbone("resnet50", **norm), 81, min_size=h, max_size=w)
m = m.to(device, memory_format=torch.channels_last)
images = [torch.rand(3, h, w, device=device) for _ in range(batch)]
corner = torch.rand(12, 2, device=device) * torch.tensor([w * 0.7, h * 0.7], device=device)
boxes = torch.cat([corner, corner + 16 + 0.28 * h * torch.rand(12, 1, device=device)], 1)
targets = [{"boxes": boxes, "labels": torch.randint(1, 80, (12,), device=device)} for _ in range(batch)]
opt = torch.optim.SGD([p for p in m.parameters() if p.requires_grad], 1e-5, momentum=0.9, weight_decay=1e-4)


def clock(work):
    times = []
    for i in range(4 + runs):
        begin = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return statistics.median(times[4:]) * 1000


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
    stage detector_ops 120 sh -c 'for f in anchors assign sample targets proposals detections pick_deltas; do "$1" $f || exit; done' \
        sh "$build/tests/test_cuda"
    stage retinanet_parity 90 "$build/tests/test_cuda" retinanet
    stage cascade_parity 120 "$build/tests/test_cuda" cascade_rcnn
    stage graphs 60 "$build/tests/test_cuda" graph
    stage nccl_world_1 60 "$build/tests/test_nccl"
    if command -v compute-sanitizer > /dev/null; then
        stage memcheck 120 compute-sanitizer --error-exitcode 1 "$build/tests/test_cuda" "grouped"
        stage racecheck 120 compute-sanitizer --tool racecheck --error-exitcode 1 "$build/tests/test_cuda" "PD-B"
        stage racecheck_lists 120 compute-sanitizer --tool racecheck --error-exitcode 1 "$build/tests/test_cuda" "proposals"
        stage initcheck 120 compute-sanitizer --tool initcheck --error-exitcode 1 "$build/tests/test_cuda" "excite"
    else
        for s in memcheck racecheck racecheck_lists initcheck; do skip $s "compute-sanitizer is not here"; done
    fi
    for net in resnet50 pd_a_resnet50 pd_b_resnet50; do
        stage "train_$net" 60 "$build/bin/bench_train" $net --device cuda --size 224 --batch 256 --rounds 3 --wait 0 --no-peers
        for n in 1 32; do
            stage "infer_${net}_$n" 30 "$build/bin/bench_infer" $net --device cuda --size 224 --batch $n --rounds 5 --wait 0 --no-peers
        done
    done
    for net in retinanet cascade_rcnn faster_rcnn; do
        for n in 2 8; do
            stage "bench_${net}_$n" 90 "$build/bin/bench_detect" $net --device cuda --batch $n
        done
    done
    if python3 -c 'import torch, torchvision, sys; sys.exit(not torch.cuda.is_available())' 2> /dev/null; then
        stage torch_eager 90 python3 "$out/torch_baseline.py" eager
        stage torch_compile 180 python3 "$out/torch_baseline.py" compile
        for n in 2 8; do
            stage torch_retinanet_$n 60 python3 "$out/torch_detectors.py" retinanet $n
            stage torch_faster_rcnn_$n 60 python3 "$out/torch_detectors.py" faster_rcnn $n
        done
    else
        for s in torch_eager torch_compile torch_retinanet torch_faster_rcnn; do skip $s "python3 has no torch, torchvision that see the GPU"; done
    fi
else
    # a GPU that the programs cannot use is a failure; none at all is not
    [ -n "$gpu" ] && report device failed 0 "${device:-pd_info was not built}"
    for s in parity parity_layers training_parity detector_ops retinanet_parity cascade_parity graphs nccl_world_1 memcheck racecheck \
        racecheck_lists initcheck train_resnet50 train_pd_a_resnet50 \
        train_pd_b_resnet50 infer_resnet50 infer_pd_a_resnet50 infer_pd_b_resnet50 bench_retinanet \
        bench_cascade_rcnn bench_faster_rcnn torch_eager torch_compile torch_retinanet torch_faster_rcnn; do
        skip $s "no GPU: ${device:-pd_info was not built}"
    done
fi
# Stages that do not exist yet are named, so that nobody takes their absence for success.
for s in real_training; do skip $s "not written yet"; done

printf '\n%s' "$table"
printf '%d stages failed; results in %s\n' "$failed" "$results"
exit "$failed"
