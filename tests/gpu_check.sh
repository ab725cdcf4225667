#!/bin/sh
# gpu_check.sh: everything that needs a GPU, in one sitting: builds here with what is here (no network), then stage by stage.
#
#   tests/gpu_check.sh [OUT]          OUT: folder for logs and results (default: $OUT, else ./gpu_check.out)
#
# Each stage is "ok", "failed", or "skipped" with the reason: what did not run is never reported as passed. A stage says what
# it is about to run, and what came of it; its output is OUT/STAGE.log. The exit status is the number of failed stages.
# Without a GPU all stages behind the build are skipped and the status is 0: nothing was shown to be wrong, and nothing to be
# right. A stage has a limit of its own; all together have PD_BUDGET seconds, and the important ones come first: what is left
# then is "skipped: time is up". PD_REST takes it up in another call.
#
# OUT/results.jsonl   stages, a line each, as they end
# OUT/bench.jsonl     what was measured, ours (side "paradise") and PyTorch's ("torch"), a line each
# OUT/table.txt       ours beside PyTorch's best, with the targets; printed at the end
# OUT/results.json    all of it in one object
# OUT/device.json     cuDNN's own description of this GPU, to take the place of tests/golden/cuda/h100.json
#
# What is measured, on both sides, the median of several turns:
#   training    the better of bf16 and fp16 (PyTorch: bf16, autocast, channels_last, fused SGD), turns of steps with a wait
#               at the end. Our images come from host memory in every step; PyTorch's lie on the GPU already, which is to its
#               advantage
#   inference   floats in host memory (PyTorch's pinned, ours not) to logits in host memory: folded, that is, for PyTorch,
#               batch norms folded into convolutions, weights in bf16; PD-A folded is ResNet-50. The best of eager and
#               torch.compile, plain and with CUDA graphs (mode reduce-overhead)
#   network     the same without the two transfers: runs in a row, with a wait at the end
#   detection   images on the host (ours; PyTorch's on the GPU) to boxes
#
# Environment:
#   PD_BUILD   build folder (default SOURCE/build/gpu_check). One without CMakeCache.txt is taken as it is: bin, lib, tests
#   PD_ONLY    extended regular expression: only stages whose names match it, as "build|parity.*"
#   PD_REST    not empty: only stages that OUT/results.jsonl does not call ok; what was measured stays
#   PD_BUDGET  seconds for all stages (480)
#   PD_JOBS    parallel jobs of the build
#   PD_SMALL   not empty: tiny benchmarks, PyTorch's on the CPU: to try this script itself
#   CMAKE_PREFIX_PATH   as CMake has it: where libraries lie that are not installed
set -u
source=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-${OUT:-./gpu_check.out}}
mkdir -p "$out" || exit 99
out=$(cd "$out" && pwd)
build=${PD_BUILD:-$source/build/gpu_check}
jobs=${PD_JOBS:-$(nproc)}
budget=${PD_BUDGET:-480}
PATH=$PATH:/usr/local/cuda/bin
export XDG_CACHE_HOME="${XDG_CACHE_HOME:-$build.cache}" # chosen plans, for later stages and calls
results=$out/results.jsonl
bench=$out/bench.jsonl
started=$(date +%s)
done_before=""
if [ -n "${PD_REST:-}" ] && [ -s "$results" ]; then
    done_before=$(sed -n 's/^{"stage": "\([^"]*\)", "state": "ok".*/\1/p' "$results")
    grep '"state": "ok"' "$results" > "$results.kept"
    mv "$results.kept" "$results"
else
    : > "$results"
    : > "$bench"
fi
failed=0
table=""
blocked="" # why nothing more can run

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
    printf '%s\n' "$done_before" | grep -Fqx "$1" && return 1
    printf '%s\n' "$1" | grep -Eqx "${PD_ONLY:-.*}"
}

skip() {
    wanted "$1" && report "$1" skipped 0 "$2"
}

left() {
    echo $((budget - ($(date +%s) - started)))
}

