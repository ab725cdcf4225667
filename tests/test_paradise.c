/* The ParaDise layer and the networks against the PyTorch reference: forward in training and eval mode, gradients,
 * running statistics, and the folded forms. tests/golden/paradise: outputs of the reference, float64 inside. */
#include "backbones/resnet.h"
#include "engine/plan.h"
#include "tests/oracle.h"
#include "tests/pd_test.h"

#define TOLERANCE 1e-4

static pd_device *device;
static pd_err err;

/* sum(y * dy): minimised, it sends the gradient dy into y. */
static pd_status dot_fwd(pd_node *node, const pd_run *run, pd_err *e)
{
    (void)run;
    (void)e;
    double sum = 0;
    const float *y = node->in[0]->data, *dy = node->in[1]->data;
    for (size_t i = 0; i < pd_shape_size(node->in[0]->shape); i++) sum += (double)y[i] * (double)dy[i];
    *(float *)node->out[0]->data = (float)sum;
    return PD_OK;
}

static pd_status dot_bwd(pd_node *node, const pd_run *run, pd_err *e)
{
    (void)e;
    const float *dy = node->in[1]->data;
    for (size_t i = 0; i < pd_shape_size(node->in[0]->shape); i++)
        node->in[0]->grad[i] = dy[i] * node->out[0]->grad[0] + (pd_adds_grad(node, 0, run) ? node->in[0]->grad[i] : 0.f);
    return PD_OK;
}

static const pd_kernel dot_cpu = {NULL, dot_fwd, dot_bwd, NULL};
static const pd_op dot_op = {.name = "dot", .bwd_reads_in = 2, .differentiable = true, .kernel = {[PD_CPU] = &dot_cpu}};

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
        const float *memory = p->kind == PD_WEIGHT ? p->grad : p->data;
        snprintf(name, sizeof name, "%s.%s", p->kind == PD_WEIGHT ? "grad" : "after", p->name + strlen("conv."));
        const pd_st_tensor *t = pd_st_find(golden, name);
        PD_CHECK_MSG(t, "%s is not in the golden file", name);
        if (!t) continue;
        float *got = malloc(p->count * sizeof *got), *want = malloc(p->count * sizeof *want);
        pd_param_to_file_order(p, got, memory);
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
    memcpy(pd_params_find(params, "x")->data, x, (size_t)xd[0] * (size_t)xd[1] * (size_t)xd[2] * (size_t)xd[3] * sizeof *x);
    pd_plan_bind(target, dy);
    const pd_status planned = pd_plan_new(&plan, t, device, PD_PLAN_TRAIN, NULL, &err);
    PD_CHECK_OK(planned);
    if (planned == PD_OK) {
        PD_CHECK_OK(pd_plan_forward(plan, &err));
        const double off = pd_oracle_difference(golden, want, y->data);
        PD_CHECK_MSG(off <= TOLERANCE, "%s off by %g", want, off);
        if (form == PD_FORM_TRAIN) {
            PD_CHECK_OK(pd_plan_backward(plan, false, &err));
            const double dx = pd_oracle_difference(golden, "dx", pd_params_find(params, "x")->grad);
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
    pd_plan_bind(image, x);
    const pd_status planned = pd_plan_new(&plan, t, device, PD_PLAN_INFER, NULL, &err);
    PD_CHECK_OK(planned);
    for (int again = 0; planned == PD_OK && again < 2; again++) {
        PD_CHECK_OK(pd_plan_forward(plan, &err));
        const double c4 = pd_oracle_difference(golden, "c4", stages.c[2]->data);
        const double c5 = pd_oracle_difference(golden, "c5", stages.c[3]->data);
        const double y = pd_oracle_difference(golden, "logits", logits->data);
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
    PD_CHECK_OK(pd_device_open(&device, "cpu", 2, &err));
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
