/* The ParaDise layer and the networks against the PyTorch reference: forward in training and eval mode, gradients,
 * running statistics, and the folded forms. tests/golden/paradise: outputs of the reference, float64 inside. */
#include "backbones/resnet.h"
#include "engine/plan.h"
#include "tests/oracle.h"
#include "tests/pd_test.h"

#define TOLERANCE 1e-4

static pd_device *device;
static pd_err err;

/* A copy in host memory, to be freed. */
static float *fetched(const float *from, size_t n)
{
    float *host = malloc((n + 1) * sizeof *host);
    if (!host) abort();
    PD_CHECK_OK(device->download(device, host, from, n * sizeof *host, &err));
    return host;
}

/* sum(y * dy): minimised, it sends the gradient dy into y. The host computes it, whatever the device. */
static pd_status dot_fwd(pd_node *node, const pd_run *run, pd_err *e)
{
    double sum = 0;
    const size_t n = pd_shape_size(node->in[0]->shape);
    float *y = fetched(node->in[0]->data, n), *dy = fetched(node->in[1]->data, n);
    for (size_t i = 0; i < n; i++) sum += (double)y[i] * (double)dy[i];
    free(y);
    free(dy);
    return run->device->upload(run->device, node->out[0]->data, &(float){(float)sum}, sizeof(float), e);
}

static pd_status dot_bwd(pd_node *node, const pd_run *run, pd_err *e)
{
    const size_t n = pd_shape_size(node->in[0]->shape);
    float *dy = fetched(node->in[1]->data, n), *dot = fetched(node->out[0]->grad, 1);
    float *old = pd_adds_grad(node, 0, run) ? fetched(node->in[0]->grad, n) : NULL;
    for (size_t i = 0; i < n; i++) dy[i] = dy[i] * dot[0] + (old ? old[i] : 0.f);
    const pd_status status = run->device->upload(run->device, node->in[0]->grad, dy, n * sizeof *dy, e);
    free(dy);
    free(dot);
    free(old);
    return status;
}

static const pd_kernel dot_kernel = {NULL, dot_fwd, dot_bwd, NULL};
static const pd_op dot_op = {.name = "dot", .bwd_reads_in = 2, .differentiable = true, .kernel = {[PD_CPU] = &dot_kernel}};

static const void *(*device_find)(pd_device *, const char *);
static const void *find_dot_too(pd_device *d, const char *name)
{
    return strcmp(name, dot_op.name) != 0 ? device_find(d, name) : &dot_kernel;
}

/* x as a parameter, so that it gets a gradient. */
static pd_value *input_param(pd_tape *t, const int dim[4])
{
    const pd_param spec = {.rank = 4, .dim = {dim[0], dim[2], dim[3], dim[1]}, .kind = PD_WEIGHT};
    return pd_tape_param(t, "x", &spec);
}

static void check_grads(const pd_st *golden, const pd_params *params)
{
    char name[256];
    for (size_t i = 0; i < pd_params_count(params); i++) {
        const pd_param *p = pd_params_at(params, i);
        if (!strcmp(p->name, "x") || p->kind == PD_COUNTER) continue;
        snprintf(name, sizeof name, "%s.%s", p->kind == PD_WEIGHT ? "grad" : "after", p->name + strlen("conv."));
        const pd_st_tensor *t = pd_st_find(golden, name);
        PD_CHECK_MSG(t, "%s is not in the golden file", name);
        if (!t) continue;
        float *got = malloc(p->count * sizeof *got), *want = malloc(p->count * sizeof *want);
        float *memory = fetched(p->kind == PD_WEIGHT ? p->grad : p->data, p->count);
        pd_param_to_file_order(p, got, memory);
        free(memory);
        pd_st_read_f32(want, t);
        double top = 0, worst = 0;
        for (size_t k = 0; k < p->count; k++) {
            top = fmax(top, fabs((double)want[k]));
            worst = fmax(worst, fabs((double)got[k] - (double)want[k]));
        }
        PD_CHECK_MSG(worst <= TOLERANCE * top, "%s: off by %g of %g", name, worst, top);
        free(got);
        free(want);
    }
}