# stage NAME LIMIT COMMAND...: exit status 77 of the command means that it skipped itself. Its last line is the note.
stage() {
    name=$1 limit=$2
    shift 2
    wanted "$name" || return 77
    [ -z "$blocked" ] || { skip "$name" "$blocked" && return 77; }
    case $1 in
    */*) [ -x "$1" ] || { skip "$name" "$1 was not built" && return 77; } ;;
    esac
    cut=""
    [ "$(left)" -ge 5 ] || { skip "$name" "time is up" && return 77; }
    [ "$limit" -le "$(left)" ] || { limit=$(left) && cut=yes; }
    printf '%-22s ...      at most %s s: %s\n' "$name" "$limit" "$*"
    begin=$(date +%s)
    timeout -k 10 "$limit" "$@" > "$out/$name.log" 2>&1
    code=$?
    seconds=$(($(date +%s) - begin))
    note=$(grep -v '^ *$' "$out/$name.log" | tail -n 1)
    case $code in
    0) report "$name" ok "$seconds" "$note" ;;
    77) report "$name" skipped "$seconds" "$(grep -i skip "$out/$name.log" | head -n 1)" ;;
    124 | 137)
        if [ -n "$cut" ]; then
            report "$name" skipped "$seconds" "time is up; $note"
        else
            report "$name" "$otherwise" "$seconds" "not done within $limit s; $note"
        fi
        ;;
    *) report "$name" "$otherwise" "$seconds" "exit status $code; $note" ;;
    esac
    return $code
}
otherwise=failed

# A stage that is not ours: where it fails, there is nothing to compare with, and nothing of ours is wrong.
peer() {
    [ -z "$no_torch" ] || { skip "$1" "$no_torch" && return 77; }
    otherwise=skipped
    stage "$@"
    code=$?
    otherwise=failed
    return $code
}

# sanitize NAME LIMIT COMMAND...: without the tool it is skipped.
sanitize() {
    if command -v compute-sanitizer > /dev/null; then
        stage "$@"
    else
        skip "$1" "compute-sanitizer is not here"
    fi
}

# golden NAME LIMIT: a test of golden files, which must say that it computed on the GPU.
golden() {
    stage "golden_${1#test_}" "$2" env PD_TEST_DEVICE=cuda "$build/tests/$1"
    [ $? != 0 ] || [ "$1" = test_sgd ] || grep -q "computing on cuda" "$out/golden_${1#test_}.log" ||
        report "golden_${1#test_}_device" failed 0 "it did not compute on the GPU"
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
if [ -z "$gpu" ]; then skip environment "nvidia-smi tells of no GPU"; elif wanted environment; then report environment ok 0 "$gpu"; fi

if [ -n "${PD_SMALL:-}" ]; then
    depth=18 side=32 train_batch=2 more_batches="" batches=1 high=64 wide=96 detector_batches=1 rounds=1 turn=1 torch_device=cpu
else
    depth=50 side=224 train_batch=256 more_batches=128 batches="1 32" high=800 wide=1344 detector_batches="2 8" rounds=5 turn=10
    torch_device=cuda
fi
no_torch=""
[ "$torch_device" = cpu ] || [ -n "$gpu" ] || no_torch="no GPU"
[ -n "$no_torch" ] ||
    python3 -c "import torch, torchvision, sys; sys.exit('$torch_device' == 'cuda' and not torch.cuda.is_available())" 2> /dev/null ||
    no_torch="python3 has no torch and torchvision that see the GPU"

# PyTorch's side: torch_baseline.py train|infer HOW DEVICE SIZE BATCH TURN ROUNDS NET...; one JSON line a network. HOW: eager,
# compile, graphs (compile with mode="reduce-overhead"). "warm": compiles into the cache, and measures nothing.
cat > "$out/torch_baseline.py" << 'END'
import json, statistics, sys, time, warnings, torch, torchvision, torch.nn as nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

warnings.filterwarnings("ignore")
task, how, device = sys.argv[1:4]
size, batch, turn, rounds = map(int, sys.argv[4:8])
nets, warm = sys.argv[8:], "warm" in sys.argv
cuda = device == "cuda"
if cuda:
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
wait = torch.cuda.synchronize if cuda else lambda: None


# The ParaDise convolution: two 3x3, 3x1 and 1x3, one of 64 groups, a batch norm each. gated: weights of the four branches by image.
class PD(nn.Module):
    def __init__(s, c, gated):
        super().__init__()
        i, o = c.in_channels, c.out_channels
        f = lambda k, p, g=1: nn.Sequential(nn.Conv2d(i, o, k, c.stride, p, groups=g, bias=False), nn.BatchNorm2d(o))
        s.b = nn.ModuleList([f(3, 1), f(3, 1), f((3, 1), (1, 0)), f((1, 3), (0, 1)), f(3, 1, 64)])
        s.fc = nn.Sequential(nn.Linear(i, i // 16), nn.ReLU(), nn.Linear(i // 16, 4)) if gated else None

    def forward(s, x):
        y = [m(x) for m in s.b]
        if s.fc is None:
            return y[0] + y[1] + y[2] + y[3] + y[4]
        a = s.fc(x.mean((2, 3))).softmax(1)[:, :, None, None].to(y[0].dtype)
        return a[:, 0:1] * y[0] + a[:, 1:2] * y[1] + a[:, 2:3] * (y[2] + y[3]) + a[:, 3:4] * y[4]


def network(name):
    m = getattr(torchvision.models, name[5:] if name.startswith("pd_") else name)(weights=None)
    blocks = torchvision.models.resnet.BasicBlock, torchvision.models.resnet.Bottleneck
    for b in [b for b in m.modules() if name.startswith("pd_") and isinstance(b, blocks)]:
        for i in "123":
            c = getattr(b, "conv" + i, None)
            if c is not None and c.kernel_size == (3, 3):
                setattr(b, "conv" + i, PD(c, name.startswith("pd_b")))
                setattr(b, "bn" + i, nn.Identity())
    return m.to(device, memory_format=torch.channels_last)


# A plain ResNet in eval mode with every batch norm folded into its convolution.
def fold(m):
    for p in list(m.modules()):
        for c, n in ("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"), ("0", "1"):
            conv, norm = p._modules.get(c), p._modules.get(n)
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                p._modules[c], p._modules[n] = fuse_conv_bn_eval(conv, norm), nn.Identity()
    return m


def compiled(f):
    if how == "eager":
        return f
    return torch.compile(f, mode="reduce-overhead") if how == "graphs" else torch.compile(f)


# Median seconds of a call; `turn` calls are timed as a whole, with a wait behind them.
def clock(work, calls):
    for _ in range(1 if not cuda else 3 if warm else 10):
        work()
    wait()
    times = []
    for _ in range(0 if warm else rounds):
        begin = time.perf_counter()
        for _ in range(calls):
            work()
        wait()
        times.append((time.perf_counter() - begin) / calls)
    return statistics.median(times) if times else 0


def show(name, what, seconds):
    if seconds:
        print(json.dumps({"side": "torch", "how": how, "net": name, "what": what, "batch": batch, "ms": round(1000 * seconds, 4),
                          "img_s": round(batch / seconds, 2), "torch": torch.__version__}), flush=True)


def train(name):
    m = network(name).train()
    run = compiled(m)
    x = torch.randn(batch, 3, size, size, device=device).to(memory_format=torch.channels_last)
    t = torch.randint(0, 1000, (batch,), device=device)
    rule = dict(lr=0.01, momentum=0.9, weight_decay=1e-4)
    try:
        opt = torch.optim.SGD(m.parameters(), fused=cuda, **rule)
    except (TypeError, RuntimeError):
        opt = torch.optim.SGD(m.parameters(), **rule)

    def step():
        opt.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16):
            loss = nn.functional.cross_entropy(run(x), t)
        loss.backward()
        opt.step()

    show(name, "training", clock(step, turn))


def infer(name):
    half = torch.bfloat16
    m = network(name).eval()
    run = compiled((m if name.startswith("pd_") else fold(m)).to(half))
    host = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)
    host = host.pin_memory() if cuda else host
    there = host.to(device).to(half)
    with torch.inference_mode():
        show(name, "inference", clock(lambda: run(host.to(device, non_blocking=True).to(half)).float().cpu(), 1 if not cuda else 10))
        show(name, "network", clock(lambda: run(there), turn))


bad = 0
for name in [n for n in nets if n != "warm"]:
    try:
        (train if task == "train" else infer)(name)
    except Exception as e:
        bad += 1
        print("%s, %s: %s: %s" % (name, how, type(e).__name__, str(e).replace("\n", " ")[:200]), flush=True)
    if hasattr(torch, "_dynamo"):
        torch._dynamo.reset()
    if cuda:
        torch.cuda.empty_cache()
sys.exit(bad > 0)
END

# The same of detectors: torchvision's, with norms and first stage frozen as ours are, images of one size, 12 objects each.
cat > "$out/torch_detectors.py" << 'END'
import json, statistics, sys, time, torch
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

name, batch, device, depth = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
cuda = device == "cuda"
h, w, rounds, turn = (800, 1344, 4, 5) if cuda else (64, 96, 2, 1)
if cuda:
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
norm = {"weights": None, "norm_layer": FrozenBatchNorm2d, "trainable_layers": 3}
if name == "retinanet":
    m = RetinaNet(resnet_fpn_backbone(backbone_name="resnet%d" % depth, returned_layers=[2, 3, 4],
                                      extra_blocks=LastLevelP6P7(2048 if depth > 34 else 512, 256), **norm), 80,
                  min_size=h, max_size=w, score_thresh=0.0, detections_per_img=100)
else:
    m = FasterRCNN(resnet_fpn_backbone(backbone_name="resnet%d" % depth, **norm), 81, min_size=h, max_size=w, box_score_thresh=0.0)
m = m.to(device, memory_format=torch.channels_last)
images = [torch.rand(3, h, w, device=device) for _ in range(batch)]
corner = torch.rand(12, 2, device=device) * torch.tensor([w * 0.7, h * 0.7], device=device)
boxes = torch.cat([corner, corner + 16 + 0.28 * h * torch.rand(12, 1, device=device)], 1)
targets = [{"boxes": boxes, "labels": torch.randint(1, 80, (12,), device=device)} for _ in range(batch)]
params, rule = [p for p in m.parameters() if p.requires_grad], dict(lr=1e-5, momentum=0.9, weight_decay=1e-4)
try:
    opt = torch.optim.SGD(params, fused=cuda, **rule)
except (TypeError, RuntimeError):
    opt = torch.optim.SGD(params, **rule)


# Median seconds of a call; `calls` are timed as a whole, with a wait behind them.
def clock(work, calls):
    for _ in range(6 if cuda else 1):
        work()
    times = []
    for _ in range(rounds):
        if cuda:
            torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(calls):
            work()
        if cuda:
            torch.cuda.synchronize()
        times.append((time.perf_counter() - begin) / calls)
    return statistics.median(times)


def train():
    opt.zero_grad(set_to_none=True)
    with torch.autocast(device, torch.bfloat16, enabled=cuda):
        loss = sum(m(images, targets).values())
    loss.backward()
    opt.step()


def detect():
    with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=cuda):
        return [{k: v.cpu() for k, v in found.items()} for found in m(images)]


for what, work, calls in ("training", train, turn), ("detection", detect, 1):
    m.train(what == "training")
    seconds = clock(work, calls)
    print(json.dumps({"side": "torch", "how": "eager", "net": name, "what": what, "batch": batch, "ms": round(1000 * seconds, 4),
                      "img_s": round(batch / seconds, 2), "torch": torch.__version__}), flush=True)
END

# ---- build ----
archs=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d '.')
tests="test_cuda test_cuda_train test_nccl test_paradise test_retinanet test_cascade test_curve test_sgd test_views check_cudnn"
cat > "$out/build.sh" << END
set -e
cmake -S "$source" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DPD_CUDA=ON -DPD_CUDA_ARCHS="${archs:-90}"
cmake --build "$build" -j "$jobs" --target paradise_cuda bench_train bench_infer bench_detect pd_info pd_demo pd_cls_train pd_det_train \\
    pd_detect pd_fold pd_coco_eval pd_make_shapes $tests
END
# While the build and the tests run, which use little of the GPU or nothing, PyTorch compiles; its caches are used later on.
export TORCHINDUCTOR_CACHE_DIR="${TORCHINDUCTOR_CACHE_DIR:-$build.torch}" TORCHINDUCTOR_FX_GRAPH_CACHE=1 PYTHONUNBUFFERED=1
cat > "$out/torch_warm.sh" << END
python3 "$out/torch_baseline.py" train compile $torch_device $side $train_batch $turn 0 pd_a_resnet$depth resnet$depth warm
python3 "$out/torch_baseline.py" infer compile $torch_device $side 1 $turn 0 resnet$depth warm
END
warming=""
if [ -z "$no_torch" ] && [ "$torch_device" = cuda ] && wanted torch_compile; then
    timeout -k 5 200 sh "$out/torch_warm.sh" > "$out/torch_warm.log" 2>&1 &
    warming=$!
fi
if [ -d "$build" ] && [ ! -e "$build/CMakeCache.txt" ]; then
    skip build "the programs are taken as they lie in $build"
elif command -v nvcc > /dev/null ||
    python3 -c "import glob, sys; sys.exit(not [f for p in sys.path for f in glob.glob(p + '/nvidia/*/bin/nvcc')])" 2> /dev/null; then
    stage build 300 sh "$out/build.sh"
    case $? in 0 | 77) ;; *) blocked="the build failed" ;; esac # what an earlier build left is not looked at
