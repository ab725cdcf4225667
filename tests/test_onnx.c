/* pd_fold --onnx: the file is taken apart by a reader of its own and checked as a graph (versions, every input there
 * before it is used, every tensor as large as it says, operators counted by hand), and run by ONNX Runtime on the input
 * of a golden file where there is one ($PD_PYTHON or python3 with numpy and onnxruntime). pd_fold --dtype: what is
 * stored, and how far its numbers are from the golden ones. ctest: slow */
#include "backbones/classifier.h"
#include "engine/file.h"
#include "tests/golden_output.h"
#include "tests/programs.h"

#include <stdarg.h>

static char dir[256];
static bool runtime; /* ONNX Runtime is there */

static const char *in_dir(const char *name)
{
    static char path[8][400];
    static int next;
    char *p = path[next++ % 8];
    snprintf(p, 400, "%s/%s", dir, name);
    return p;
}

static bool fold(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static bool fold(const char *fmt, ...)
{
    char command[2000];
    pd_child c = {0};
    va_list args;
    va_start(args, fmt);
    vsnprintf(command, sizeof command, fmt, args);
    va_end(args);
    pd_child_run(&c, NULL, PD_BIN_DIR,
                 "pd_fold %s/weights.safetensors -o %s/folded.safetensors --threads 2 --verify 1 %s", dir, dir,
                 command);
    const bool done = c.code == 0;
    PD_CHECK_MSG(done, "%s: exit code %d: %s", c.line, c.code, c.err);
    pd_child_free(&c);
    return done;
}

/* ---- a reader of protocol buffers ---- */

typedef struct message {
    const unsigned char *at, *end;
} message;

typedef struct field {
    int number;
    uint64_t value; /* type 0 */
    message inner;  /* type 2 */
} field;

static uint64_t varint(message *m)
{
    uint64_t v = 0;
    for (int shift = 0; m->at < m->end && shift < 64; shift += 7) {
        const unsigned char byte = *m->at++;
        v |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) return v;
    }
    PD_CHECK_MSG(false, "a number is cut");
    return 0;
}

/* The next field; false at the end, and where the bytes are no message. */
static bool next_field(message *m, field *f)
{
    if (m->at >= m->end) return false;
    const uint64_t tag = varint(m);
    *f = (field){.number = (int)(tag >> 3)};
    if ((tag & 7) == 0) {
        f->value = varint(m);
    } else {
        const uint64_t size = (tag & 7) == 2 ? varint(m) : UINT64_MAX;
        PD_CHECK_MSG(size <= (uint64_t)(m->end - m->at), "field %d does not fit", f->number);
        if (size > (uint64_t)(m->end - m->at)) return false;
        f->inner = (message){m->at, m->at + size};
        m->at += size;
    }
    return true;
}

static bool is_text(message m, const char *text)
{
    return (size_t)(m.end - m.at) == strlen(text) && !memcmp(m.at, text, strlen(text));
}

/* ---- the graph ---- */

enum { MAX_NAMES = 4096 };
typedef struct names {
    message item[MAX_NAMES];
    int n;
} names;

static bool has(const names *all, message m)
{
    for (int i = 0; i < all->n; i++)
        if (all->item[i].end - all->item[i].at == m.end - m.at &&
            !memcmp(all->item[i].at, m.at, (size_t)(m.end - m.at)))
            return true;
    return false;
}

static void define(names *all, message m)
{
    PD_CHECK_MSG(!has(all, m), "%.*s is there twice", (int)(m.end - m.at), (const char *)m.at);
    if (all->n < MAX_NAMES) all->item[all->n++] = m;
}

static void check_tensor_size(message m, names *known)
{
    field f;
    uint64_t elements = 1, type = 0, bytes = 0;
    while (next_field(&m, &f)) {
        if (f.number == 1) elements *= f.value;
        if (f.number == 2) type = f.value;
        if (f.number == 8) define(known, f.inner);
        if (f.number == 9) bytes = (uint64_t)(f.inner.end - f.inner.at);
    }
    PD_CHECK(type == 1 || type == 7);
    PD_CHECK_INT(bytes, elements * (type == 1 ? 4 : 8));
}

static void check_node(message m, names *known, const char *counted, int *count)
{
    field f;
    names made = {.n = 0};
    while (next_field(&m, &f)) {
        if (f.number == 1 && f.inner.end > f.inner.at)
            PD_CHECK_MSG(has(known, f.inner), "%.*s is used before it is made", (int)(f.inner.end - f.inner.at),
                         (const char *)f.inner.at);
        if (f.number == 2) made.item[made.n++] = f.inner;
        if (f.number == 4) *count += is_text(f.inner, counted);
    }
    for (int i = 0; i < made.n; i++) define(known, made.item[i]);
}

typedef struct expected {
    const char *op;
    int count;
} expected;

