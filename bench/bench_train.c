/* bench_train: images a second of a training step (forward, loss, backward, SGD with momentum), ours against PyTorch in
 * eager mode with channels_last, in turns.
 *
 *   bench_train [NET...] [--size 128] [--batch 16] [--rounds 6] [--threads 2] [--wait 4] [--no-peers] [--profile]
 *               [--json FILE]
 *
 * On the CPU each step is timed. Elsewhere steps follow each other as in training: every step's images and labels go up
 * from host memory, and the host reads losses a step late; a turn is timed as a whole, with a wait at its end.
 * NETs: resnet18, pd_a_resnet18, resnet50, ... (default: resnet18 and pd_a_resnet18). --peer-python: an interpreter
 * that has torch and torchvision (default /usr/bin/python3). --profile: the time of every operation, forward and
 * backward. */
#include "backbones/classifier.h"
#include "bench/bench.h"
#include "bench/profile.h"
#include "kernels/sgd.h"
#include "tools/cli.h"

static const char *const torch_text =
    "import sys, time, warnings, torch, torchvision, torch.nn as nn\n"
    "warnings.filterwarnings('ignore')\n"
    "name, hw, n, layout, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5])\n"
    "torch.set_num_threads(threads); torch.manual_seed(0)\n"
    "class PDA(nn.Module):\n"
    "    def __init__(s, c):\n"
    "        super().__init__()\n"
    "        i, o, st = c.in_channels, c.out_channels, c.stride\n"
    "        f = lambda k, p, g=1: nn.Sequential(nn.Conv2d(i, o, k, st, p, groups=g, bias=False), nn.BatchNorm2d(o))\n"
    "        s.b = nn.ModuleList([f(3, 1), f(3, 1), f((3,1), (1,0)), f((1,3), (0,1)), f(3, 1, 64)])\n"
    "    def forward(s, x):\n"
    "        y = s.b[0](x)\n"
    "        for m in s.b[1:]: y = y + m(x)\n"
    "        return y\n"
    "m = getattr(torchvision.models, name.replace('pd_a_', ''))(weights=None).train()\n"
    "if name.startswith('pd_a_'):\n"
    "    for b in list(m.modules()):\n"
    "        for cn, bn in (('conv1','bn1'), ('conv2','bn2'), ('conv3','bn3')):\n"
    "            c = getattr(b, cn, None)\n"
    "            if isinstance(c, nn.Conv2d) and c.kernel_size == (3,3):\n"
    "                setattr(b, cn, PDA(c)); setattr(b, bn, nn.Identity())\n"
    "x = torch.randn(n,3,hw,hw); t = torch.randint(0,1000,(n,))\n"
    "if layout == 'nhwc':\n"
    "    m = m.to(memory_format=torch.channels_last); x = x.to(memory_format=torch.channels_last)\n"
    "opt = torch.optim.SGD(m.parameters(), 0.01, momentum=0.9, weight_decay=1e-4, foreach=False)\n"
    "def step():\n"
    "    opt.zero_grad(set_to_none=True); l = nn.functional.cross_entropy(m(x), t); l.backward(); opt.step(); return "
    "l\n"
    "step(); print('ready', flush=True)\n"
    "for line in sys.stdin:\n"
    "    ts = []\n"
    "    for _ in range(int(line)):\n"
    "        t0 = time.perf_counter(); step(); ts.append(time.perf_counter()-t0)\n"
    "    print(*['%.9f' % v for v in ts], flush=True)\n";

typedef struct settings {
    int size, batch, rounds, turn;
    double wait; /* seconds to wait for a quiet machine */
    bool profile, peers;
    const char *python, *json;
    cpu_set_t all;
} settings;

typedef struct trainer {
    pd_classifier *c;
    pd_device *device;
    float *pixels, *velocity;
    int *labels;
    int unread; /* losses */
} trainer;

#define WARM_CPU 2
#define WARM 5 /* elsewhere: from the third on a device may replay a recorded step */

static pd_status trainer_init(trainer *t, pd_device *device, const char *name, const settings *set, pd_err *err)
{
    pd_classifier_settings cs = {.classes = 1000, .train = true};
    const size_t n = (size_t)set->batch * (size_t)set->size * (size_t)set->size * 3;
    size_t weights;
    t->device = device;
    PD_TRY(pd_arch_parse(&cs.arch, name, NULL, err));
    PD_TRY(pd_classifier_new(&t->c, device, &cs, err));
    PD_TRY(pd_params_init(pd_classifier_params(t->c), 1, err));
    (void)pd_params_weights(pd_classifier_params(t->c), &weights);
    PD_TRY(device->alloc(device, (void **)&t->velocity, weights * sizeof(float), err));
    PD_TRY(device->fill(device, t->velocity, 0, weights * sizeof(float), err));
    t->pixels = malloc(n * sizeof(float));
    t->labels = malloc((size_t)set->batch * sizeof(int));
    if (!t->pixels || !t->labels) return PD_FAIL(err, PD_ENOMEM, "out of memory for a batch");
    unsigned state = 1;
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        t->pixels[i] = (float)(state >> 8) / 4194304.f - 2;
    }
    for (int i = 0; i < set->batch; i++) t->labels[i] = i * 37 % 1000;
    return PD_OK;
}