else
    skip build "nvcc is not here"
fi

# what can be said without a GPU; where there is one it waits
[ -n "$gpu" ] || stage cudnn_offline 300 "$build/tests/check_cudnn" cls_pd_b_r50

# ---- with a GPU ----
if [ -z "$blocked" ] && [ ! -x "$build/bin/pd_info" ]; then
    blocked="pd_info was not built"
elif [ -z "$blocked" ]; then
    why=$("$build/bin/pd_info" --table --device cuda 2>&1 > /dev/null) ||
        blocked=$(printf '%s\npd_info cannot use the GPU\n' "$why" | grep -v '^ *$' | head -n 1)
fi
# a GPU that the programs cannot use is a failure; none at all is not
[ -n "$gpu" ] && [ -n "$blocked" ] && report device failed 0 "$blocked"

cat > "$out/description.sh" << END
"$build/tests/check_cudnn" --dump "$out/device.json" || exit 1
for f in "$source/tests/golden/cuda/h100.json" "$out/device.json"; do tr '{},' '\n' < "\$f" | sort > "$out/\$(basename "\$f").lines"; done
echo "what h100.json (<) and this GPU (>) do not have in common:"
diff "$out/h100.json.lines" "$out/device.json.lines" | grep '^[<>]'
rm "$out/h100.json.lines" "$out/device.json.lines"
echo "$out/device.json: \$(wc -c < "$out/device.json") bytes"
END
stage description 20 sh "$out/description.sh"