/* One layer in one form; returns the plan's y, compared by the caller. */
static void run_layer(const pd_st *golden, const pd_layer *l, pd_form form, const char *want, uint64_t seed)
{
    pd_arena *arena = pd_arena_new();
    pd_params *params = NULL;
    pd_tape *t = NULL;
    pd_plan *plan = NULL;
    int xd[4], yd[4];
    float *x = pd_oracle_tensor(golden, "x", xd, arena), *dy = pd_oracle_tensor(golden, "dy", yd, arena);
    PD_CHECK_OK(pd_params_new(&params, &err));
    PD_CHECK_OK(pd_tape_new(&t, params, true, &err));
    pd_value *in = input_param(t, xd), *target = pd_tape_input(t, "dy", PD_F32, PD_SHAPE(yd[0], yd[2], yd[3], yd[1]));
    pd_value *y = pd_tape_keep(t, pd_record_layer(t, form, "conv", NULL, in, l, NULL, false));
    pd_tape_minimise(t, pd_tape_add1(t, &dot_op, "", 2, (pd_value *[]){y, target}, PD_SHAPE(1), NULL, 0), 1);
    PD_CHECK_OK(pd_params_allocate(params, device, true, &err));
    /* the reference fills the bare layer: names without "conv." */
    for (size_t i = 0; i < pd_params_count(params); i++)
        if (!strncmp(pd_params_at(params, i)->name, "conv.", 5)) pd_params_at(params, i)->name += 5;
    pd_oracle_fill(params, seed, false, 1);
    for (size_t i = 0; i < pd_params_count(params); i++)
        if (strcmp(pd_params_at(params, i)->name, "x") != 0) pd_params_at(params, i)->name -= 5;
    const pd_param *image = pd_params_find(params, "x");
    PD_CHECK_OK(pd_param_write(params, image, pd_param_block(params, image), x, &err));
    const pd_status planned = pd_plan_new(&plan, t, device, PD_PLAN_TRAIN, NULL, &err);
    PD_CHECK_OK(planned);
    if (planned == PD_OK) {
        PD_CHECK_OK(pd_plan_give(plan, target, dy, &err));
        PD_CHECK_OK(pd_plan_forward(plan, &err));
        PD_CHECK_OK(pd_plan_fetch(plan, y, &err));
        const double off = pd_oracle_difference(golden, want, y->host);
        PD_CHECK_MSG(off <= TOLERANCE, "%s off by %g", want, off);
        if (form == PD_FORM_TRAIN) {
            PD_CHECK_OK(pd_plan_backward(plan, false, &err));
            float *gradient = fetched(image->grad, image->count);
            const double dx = pd_oracle_difference(golden, "dx", gradient);
            free(gradient);
            PD_CHECK_MSG(dx <= TOLERANCE, "dx off by %g", dx);
            check_grads(golden, params);
        }
    }
    pd_plan_free(plan);
    pd_tape_free(t);
    pd_params_free(params);
    pd_arena_free(arena);
}

static void test_layer(const char *file)
{
    pd_st *golden = NULL;
    char path[512];
    snprintf(path, sizeof path, "%s/paradise/%s.safetensors", PD_GOLDEN, file);
    PD_ROW(file);
    PD_CHECK_OK(pd_st_open(&golden, path, &err));
    if (!golden) return;
    pd_layer l = {.out = atoi(pd_st_meta(golden, "cout")), .kernel = 3, .stride = atoi(pd_st_meta(golden, "stride")),
                  .mixture = *pd_st_meta(golden, "kind") == 'a' ? PD_SUM : PD_GATED};
    PD_CHECK_OK(pd_branches_parse(&l.branches, pd_st_meta(golden, "branches"), &err));
    const uint64_t seed = (uint64_t)atoi(pd_st_meta(golden, "seed"));
    run_layer(golden, &l, PD_FORM_TRAIN, "y_train", seed);
    run_layer(golden, &l, PD_FORM_EVAL, "y_eval", seed);
    run_layer(golden, &l, PD_FORM_FUSED, "y_eval", seed);
    pd_st_close(golden);
}