static void check_file(const expected *want)
{
    pd_bytes file = {0};
    PD_CHECK_OK(pd_file_map(&file, in_dir("net.onnx"), &err));
    for (; want->op && file.data; want++) {
        message m = {file.data, file.data + file.size}, graph = {0}, walk;
        field f, inner;
        names *known = calloc(1, sizeof *known);
        uint64_t ir = 0, opset = 0;
        int count = 0, outputs = 0;
        while (next_field(&m, &f)) {
            if (f.number == 1) ir = f.value;
            if (f.number == 7) graph = f.inner;
            if (f.number == 8)
                while (next_field(&f.inner, &inner))
                    if (inner.number == 2) opset = inner.value;
        }
        PD_CHECK_INT(ir, 8);
        PD_CHECK_INT(opset, 17);
        for (walk = graph; next_field(&walk, &f);)
            if (f.number == 5) check_tensor_size(f.inner, known);
        for (walk = graph; next_field(&walk, &f);)
            if (f.number == 11 && next_field(&f.inner, &inner)) define(known, inner.inner);
        for (walk = graph; next_field(&walk, &f);)
            if (f.number == 1) check_node(f.inner, known, want->op, &count);
        for (walk = graph; next_field(&walk, &f);)
            if (f.number == 12 && next_field(&f.inner, &inner)) outputs += has(known, inner.inner);
        PD_CHECK_MSG(outputs == 1 || outputs == 10, "%d outputs", outputs);
        PD_CHECK_MSG(count == want->count, "%d times %s, expected %d", count, want->op, want->count);
        free(known);
    }
    pd_file_unmap(&file);
}

/* ---- ONNX Runtime ---- */

static const char script[] =
    "import json, struct, sys\n"
    "import numpy as np, onnxruntime as ort\n"
    "d = sys.argv[1]\n"
    "s = ort.InferenceSession(d + '/net.onnx', providers=['CPUExecutionProvider'])\n"
    "x = np.fromfile(d + '/x.bin', 'float32').reshape([int(v) for v in sys.argv[2:]])\n"
    "head, blobs, at = {}, [], 0\n"
    "for o, y in zip(s.get_outputs(), s.run(None, {'x': x})):\n"
    "    head[o.name] = {'dtype': 'F32', 'shape': list(y.shape), 'data_offsets': [at, at + y.nbytes]}\n"
    "    blobs.append(y.tobytes()); at += y.nbytes\n"
    "text = json.dumps(head).encode()\n"
    "open(d + '/y.safetensors', 'wb').write(struct.pack('<Q', len(text)) + text + b''.join(blobs))\n";

static const char *python(void)
{
    const char *p = getenv("PD_PYTHON");
    return p && *p ? p : "python3";
}

/* The file's outputs against the golden ones of the same names. */
static void check_run(const pd_st *golden)
{
    char command[1200];
    pd_arena *arena = pd_arena_new();
    const pd_st_tensor *t = pd_st_find(golden, "x");
    const float *x = output_values(golden, "x", arena);
    pd_st *ours = NULL;
    PD_CHECK_OK(pd_file_write(in_dir("x.bin"), x, t->bytes, &err));
    snprintf(command, sizeof command, "%s %s %s %d %d %d %d", python(), in_dir("run.py"), dir, (int)t->shape[0],
             (int)t->shape[1], (int)t->shape[2], (int)t->shape[3]);
    PD_CHECK_MSG(system(command) == 0, "%s failed", command);
    PD_CHECK_OK(pd_st_open(&ours, in_dir("y.safetensors"), &err));
    for (size_t i = 0; ours && i < pd_st_count(ours); i++) output_tensor(golden, ours, pd_st_at(ours, i)->name);
    pd_st_close(ours);
    pd_arena_free(arena);
}

/* ---- networks ---- */

static pd_st *prepare_classifier(const char *file)
{
    pd_st *golden = NULL;
    pd_classifier *net = NULL;
    char path[512];
    snprintf(path, sizeof path, "%s/paradise/%s.safetensors", PD_GOLDEN, file);
    PD_CHECK_OK(pd_st_open(&golden, path, &err));
    pd_classifier_settings set = {.classes = atoi(pd_st_meta(golden, "classes"))};
    PD_CHECK_OK(pd_arch_parse(&set.arch, pd_st_meta(golden, "arch"), NULL, &err));
    PD_CHECK_OK(pd_classifier_new(&net, device, &set, &err));
    pd_oracle_fill(pd_classifier_params(net), (uint64_t)atoi(pd_st_meta(golden, "seed")), false, 1);
    PD_CHECK_OK(pd_oracle_save(in_dir("weights.safetensors"), pd_classifier_params(net), &err));
    pd_classifier_free(net);
    return golden;
}

static void test_classifier(const char *file, int batch, const expected *want)
{
    PD_ROW(file);
    pd_st *golden = prepare_classifier(file);
    worst_tensor = 0;
    if (fold("--arch %s --num-classes %s --input 64 --onnx %s --onnx-batch %d", pd_st_meta(golden, "arch"),
             pd_st_meta(golden, "classes"), in_dir("net.onnx"), batch)) {
        check_file(want);
        if (runtime) check_run(golden);
    }
    if (runtime) printf("%s: ONNX Runtime off by %.1e\n", file, worst_tensor);
    pd_st_close(golden);
}