# Our numbers against the CPU's: the operations in all precisions; then networks, and what replays and second runs leave.
stage parity_operations 150 "$build/tests/test_cuda" --operations
stage twenty_steps 60 "$build/tests/test_cuda" "twenty steps"
stage graphs 40 "$build/tests/test_cuda" graph
cat > "$out/determinism.sh" << END
"$build/tests/test_cuda" graph || exit \$?
grep weights "$out/graphs.log" > "$out/weights.1"
grep weights "$out/determinism.log" > "$out/weights.2"
[ -s "$out/weights.1" ] || { echo "skipped: stage graphs left nothing to compare with"; exit 77; }
cmp "$out/weights.1" "$out/weights.2" || { echo "another process trains other weights"; exit 1; }
echo "two processes train the same weights: \$(wc -l < "$out/weights.1") networks"
END
stage determinism 40 sh "$out/determinism.sh"
stage nccl_world_1 30 "$build/tests/test_nccl"
golden test_paradise 60
golden test_retinanet 60
golden test_sgd 60
stage parity_resnets 90 "$build/tests/test_cuda" resnet

# ---- how fast ----
if [ -n "$warming" ]; then
    wait "$warming" # nothing else runs on the GPU from here on
fi
rm -f "$out/part.jsonl"
# speed NAME LIMIT PROGRAM...: a benchmark of ours; what it measured is kept also where it was cut off.
speed() {
    stage "$@" --json "$out/part.jsonl"
    [ -e "$out/part.jsonl" ] && cat "$out/part.jsonl" >> "$bench" && rm -f "$out/part.jsonl"
}
# torch NAME LIMIT COMMAND...: the same of PyTorch's.
torch() {
    peer "$@"
    [ $? = 77 ] || grep '^{"side"' "$out/$1.log" >> "$bench"
}
# train NET BATCH [PRECISION [--profile]]
train() {
    speed "train_$1_$2${3:+_$3}" 90 "$build/bin/bench_train" "$1" --device cuda ${3:+--precision "$3"} --size "$side" --batch "$2" \
        --rounds "$rounds" --turn "$turn" --wait 0 --no-peers ${4:+"$4"}
}
infer() {
    speed "infer_$1_$2" 45 "$build/bin/bench_infer" "$1" --device cuda --size "$side" --batch "$2" --rounds "$rounds" --turn $((2 * turn)) \
        --wait 0 --no-peers
}
detector() {
    speed "bench_$1_$2" 90 "$build/bin/bench_detect" "$1" --device cuda --arch resnet$depth --height $high --width $wide --batch "$2" --rounds $((4 * rounds))
}
train resnet$depth $train_batch
train resnet$depth $train_batch fp16 # where cuDNN has engines with sums that need no compiling
train pd_a_resnet$depth $train_batch bf16 --profile
for n in $batches; do infer pd_a_resnet$depth "$n"; done
for n in $detector_batches; do detector retinanet "$n"; done
torch torch_eager 60 python3 "$out/torch_baseline.py" train eager $torch_device $side $train_batch $turn $rounds resnet$depth pd_a_resnet$depth
torch torch_compile 120 python3 "$out/torch_baseline.py" train compile $torch_device $side $train_batch $turn $rounds resnet$depth pd_a_resnet$depth
for n in $batches; do
    torch "torch_infer_eager_$n" 40 python3 "$out/torch_baseline.py" infer eager $torch_device $side "$n" $turn $rounds resnet$depth pd_a_resnet$depth
    torch "torch_infer_compile_$n" 60 python3 "$out/torch_baseline.py" infer compile $torch_device $side "$n" $turn $rounds resnet$depth
    torch "torch_infer_graphs_$n" 60 python3 "$out/torch_baseline.py" infer graphs $torch_device $side "$n" $turn $rounds resnet$depth
