/* bench_infer: milliseconds of one forward run with folded batch norms and branches, ours against PyTorch
 * (jit.freeze + optimize_for_inference) and ONNX Runtime, in turns.
 *
 *   bench_infer [NET...] [--size 224] [--batch 1] [--rounds 8] [--threads 2] [--wait 4] [--no-peers] [--profile]
 *               [--json FILE]
 *
 * From floats in host memory to logits in host memory. Elsewhere than on the CPU the network alone is timed as well:
 * its image is there already, and nothing is fetched. NETs: resnet18, pd_a_resnet18, pd_b_resnet18, ... Folded, PD-A is
 * the plain network, so the peers run that one. NETs given together take turns too. --peer-python: an interpreter with
 * torch and torchvision (default /usr/bin/python3); --ort-python: one with onnxruntime and numpy (default: the same).
 */
#include "backbones/classifier.h"
#include "bench/bench.h"
#include "bench/profile.h"
#include "tools/cli.h"

static const char *const torch_text =
    "import sys, time, warnings, torch, torchvision\n"
    "warnings.filterwarnings('ignore')\n"
    "name, hw, n, layout, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5])\n"
    "torch.set_num_threads(threads); torch.manual_seed(0)\n"
    "m = getattr(torchvision.models, name)(weights=None).eval()\n"
    "x = torch.randn(n,3,hw,hw)\n"
    "with torch.no_grad():\n"
    "    for b in m.modules():\n"
    "        if isinstance(b, torch.nn.BatchNorm2d):\n"
    "            b.running_mean.normal_(0, .1); b.running_var.uniform_(.5, 1.5)\n"
    "    if layout == 'export':\n"
    "        torch.onnx.export(m, x, sys.argv[6], opset_version=13, do_constant_folding=True, input_names=['x'],\n"
    "                          output_names=['y'])\n"
    "        sys.exit(0)\n"
    "    if layout == 'nhwc':\n"
    "        m = m.to(memory_format=torch.channels_last); x = x.to(memory_format=torch.channels_last)\n"
    "    f = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(m, x)))\n"
    "    for _ in range(4): f(x)\n"
    "    print('ready', flush=True)\n"
    "    for line in sys.stdin:\n"
    "        ts = []\n"
    "        for _ in range(int(line)):\n"
    "            t0 = time.perf_counter(); f(x); ts.append(time.perf_counter()-t0)\n"
    "        print(*['%.9f' % v for v in ts], flush=True)\n";

static const char *const ort_text =
    "import sys, time, numpy, onnxruntime as ort\n"
    "o = ort.SessionOptions(); o.intra_op_num_threads = int(sys.argv[2]); o.inter_op_num_threads = 1\n"
    "o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL\n"
    "s = ort.InferenceSession(sys.argv[1], o, providers=['CPUExecutionProvider'])\n"
    "shape = s.get_inputs()[0].shape\n"
    "x = {'x': numpy.random.RandomState(0).randn(*shape).astype('float32')}\n"
    "for _ in range(4): s.run(None, x)\n"
    "print('ready', flush=True)\n"
    "for line in sys.stdin:\n"
    "    ts = []\n"
    "    for _ in range(int(line)):\n"
    "        t0 = time.perf_counter(); s.run(None, x); ts.append(time.perf_counter()-t0)\n"
    "    print(*['%.9f' % v for v in ts], flush=True)\n";

#define MAX_NETS 8

typedef struct settings {
    int size, batch, rounds, turn;
    double wait; /* seconds to wait for a quiet machine */
    bool profile, peers;
    const char *python, *ort_python, *json;
    cpu_set_t all;
} settings;

typedef struct runner {
    const char *name;
    pd_classifier *c;
    samples s, alone; /* alone: without transfers, elsewhere than on the CPU */
    peer torch[2], ort;
    char model[96];
} runner;

static pd_status run_once(runner *r, const settings *set, const float *pixels, pd_err *err)
{
    pd_classified out;
    return pd_classifier_run(r->c, PD_FORM_FUSED, pixels, set->batch, set->size, set->size, &out, err);
}

static void start_peers(runner *r, const settings *set, const char *torch_script, const char *ort_script, int threads)
{
    char size[16], batch[16], count[16];
    const char *plain = strstr(r->name, "resnet");
    snprintf(size, sizeof size, "%d", set->size);
    snprintf(batch, sizeof batch, "%d", set->batch);
    snprintf(count, sizeof count, "%d", threads);
    static const char *const layout[2] = {"nchw", "nhwc"}, *const title[2] = {"torch ofi", "torch ofi nhwc"};
    for (int i = 0; i < 2; i++) {
        const char *const argv[] = {set->python, torch_script, plain, size, batch, layout[i], count, NULL};
        peer_start(&r->torch[i], title[i], argv, threads, &set->all);
    }
    snprintf(r->model, sizeof r->model, "%s.%s.onnx", ort_script, r->name);
    char command[512];
    snprintf(command, sizeof command, "%s %s %s %s %s export %s %s >/dev/null 2>&1", set->python, torch_script, plain,
             size, batch, count, r->model);
    if (system(command) != 0) printf("peer ONNX Runtime: the model could not be exported; left out\n");
    const char *const argv[] = {set->ort_python, ort_script, r->model, count, NULL};
    peer_start(&r->ort, "ONNX Runtime", argv, threads, &set->all);
}