static void trainer_free(trainer *t)
{
    pd_classifier_free(t->c);
    if (t->velocity) t->device->release(t->device, t->velocity);
    free(t->pixels);
    free(t->labels);
    memset(t, 0, sizeof *t);
}

/* Waits for losses until no more than `left` are unread. */
static pd_status read_losses(trainer *t, int left, pd_err *err)
{
    float loss;
    int correct;
    for (; t->unread > left; t->unread--) PD_TRY(pd_classifier_late(t->c, &loss, &correct, err));
    return PD_OK;
}

static pd_status forward(trainer *t, const settings *set, pd_err *err)
{
    float loss;
    int correct;
    const bool late = t->device->kind != PD_CPU;
    PD_TRY(pd_classifier_loss(t->c, t->pixels, t->labels, set->batch, set->size, set->size, late ? NULL : &loss,
                              &correct, err));
    t->unread += late;
    return read_losses(t, PD_PLAN_LATE - 1, err);
}

static pd_status step(trainer *t, const settings *set, double *sgd_seconds, pd_err *err)
{
    const pd_sgd sgd = {.lr = 0.01, .momentum = 0.9, .weight_decay = 1e-4, .scale = 1};
    PD_TRY(forward(t, set, err));
    PD_TRY(pd_classifier_backward(t->c, false, err));
    const double start = bench_now();
    PD_TRY(pd_sgd_step(t->device, pd_classifier_params(t->c), t->velocity, &sgd, err));
    if (t->device->kind == PD_CPU) pd_classifier_changed(t->c); /* training has no constants; a refresh has its price */
    *sgd_seconds += bench_now() - start;
    return PD_OK;
}

static pd_status turn(trainer *t, samples *s, const settings *set, pd_err *err)
{
    const bool each = t->device->kind == PD_CPU;
    const double begin = bench_now();
    double sgd = 0;
    for (int i = 0; i < set->turn; i++) {
        const double start = bench_now();
        PD_TRY(step(t, set, &sgd, err));
        if (each) add_sample(s, bench_now() - start);
    }
    if (each) return PD_OK;
    PD_TRY(read_losses(t, 0, err));
    PD_TRY(t->device->sync(t->device, err));
    add_sample(s, (bench_now() - begin) / set->turn);
    return PD_OK;
}

static pd_status profile(trainer *t, const settings *set, pd_err *err)
{
    double sgd = 0;
    node_times times;
    PD_TRY(pd_plan_time_nodes(pd_classifier_plan(t->c), err));
    if (!node_times_init(&times, pd_classifier_tape(t->c)))
        return PD_FAIL(err, PD_ENOMEM, "out of memory for a profile");
    pd_status status = PD_OK;
    double least = 1e9;
    for (int i = 0; i < 15 && status == PD_OK; i++) {
        sgd = 0;
        status = step(t, set, &sgd, err);
        const double start = bench_now();
        if (status == PD_OK)
            status = t->device->sync(t->device, err); /* every node waited for itself: this is the step */
        sgd += bench_now() - start;
        least = sgd < least ? sgd : least;
        node_times_add(&times, pd_classifier_plan(t->c));
    }
    bench_print_nodes(pd_classifier_tape(t->c), &times, t->device->kind == PD_CPU ? NULL : t->device, set->json);
    printf("  %-34s %8.2f ms\n", "sgd", least * 1e3);
    node_times_free(&times);
    return status;
}