done
for n in $detector_batches; do torch "torch_retinanet_$n" 60 python3 "$out/torch_detectors.py" retinanet "$n" $torch_device $depth; done

# ---- our own kernels under compute-sanitizer, in one precision ----
# the libraries' kernels run unwatched, which is faster; initcheck must see what they write
libraries=""
for part in cudnn cublas cutlass xmma implicit_convolve nchw nhwc; do libraries="$libraries --kernel-name-exclude kns=$part"; done
# shellcheck disable=SC2086
sanitize memcheck 90 compute-sanitizer --error-exitcode 1 $libraries "$build/tests/test_cuda" --operations bf16
# shellcheck disable=SC2086
sanitize racecheck 60 compute-sanitizer --tool racecheck --error-exitcode 1 $libraries "$build/tests/test_cuda" PD-B bf16
# shellcheck disable=SC2086
sanitize racecheck_lists 60 compute-sanitizer --tool racecheck --error-exitcode 1 $libraries "$build/tests/test_cuda" proposals bf16
sanitize initcheck 60 compute-sanitizer --tool initcheck --error-exitcode 1 "$build/tests/test_cuda" excite bf16

# ---- the rest of the figures, and of the checks ----
train pd_b_resnet$depth $train_batch
train pd_a_resnet$depth $train_batch fp16
for n in $batches; do
    infer resnet$depth "$n"
    infer pd_b_resnet$depth "$n"