static void test_retinanet(const char *file, const expected *want)
{
    PD_ROW(file);
    pd_st *golden = golden_open(file);
    const pd_st_tensor *x = pd_st_find(golden, "x");
    pd_detector *d = golden_forward_detector(pd_detector_defaults(PD_RETINANET), golden);
    PD_CHECK_OK(pd_oracle_save(in_dir("weights.safetensors"), pd_detector_params(d), &err));
    pd_detector_free(d);
    worst_tensor = 0;
    if (fold("--config %s/configs/retina_pd_a_r50.json --set model.backbone.arch=%s --set model.num_classes=%s --input "
             "%dx%d --onnx %s",
             PD_SOURCE_DIR, pd_st_meta(golden, "arch"), pd_st_meta(golden, "classes"), (int)x->shape[3],
             (int)x->shape[2], in_dir("net.onnx"))) {
        check_file(want);
        if (runtime) check_run(golden);
    }
    if (runtime) printf("%s: ONNX Runtime off by %.1e\n", file, worst_tensor);
    pd_st_close(golden);
}

/* Stored in 16 bits: half the bytes, and numbers within the bound. */
static void test_dtype(const char *file, const char *dtype, pd_st_type type, double bound)
{
    pd_child c = {0};
    char path[512];
    pd_st *golden = prepare_classifier(file), *folded = NULL, *ours = NULL;
    PD_ROW(dtype);
    snprintf(path, sizeof path, "%s/paradise/%s.safetensors", PD_GOLDEN, file);
    if (fold("--arch %s --num-classes %s --input 64 --dtype %s", pd_st_meta(golden, "arch"),
             pd_st_meta(golden, "classes"), dtype)) {
        PD_CHECK_OK(pd_st_open(&folded, in_dir("folded.safetensors"), &err));
        for (size_t i = 0; folded && i < pd_st_count(folded); i++) PD_CHECK_INT(pd_st_at(folded, i)->type, type);
        pd_st_close(folded);
        pd_child_run(&c, NULL, PD_BIN_DIR,
                     "pd_classify %s/folded.safetensors --input %s --output %s/y.safetensors --threads 2", dir, path,
                     dir);
        PD_CHECK_MSG(c.code == 0, "%s", c.err);
        PD_CHECK_OK(pd_st_open(&ours, in_dir("y.safetensors"), &err));
        const double off = ours ? pd_oracle_between(golden, ours, "logits") : INFINITY;
        PD_CHECK_MSG(off <= bound && off > bound / 100, "logits off by %g", off);
        printf("%s stored as %s: logits off by %.1e\n", file, dtype, off);
        pd_st_close(ours);
    }
    pd_child_free(&c);
    pd_st_close(golden);
}

int main(void)
{
    char probe[400];
    if (!pd_test_dir(dir, "onnx")) return 1;
    PD_CHECK_OK(pd_device_open(&device, "cpu", 2, &err));
    PD_CHECK_OK(pd_file_write(in_dir("run.py"), script, strlen(script), &err));
    snprintf(probe, sizeof probe, "%s -c 'import numpy, onnxruntime' 2>/dev/null", python());
    runtime = system(probe) == 0;
    if (!runtime) PD_SKIP("%s has no onnxruntime: the files are checked, not run", python());
    /* ResNet-18: 20 convolutions, 3 of them 1x1 shortcuts; 8 blocks; a ReLU behind the stem and twice a block. */
    test_classifier("net_pd_a_resnet18", 0,
                    (const expected[]){{"Conv", 20}, {"Add", 8}, {"Relu", 17}, {"Gemm", 1}, {NULL, 0}});
    /* PD-B: 16 gates of two linear layers with a ReLU between; four weighted inputs each, or one mixed kernel. */
    test_classifier(
        "net_pd_b_resnet18", 0,
        (const expected[]){
            {"Conv", 20}, {"Gemm", 33}, {"Softmax", 16}, {"Mul", 64}, {"Concat", 16}, {"Relu", 33}, {NULL, 0}});
    test_classifier("net_pd_b_resnet18", 2,
                    (const expected[]){{"Conv", 20}, {"MatMul", 32}, {"Reshape", 48}, {"Mul", 0}, {NULL, 0}});
    test_classifier("net_se_resnet18", 0, (const expected[]){{"Sigmoid", 8}, {"Gemm", 17}, {"Mul", 8}, {NULL, 0}});
    test_classifier("net_ge_resnet18", 0, (const expected[]){{"Sigmoid", 8}, {"Resize", 8}, {NULL, 0}});
    /* 20 of the backbone, 8 of the pyramid, 10 on each of five levels; two upsamplings. */
    test_retinanet("retina_pd_a_resnet18", (const expected[]){{"Conv", 78}, {"Resize", 2}, {NULL, 0}});
    test_dtype("net_pd_b_resnet18", "f16", PD_ST_F16, 1e-2);
    test_dtype("net_pd_a_resnet18", "bf16", PD_ST_BF16, 5e-2);
    pd_device_close(device);
    pd_remove_tree(dir);
    return pd_test_end();
}