static void run_net(const pd_st *golden, pd_arch arch, pd_form form)
{
    pd_arena *arena = pd_arena_new();
    pd_params *params = NULL;
    pd_tape *t = NULL;
    pd_plan *plan = NULL;
    int xd[4];
    float *x = pd_oracle_tensor(golden, "x", xd, arena);
    PD_CHECK_OK(pd_params_new(&params, &err));
    PD_CHECK_OK(pd_tape_new(&t, params, false, &err));
    pd_value *image = pd_tape_input(t, "image", PD_F32, PD_SHAPE(xd[0], xd[2], xd[3], xd[1]));
    pd_stages stages;
    pd_value *logits = pd_tape_keep(t, pd_record_classifier(t, form, arch, atoi(pd_st_meta(golden, "classes")), image, &stages));
    pd_tape_keep(t, stages.c[2]);
    pd_tape_keep(t, stages.c[3]);
    PD_CHECK_OK(pd_params_allocate(params, device, false, &err));
    pd_oracle_fill(params, (uint64_t)atoi(pd_st_meta(golden, "seed")), false, 1);
    const pd_status planned = pd_plan_new(&plan, t, device, PD_PLAN_INFER, NULL, &err);
    PD_CHECK_OK(planned);
    if (planned == PD_OK) PD_CHECK_OK(pd_plan_give(plan, image, x, &err));
    for (int again = 0; planned == PD_OK && again < 2; again++) {
        PD_CHECK_OK(pd_plan_forward(plan, &err));
        PD_CHECK_OK(pd_plan_fetch(plan, NULL, &err));
        const double c4 = pd_oracle_difference(golden, "c4", stages.c[2]->host);
        const double c5 = pd_oracle_difference(golden, "c5", stages.c[3]->host);
        const double y = pd_oracle_difference(golden, "logits", logits->host);
        PD_CHECK_MSG(c4 <= TOLERANCE && c5 <= TOLERANCE && y <= TOLERANCE, "form %d: c4 off by %g, c5 %g, logits %g", form,
                     c4, c5, y);
    }
    pd_plan_free(plan);
    pd_tape_free(t);
    pd_params_free(params);
    pd_arena_free(arena);
}

static void test_net(const char *file)
{
    pd_st *golden = NULL;
    char path[512];
    snprintf(path, sizeof path, "%s/paradise/%s.safetensors", PD_GOLDEN, file);
    PD_ROW(file);
    PD_CHECK_OK(pd_st_open(&golden, path, &err));
    if (!golden) return;
    pd_arch arch;
    const char *name = pd_st_meta(golden, "arch"), *branches = strstr(name, "pd_") ? pd_st_meta(golden, "branches") : NULL;
    PD_CHECK_OK(pd_arch_parse(&arch, name, branches, &err));
    run_net(golden, arch, PD_FORM_EVAL);
    run_net(golden, arch, PD_FORM_FUSED);
    pd_st_close(golden);
}

int main(void)
{
    PD_CHECK_OK(pd_oracle_device(&device, &err));
    device_find = device->find; /* NULL on the CPU */
    if (device_find) device->find = find_dot_too;
    static const char *const layers[] = {"layer_a_all_stride1", "layer_a_all_stride2", "layer_a_s1_skeleton",
                                         "layer_b_all_stride1", "layer_b_all_stride2", "layer_b_s1_group"};
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) test_layer(layers[i]);
    static const char *const nets[] = {"net_resnet18",    "net_resnet50",    "net_se_resnet18",
                                       "net_ge_resnet18", "net_ac_resnet18", "net_pd_a_resnet18",
                                       "net_pd_a_resnet34", "net_pd_a_resnet50", "net_pd_b_resnet18",
                                       "net_pd_b_resnet50", "net_pd_b_resnet18_s1_skeleton"};
    for (size_t i = 0; i < sizeof nets / sizeof *nets; i++) test_net(nets[i]);
    pd_device_close(device);
    return pd_test_end();
}
