/* RetinaNet against the PyTorch reference: pyramid, head, detections; losses, decisions and gradients. */
#include "tests/golden_detector.h"

static void test_forward(const char *file, pd_form form)
{
    PD_ROW(file);
    pd_st *golden = golden_open(file);
    if (!golden) return;
    pd_arena *arena = pd_arena_new();
    int xd[4];
    float *x = pd_oracle_tensor(golden, "x", xd, arena);
    pd_detector *d = golden_forward_detector(pd_detector_defaults(PD_RETINANET), golden);
    pd_raw raw = {0};
    PD_CHECK_OK(pd_detector_raw(d, form, x, NULL, xd[0], xd[2], xd[3], &raw, &err));
    PD_CHECK_INT(raw.count, 15);
    for (int i = 0; i < raw.count; i++)
        if (pd_st_find(golden, raw.name[i])) check_tensor(golden, raw.name[i], raw.data[i]);
    check_decoded(d, golden, xd[0], xd[2], xd[3]);
    pd_detector_free(d);
    pd_arena_free(arena);
    pd_st_close(golden);
}

static void test_loss(const char *file)
{
    golden_loss g;
    PD_ROW(file);
    if (golden_loss_open(&g, file)) {
        pd_detector *d = golden_loss_detector(pd_detector_defaults(PD_RETINANET), &g);
        pd_losses losses;
        const pd_status ran = pd_detector_loss(d, &g.batch, 0, &losses, &err);
        PD_CHECK_OK(ran);
        if (ran == PD_OK) {
            size_t positives = 0;
            for (const pd_json *v = pd_json_first(pd_json_member(g.root, "images")); v; v = pd_json_next(v))
                positives += pd_json_count(pd_json_member(v, "positives"));
            PD_CHECK_INT(losses.positives, positives);
            check_losses(&g, &losses);
            PD_CHECK_OK(pd_detector_backward(d, false, &err));
            check_gradients(&g, pd_detector_params(d));
        }
        pd_detector_free(d);
    }
    golden_loss_close(&g);
}

/* Four images at a time: as the mean of two groups of two. */
static void test_groups(const char *file)
{
    golden_loss g;
    PD_ROW("two groups");
    if (golden_loss_open(&g, file)) {
        pd_detector *d = golden_loss_detector(pd_detector_defaults(PD_RETINANET), &g);
        pd_losses losses = {0};
        golden_loss_twice(&g);
        PD_CHECK_OK(pd_detector_loss(d, &g.batch, 0, &losses, &err));
        check_losses(&g, &losses);
        PD_CHECK_OK(pd_detector_backward(d, false, &err));
        check_gradients(&g, pd_detector_params(d));
        pd_detector_free(d);
    }
    golden_loss_close(&g);
}

int main(void)
{
    PD_CHECK_OK(pd_oracle_device(&device, &err));
    test_forward("retina_resnet18", PD_FORM_EVAL);
    test_forward("retina_resnet18", PD_FORM_FUSED);
    test_forward("retina_pd_a_resnet18", PD_FORM_EVAL);
    test_forward("retina_pd_a_resnet18", PD_FORM_FUSED);
    test_loss("retina_loss_resnet18");
    test_loss("retina_loss_ragged_resnet18");
    test_groups("retina_loss_ragged_resnet18");
    pd_device_close(device);
    return golden_end();
}