done
for n in $detector_batches; do
    detector cascade_rcnn "$n"
    detector faster_rcnn "$n"
done
torch torch_eager_pd_b 40 python3 "$out/torch_baseline.py" train eager $torch_device $side $train_batch $turn $rounds pd_b_resnet$depth
for n in $detector_batches; do torch "torch_faster_rcnn_$n" 60 python3 "$out/torch_detectors.py" faster_rcnn "$n" $torch_device $depth; done
golden test_cascade 90
golden test_views 60
golden test_curve 120
stage retinanet_parity 120 "$build/tests/test_cuda" retinanet
stage cascade_parity 120 "$build/tests/test_cuda" cascade_rcnn
stage faster_parity 120 "$build/tests/test_cuda" faster_rcnn
stage train_run 60 "$build/tests/test_cuda_train"
for n in $more_batches; do
    for net in resnet$depth pd_a_resnet$depth pd_b_resnet$depth; do train "$net" "$n"; done
    torch "torch_eager_$n" 60 python3 "$out/torch_baseline.py" train eager $torch_device $side "$n" $turn $rounds resnet$depth pd_a_resnet$depth pd_b_resnet$depth
    torch "torch_compile_$n" 150 python3 "$out/torch_baseline.py" train compile $torch_device $side "$n" $turn $rounds resnet$depth pd_a_resnet$depth