static pd_status runner_init(runner *r, pd_device *device, const char *name, pd_err *err)
{
    pd_classifier_settings cs = {.classes = 1000};
    r->name = name;
    PD_TRY(pd_arch_parse(&cs.arch, name, NULL, err));
    PD_TRY(pd_classifier_new(&r->c, device, &cs, err));
    return pd_params_init(pd_classifier_params(r->c), 1, err);
}

static pd_status turn(runner *r, const settings *set, const float *pixels, pd_err *err)
{
    for (int tries = set->wait > 0 ? 0 : MAX_TRIES - 1; tries < MAX_TRIES; tries++) {
        wait_for_quiet(set->wait);
        for (int i = 0; i < 2; i++) PD_TRY(run_once(r, set, pixels, err)); /* caches and threads awake */
        const watch w = watch_start(getpid(), &r->s);
        for (int i = 0; i < set->turn; i++) {
            const double start = bench_now();
            PD_TRY(run_once(r, set, pixels, err));
            add_sample(&r->s, bench_now() - start);
        }
        if (watch_keep(&w, &r->s, tries + 1 == MAX_TRIES)) break;
    }
    return PD_OK;
}

/* Several runs in a row on the image that is there, with a wait at their end. */
static pd_status turn_alone(runner *r, const settings *set, pd_device *device, pd_err *err)
{
    pd_plan *plan = pd_classifier_plan(r->c);
    const double start = bench_now();
    for (int i = 0; i < set->turn; i++) PD_TRY(pd_plan_forward(plan, err));
    PD_TRY(device->sync(device, err));
    add_sample(&r->alone, (bench_now() - start) / set->turn);
    return PD_OK;
}

static pd_status profile(runner *r, const settings *set, const float *pixels, pd_err *err)
{
    node_times times;
    pd_plan *plan = pd_classifier_plan(r->c);
    PD_TRY(pd_plan_time_nodes(plan, err));
    if (!node_times_init(&times, pd_classifier_tape(r->c)))
        return PD_FAIL(err, PD_ENOMEM, "out of memory for a profile");
    pd_status status = PD_OK;
    for (int i = 0; i < 40 && status == PD_OK; i++) {
        status = run_once(r, set, pixels, err);
        node_times_add(&times, plan);
    }
    bench_print_nodes(pd_classifier_tape(r->c), &times, NULL, NULL);
    node_times_free(&times);
    return status;
}

static void print_peer(const peer *p, double ours)
{
    if (p->s.n)
        printf("    %-16s %8.2f ms (%.2f-%.2f); ours / theirs %.3f\n", p->name, quantile(&p->s, 0.5) * 1e3,
               quantile(&p->s, 0.1) * 1e3, quantile(&p->s, 0.9) * 1e3, ours / quantile(&p->s, 0.5));
}

static void print_result(const runner *r, const runner *first, const settings *set, pd_device *device)
{
    const double t = quantile(&r->s, 0.5);
    double macs = 0;
    for (const pd_node *n = pd_tape_nodes(pd_classifier_tape(r->c)); n; n = n->next)
        if (!strncmp(n->op->name, "conv", 4) || !strncmp(n->op->name, "mix", 3) || !strcmp(n->op->name, "linear"))
            macs += n->op->macs ? n->op->macs(n) : 0;
    printf("%-16s %dx%d batch %d: %8.2f ms (%.2f-%.2f) = %.0f GFLOP/s, %.0f MiB", r->name, set->size, set->size,
           set->batch, t * 1e3, quantile(&r->s, 0.1) * 1e3, quantile(&r->s, 0.9) * 1e3, 2e-9 * macs / t,
           (double)pd_plan_bytes(pd_classifier_plan(r->c)) / 1048576);
    if (r->s.disturbed) printf(", %d turns disturbed", r->s.disturbed);
    if (r->alone.n) printf(", without transfers %.3f ms", quantile(&r->alone, 0.5) * 1e3);
    if (r != first) printf("; %.3f x %s", t / quantile(&first->s, 0.5), first->name);
    printf("\n");
    for (int i = 0; i < 2; i++) print_peer(&r->torch[i], t);
    print_peer(&r->ort, t);
    bench_json(set->json, device, r->name, "inference", set->batch, t);
    if (r->alone.n) bench_json(set->json, device, r->name, "network", set->batch, quantile(&r->alone, 0.5));
}