static pd_status one_net(pd_device *device, const char *name, const settings *set, const char *script, pd_err *err)
{
    char size[16], batch[16], threads[16];
    snprintf(size, sizeof size, "%d", set->size);
    snprintf(batch, sizeof batch, "%d", set->batch);
    snprintf(threads, sizeof threads, "%d", pd_pool_threads(device->pool));
    static peer torch;
    if (set->peers) {
        const char *const argv[] = {set->python, script, name, size, batch, "nhwc", threads, NULL};
        peer_start(&torch, "torch channels_last", argv, pd_pool_threads(device->pool), &set->all);
    }
    static samples ours;
    ours.n = ours.disturbed = 0;
    trainer t = {0};
    double sgd = 0;
    pd_status status = trainer_init(&t, device, name, set, err);
    const int warm = device->kind == PD_CPU ? WARM_CPU : WARM;
    for (int i = 0; i < warm && status == PD_OK; i++) status = step(&t, set, &sgd, err);
    if (status == PD_OK) status = read_losses(&t, 0, err);
    if (status == PD_OK) status = device->sync(device, err);
    for (int r = 0; r < set->rounds && status == PD_OK; r++) {
        for (int tries = set->wait > 0 ? 0 : MAX_TRIES - 1; tries < MAX_TRIES && status == PD_OK; tries++) {
            wait_for_quiet(set->wait);
            const watch w = watch_start(getpid(), &ours);
            status = turn(&t, &ours, set, err);
            if (watch_keep(&w, &ours, tries + 1 == MAX_TRIES)) break;
        }
        peer_turn(&torch, set->turn, set->wait);
    }
    if (status == PD_OK) {
        const double ms = quantile(&ours, 0.5) * 1e3;
        printf("%-16s %dx%d batch %d: %8.1f ms (%.1f-%.1f) = %6.1f images/s, %.0f MiB", name, set->size, set->size,
               set->batch, ms, quantile(&ours, 0.1) * 1e3, quantile(&ours, 0.9) * 1e3, set->batch / ms * 1e3,
               (double)pd_plan_bytes(pd_classifier_plan(t.c)) / 1048576);
        if (ours.disturbed + torch.s.disturbed) printf(", %d turns disturbed", ours.disturbed + torch.s.disturbed);
        if (torch.s.n)
            printf("; %s %8.1f ms (%.1f-%.1f) = %6.1f images/s; ratio %.3f", torch.name, quantile(&torch.s, 0.5) * 1e3,
                   quantile(&torch.s, 0.1) * 1e3, quantile(&torch.s, 0.9) * 1e3, set->batch / quantile(&torch.s, 0.5),
                   quantile(&torch.s, 0.5) * 1e3 / ms);
        if (device->kind != PD_CPU) printf("; images from host memory in every step");
        printf("\n");
        fflush(stdout);
        bench_json(set->json, device, name, "training", set->batch, ms * 1e-3);
        if (set->profile) status = profile(&t, set, err);
    }
    peer_stop(&torch);
    trainer_free(&t);
    return status;
}

int main(int argc, char **argv)
{
    settings set = {.size = 128, .batch = 16, .rounds = 6, .turn = 3, .wait = 4, .python = "/usr/bin/python3"};
    bool alone = false;
    const pd_opt opts[] = {
        PD_OPT_INT(0, "size", "N", &set.size, 32, 1024, "image side in pixels (128)"),
        PD_OPT_INT(0, "batch", "N", &set.batch, 1, 1024, "images in a step (16)"),
        PD_OPT_INT(0, "rounds", "N", &set.rounds, 1, 1000, "turns of each side (6)"),
        PD_OPT_INT(0, "turn", "N", &set.turn, 1, 100, "steps in a turn (3)"),
        PD_OPT_DOUBLE(0, "wait", "S", &set.wait, 0, 3600,
                      "wait so long for a quiet machine before a turn (4); 0: never"),
        PD_OPT_FLAG(0, "no-peers", &alone, "ours alone"),
        PD_OPT_FLAG(0, "profile", &set.profile, "print the time of every operation"),
        PD_OPT_STRING(0, "peer-python", "FILE", &set.python, "an interpreter with torch and torchvision"),
        PD_OPT_STRING(0, "json", "FILE", &set.json, "append results as lines of JSON"),
    };
    const pd_cli cli = {.program = "bench_train",
                        .usage = "[NET...]",
                        .about = "Speed of a training step.",
                        .example = "bench_train resnet18 pd_a_resnet18 --rounds 10",
                        .opts = opts,
                        .n_opts = sizeof opts / sizeof *opts,
                        .common = PD_CLI_DEVICE | PD_CLI_THREADS,
                        .max_args = -1};
    static const char *const usual[] = {"resnet18", "pd_a_resnet18"};
    pd_cli_args args;
    pd_err err = PD_ERR_INIT;
    pd_device *device = NULL;
    char script[64] = "";
    const int code = pd_cli_parse(&args, &cli, argc, argv);
    if (code >= 0) return code;
    signal(SIGPIPE, SIG_IGN);
    set.peers = !alone && write_script(script, torch_text);
    sched_getaffinity(0, sizeof set.all, &set.all);
    pd_status status = pd_device_open(&device, args.device, args.threads, &err);
    if (status == PD_OK) status = pd_device_set_precision(device, args.precision, &err);
    if (status == PD_OK) bench_print_machine(device->pool);
    const char *const *nets = args.n_args ? args.args : usual;
    const size_t count = args.n_args ? args.n_args : 2;
    for (size_t i = 0; i < count && status == PD_OK; i++) status = one_net(device, nets[i], &set, script, &err);
    pd_device_close(device);
    if (*script) unlink(script);
    pd_cli_free(&args);
    return status == PD_OK ? 0 : pd_cli_fail(&cli, &err);
}