done
torch torch_compile_pd_b 120 python3 "$out/torch_baseline.py" train compile $torch_device $side $train_batch $turn $rounds pd_b_resnet$depth
for n in $batches; do
    torch "torch_infer_pd_$n" 120 python3 "$out/torch_baseline.py" infer compile $torch_device $side "$n" $turn $rounds pd_a_resnet$depth pd_b_resnet$depth
done
# a detector is pretrained, trained, folded and evaluated on drawn data, as on a CPU, where its AP is 0.46 to 0.47
cat > "$out/demo.sh" << END
set -e
"$build/bin/pd_demo" "$out/demo" --configs "$source/configs"
grep -q "computing on cuda" "$out/demo.log" || { echo "it did not run on the GPU"; exit 1; }
awk '/^the same, folded/ { ap = \$4; print "AP " ap ", at least 0.40 is expected" } END { exit !(ap >= 0.40) }' "$out/demo.log"
END
stage demo 400 sh "$out/demo.sh"
[ -n "$gpu" ] && stage cudnn_offline 60 "$build/tests/check_cudnn" cls_pd_b_r50

# ---- ours beside PyTorch's best ----
# Ceilings are an H100's, by bytes and products at 3.0 TB/s and 798 TFLOP/s: ResNet-50's training 8380 images a second,
# PD-A's and PD-B's 6040, inference of what is folded 47900, RetinaNet-R50's training at 800x1344 300.
cat > "$out/table.awk" << 'AWK'
function get(key,    v) {
    if (!match($0, "\"" key "\": (\"[^\"]*\"|[-0-9.e+]+)")) return ""
    v = substr($0, RSTART, RLENGTH)
    sub(/^"[^"]*": /, "", v)
    gsub(/"/, "", v)
    return v
}
function note(k) { if (!(k in seen)) { seen[k] = 1; order[++rows] = k } }
function want(net, what, batch, ratio) { note(net SUBSEP what SUBSEP batch); target[net, what, batch] = ratio }
# One line: ours and the best that PyTorch has for the network `peer`.
function line(net, what, batch, peer, label, goal,    k, p, ratio, share, verdict, o, t, r, s) {
    k = net SUBSEP what SUBSEP batch
    p = peer SUBSEP what SUBSEP batch
    ratio = (k in ours) && (p in best) ? ours[k] / best[p] : 0
    verdict = !goal ? "" : !ratio ? "not measured" : small ? "tiny: says nothing" : ratio >= goal ? "met" : "missed"
    share = (k in ours) && ((net, what) in ceiling) && !small ? ours[k] / ceiling[net, what] : 0
    o = (k in ours) ? sprintf("%9.2f %9.1f %-4s", ms[k], ours[k], kind[k]) : "        -         - -   "
    t = (p in best) ? sprintf("%9.1f %-8s", best[p], how[p]) : "        - -       "
    r = ratio ? sprintf("%6.2f", ratio) : "     -"
    s = share ? sprintf("%4.0f %%", 100 * share) : "     -"
    printf "%-14s %-10s %5d %s %s  %s  %s  %-28s %s%s\n", net, what, batch, o, t, r, s, label, \
        goal ? sprintf("at least %.2f: ", goal) : "", verdict > table
    printf "{\"net\": \"%s\", \"what\": \"%s\", \"batch\": %d, \"peer\": \"%s\", \"img_s\": %.2f, \"torch_img_s\": %.2f, \"torch_how\": \"%s\", \"ratio\": %.4f, \"of_ceiling\": %.4f, \"target\": %.4f, \"verdict\": \"%s\"}\n", \
        net, what, batch, peer, (k in ours) ? ours[k] : 0, (p in best) ? best[p] : 0, (p in best) ? how[p] : "", ratio, share, goal, verdict > json
}
BEGIN {
    ceiling[plain, "training"] = 8380
    ceiling["pd_a_" plain, "training"] = ceiling["pd_b_" plain, "training"] = 6040
    ceiling[plain, "network"] = ceiling["pd_a_" plain, "network"] = 47900
    ceiling["retinanet", "training"] = 300
    want(plain, "training", train_batch, 1.15)
    want("pd_a_" plain, "training", train_batch, 1.5)
    n = split(detector_batches, d, " ")
    for (i = 1; i <= n; i++) want("retinanet", "training", d[i], 1.3)
    want("pd_a_" plain, "inference", 1, 1 / 0.7)
}
get("what") == "profile" {
    fwd = get("fwd_ms"); bwd = get("bwd_ms")
    profile[++profiles] = sprintf("%-16s %3d nodes  forward %8.3f ms %5.2f TB/s %3.0f %%   backward %8.3f ms %5.2f TB/s %3.0f %%", get("op"), get("nodes"), \
        fwd, fwd > 0 ? get("fwd_gb") / fwd : 0, fwd > 0 ? 100 * get("fwd_gb") / fwd / 3.0 : 0, \
        bwd, bwd > 0 ? get("bwd_gb") / bwd : 0, bwd > 0 ? 100 * get("bwd_gb") / bwd / 3.0 : 0)
    next
}
{
    k = get("net") SUBSEP get("what") SUBSEP get("batch")
    if (get("side") == "paradise") {
        note(k)
        if (!(k in ours) || get("img_s") + 0 > ours[k]) { ours[k] = get("img_s") + 0; ms[k] = get("ms"); kind[k] = get("how") }
    } else if (!(k in best) || get("img_s") + 0 > best[k]) {
        best[k] = get("img_s") + 0; how[k] = get("how")
    }
}
END {
    printf "%-14s %-10s %5s %9s %9s %-4s %9s %-8s  %6s  %6s\n", "network", "", "batch", "ms", "images/s", "", "PyTorch", "", "ratio", "of ceiling" > table
    for (i = 1; i <= rows; i++) {
        split(order[i], f, SUBSEP)
        goal = ((f[1], f[2], f[3]) in target) ? target[f[1], f[2], f[3]] : 0
        if (f[1] == "pd_a_" plain && f[2] != "training") {
            line(f[1], f[2], f[3], plain, goal ? "folded (0.7 of its latency)" : "folded", goal)
            line(f[1], f[2], f[3], f[1], "PyTorch's unfolded", 0)
        } else if (f[1] == "cascade_rcnn") {
            line(f[1], f[2], f[3], "faster_rcnn", "PyTorch's Faster R-CNN", 0)
        } else {
            line(f[1], f[2], f[3], f[1], f[2] == "network" ? "without transfers" : "", goal)
        }
    }
    if (profiles) print "\nOperations of a training step of PD-A-ResNet-50, each waited for; bytes that must move, and their share of 3.0 TB/s:" > table
    for (i = 1; i <= profiles; i++) print profile[i] > table
}
AWK
touch "$bench"
: > "$out/compare.jsonl"
awk -v table="$out/table.txt" -v json="$out/compare.jsonl" -v small="${PD_SMALL:-}" -v plain=resnet$depth -v train_batch="$train_batch" \
    -v detector_batches="$detector_batches" -f "$out/table.awk" "$bench"

# lines FILE: as a JSON list
lines() {
    printf '['
    sed '$!s/$/,/' "$1"
    printf ']'
}
{
    printf '{"gpu": "%s", "seconds": %d, "failed": %d,\n"stages": ' "$gpu" $(($(date +%s) - started)) "$failed"
    lines "$results"
    printf ',\n"benchmarks": '
    lines "$bench"
    printf ',\n"comparisons": '
    lines "$out/compare.jsonl"
    printf '}\n'
} > "$out/results.json"

# short: what is ok is counted
printf '\n%s' "$table" | grep -v '^[^ ]* *ok '
printf '%d stages ok, %d failed, %d skipped\n\n' "$(grep -c '"state": "ok"' "$results")" "$failed" "$(grep -c '"state": "skipped"' "$results")"
cat "$out/table.txt"
printf '\n%d s; all of it in %s\n' $(($(date +%s) - started)) "$out/results.json"
exit "$failed"