static pd_status run_all(pd_device *device, const char *const *names, size_t count, const settings *set,
                         const char *torch, const char *ort, pd_err *err)
{
    static runner runners[MAX_NETS];
    const size_t n = (size_t)set->batch * (size_t)set->size * (size_t)set->size * 3;
    float *pixels = malloc(n * sizeof *pixels);
    if (!pixels) return PD_FAIL(err, PD_ENOMEM, "out of memory for a batch");
    unsigned state = 1;
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        pixels[i] = (float)(state >> 8) / 4194304.f - 2;
    }
    pd_status status = PD_OK;
    for (size_t i = 0; i < count && status == PD_OK; i++) {
        status = runner_init(&runners[i], device, names[i], err);
        if (status == PD_OK && set->peers) start_peers(&runners[i], set, torch, ort, pd_pool_threads(device->pool));
    }
    for (int r = 0; r < set->rounds && status == PD_OK; r++)
        for (size_t i = 0; i < count && status == PD_OK; i++) {
            status = turn(&runners[i], set, pixels, err);
            if (status == PD_OK && device->kind != PD_CPU) status = turn_alone(&runners[i], set, device, err);
            for (int k = 0; k < 2; k++) peer_turn(&runners[i].torch[k], set->turn, set->wait);
            peer_turn(&runners[i].ort, set->turn, set->wait);
        }
    for (size_t i = 0; i < count && status == PD_OK; i++) {
        print_result(&runners[i], &runners[0], set, device);
        if (set->profile) status = profile(&runners[i], set, pixels, err);
    }
    for (size_t i = 0; i < count; i++) {
        for (int k = 0; k < 2; k++) peer_stop(&runners[i].torch[k]);
        peer_stop(&runners[i].ort);
        if (*runners[i].model) unlink(runners[i].model);
        pd_classifier_free(runners[i].c);
    }
    free(pixels);
    return status;
}

int main(int argc, char **argv)
{
    settings set = {.size = 224, .batch = 1, .rounds = 8, .turn = 20, .wait = 4, .python = "/usr/bin/python3"};
    bool alone = false;
    const pd_opt opts[] = {
        PD_OPT_INT(0, "size", "N", &set.size, 32, 1024, "image side in pixels (224)"),
        PD_OPT_INT(0, "batch", "N", &set.batch, 1, 1024, "images in a run (1)"),
        PD_OPT_INT(0, "rounds", "N", &set.rounds, 1, 1000, "turns of each side (8)"),
        PD_OPT_INT(0, "turn", "N", &set.turn, 1, 100, "runs in a turn (20)"),
        PD_OPT_DOUBLE(0, "wait", "S", &set.wait, 0, 3600,
                      "wait so long for a quiet machine before a turn (4); 0: never"),
        PD_OPT_FLAG(0, "no-peers", &alone, "ours alone"),
        PD_OPT_FLAG(0, "profile", &set.profile, "print the time of every operation"),
        PD_OPT_STRING(0, "peer-python", "FILE", &set.python, "an interpreter with torch and torchvision"),
        PD_OPT_STRING(0, "ort-python", "FILE", &set.ort_python, "an interpreter with onnxruntime"),
        PD_OPT_STRING(0, "json", "FILE", &set.json, "append results as lines of JSON"),
    };
    const pd_cli cli = {.program = "bench_infer",
                        .usage = "[NET...]",
                        .about = "Latency of folded networks.",
                        .example = "bench_infer pd_a_resnet18 pd_b_resnet18 --rounds 10",
                        .opts = opts,
                        .n_opts = sizeof opts / sizeof *opts,
                        .common = PD_CLI_DEVICE | PD_CLI_THREADS,
                        .max_args = MAX_NETS};
    static const char *const usual[] = {"pd_a_resnet18", "pd_b_resnet18", "pd_a_resnet50"};
    pd_cli_args args;
    pd_err err = PD_ERR_INIT;
    pd_device *device = NULL;
    char torch[64] = "", ort[64] = "";
    const int code = pd_cli_parse(&args, &cli, argc, argv);
    if (code >= 0) return code;
    signal(SIGPIPE, SIG_IGN);
    if (!set.ort_python) set.ort_python = set.python;
    set.peers = !alone && write_script(torch, torch_text) && write_script(ort, ort_text);
    sched_getaffinity(0, sizeof set.all, &set.all);
    pd_status status = pd_device_open(&device, args.device, args.threads, &err);
    if (status == PD_OK) status = pd_device_set_precision(device, args.precision, &err);
    if (status == PD_OK) bench_print_machine(device->pool);
    if (status == PD_OK)
        status =
            run_all(device, args.n_args ? args.args : usual, args.n_args ? args.n_args : 3, &set, torch, ort, &err);
    pd_device_close(device);
    if (*torch) unlink(torch);
    if (*ort) unlink(ort);
    pd_cli_free(&args);
    return status == PD_OK ? 0 : pd_cli_fail(&cli, &err);
}
