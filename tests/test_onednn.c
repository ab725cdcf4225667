/* No network may meet the compute library's reference implementations: they are a hundred times slower than the others,
 * and the library chooses them silently. Every architecture is planned for training, for training with fixed statistics
 * and for inference. */
#include "backbones/resnet.h"
#include "engine/plan.h"
#include "kernels/conv.h"
#include "kernels/conv_bank.h"
#include "kernels/conv_direct.h"
#include "kernels/mix_conv.h"
#include "kernels/softmax_ce.h"
#include "tests/pd_test.h"

static pd_device *device;
static pd_err err;

static void check_net(const char *name, pd_form form, bool train, int n, int size)
{
    pd_params *params = NULL;
    pd_tape *t = NULL;
    pd_plan *plan = NULL;
    pd_arch arch;
    int convolutions = 0;
    char row[96];
    snprintf(row, sizeof row, "%s, form %d, %s, %d x %d x %d", name, form, train ? "train" : "infer", n, size, size);
    PD_ROW(row);
    PD_CHECK_OK(pd_arch_parse(&arch, name, NULL, &err));
    PD_CHECK_OK(pd_params_new(&params, &err));
    PD_CHECK_OK(pd_tape_new(&t, params, train, &err));
    pd_value *image = pd_tape_input(t, "image", PD_F32, PD_SHAPE(n, size, size, 3)), *correct;
    pd_value *logits = pd_tape_keep(t, pd_record_classifier(t, form, arch, 1000, image, NULL));
    if (train) {
        pd_value *label = pd_tape_input(t, "label", PD_I32, PD_SHAPE(n));
        pd_tape_minimise(t, pd_softmax_ce(t, logits, label, NULL, 0, &correct), 1);
    }
    PD_CHECK_OK(pd_params_allocate(params, device, train, &err));
    PD_CHECK_OK(pd_plan_new(&plan, t, device, train ? PD_PLAN_TRAIN : PD_PLAN_INFER, NULL, &err));
    for (const pd_node *node = plan ? pd_tape_nodes(t) : NULL; node; node = node->next) {
        convolutions += !strncmp(node->op->name, "conv", 4) || !strcmp(node->op->name, "mix_conv");
        PD_CHECK_MSG(!pd_conv_is_reference(node) && !pd_conv_bank_is_reference(node) && !pd_mix_conv_is_reference(node),
                     "%s %s: a reference implementation", node->op->name, node->name);
    }
    PD_CHECK_MSG(convolutions >= 18, "only %d convolutions were looked at", convolutions);
    pd_plan_free(plan);
    pd_tape_free(t);
    pd_params_free(params);
}

/* The mark that the networks are searched for. */
static void test_mark(void)
{
    const pd_conv_shape usual = {.n = 1,
                                 .h = 8,
                                 .w = 8,
                                 .c = 32,
                                 .k = 32,
                                 .kh = 3,
                                 .kw = 3,
                                 .stride = 1,
                                 .pad_h = 1,
                                 .pad_w = 1,
                                 .groups = 1,
                                 .oh = 8,
                                 .ow = 8};
    pd_direct d;
    PD_CHECK_OK(pd_direct_plan(&d, device, &usual, (pd_direct_wants){.backward = true, .dx = true, .dw = true}, &err));
    PD_CHECK_MSG(!pd_direct_is_reference(&d), "%s for a usual shape", pd_prim_impl(&d.fwd));
    PD_CHECK_MSG(*pd_prim_impl(&d.bwd_data) && *pd_prim_impl(&d.bwd_weights), "no name of an implementation");
    d.bwd_weights.reference = true;
    PD_CHECK(pd_direct_is_reference(&d));
    pd_direct_free(&d);
}

int main(void)
{
    PD_CHECK_OK(pd_device_open(&device, "cpu", 2, &err));
    test_mark();
    static const char *const families[] = {"", "se_", "ge_", "ac_", "pd_a_", "pd_b_"};
    for (size_t f = 0; f < sizeof families / sizeof *families; f++)
        for (int depth = 18; depth <= 50; depth += 32) {
            char name[32];
            snprintf(name, sizeof name, "%sresnet%d", families[f], depth);
            check_net(name, PD_FORM_TRAIN, true, 2, 64);
            check_net(name, PD_FORM_FUSED, false, 1, 224);
            check_net(name, PD_FORM_EVAL, false, 1, 128);
            check_net(name, PD_FORM_FOLDED, false, 3, 96);
            if (depth == 18) check_net(name, PD_FORM_FUSED, true, 2, 128);
        }
    check_net("pd_a_resnet34", PD_FORM_TRAIN, true, 16, 128);
    pd_device_close(device);
    return pd_test_end();
}
