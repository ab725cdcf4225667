/* Cascade R-CNN against the PyTorch reference: pyramid, proposals, stages, detections; losses, decisions and gradients;
 * and its samplers' draws. Faster R-CNN as its case of one stage, with one box and with a box for every class. */
#include "tests/golden_detector.h"

enum { ROWS = 1000, STAGES = 3 };

static pd_detector_settings settings_of(pd_detector_type type)
{
    pd_detector_settings set = pd_detector_defaults(type);
    set.cascade.rpn.sample.first = set.cascade.sample.first = true; /* as the files were made */
    return set;
}

static pd_detector_settings cascade(void)
{
    return settings_of(PD_CASCADE_RCNN);
}

static const void *raw_find(const pd_raw *raw, const char *name)
{
    for (int i = 0; i < raw->count; i++)
        if (!strcmp(raw->name[i], name)) return raw->data[i];
    PD_CHECK_MSG(false, "there is no output %s", name);
    return NULL;
}

/* For every proposal of the reference the row that it has here, or -1. Nearly equal scores may have changed places. */
static void match_proposals(const pd_st *golden, const pd_raw *raw, int n, int *row, pd_arena *arena)
{
    int d[4], lost = 0, moved = 0;
    const float *want = pd_oracle_tensor(golden, "proposals", d, arena),
                *counts = pd_oracle_tensor(golden, "num_proposals", d, arena);
    const float *got = raw_find(raw, "proposals");
    const int *count = raw_find(raw, "num_proposals");
    for (int i = 0; i < n; i++) {
        bool taken[ROWS] = {false};
        PD_CHECK_INT(count[i], counts[i]);
        for (int r = 0; r < ROWS; r++) {
            row[i * ROWS + r] = -1;
            for (int k = 0; r < (int)counts[i] && k < count[i] && row[i * ROWS + r] < 0; k++) {
                const int at = (r + k) % count[i]; /* its own row first */
                const float *w = want + 5 * (i * ROWS + r), *g = got + 5 * (i * ROWS + at);
                if (taken[at] || fabsf(w[4] - g[4]) > 1e-3f || !same_box(w, (pd_box){g[0], g[1], g[2], g[3]})) continue;
                taken[at] = true;
                row[i * ROWS + r] = at;
                moved += at != r;
            }
            lost += r < (int)counts[i] && row[i * ROWS + r] < 0;
        }
        for (int r = count[i]; r < ROWS; r++) PD_CHECK(got[5 * (i * ROWS + r) + 4] == 0);
    }
    PD_CHECK_INT(lost, 0);
    if (moved) printf("%d proposals on another row\n", moved);
}

/* Rows of an output, brought into the reference's order, as a tensor. */
static void check_rows(const pd_st *golden, const pd_raw *raw, const char *name, int n, const int *row, pd_arena *arena)
{
    int d[4];
    const float *want = pd_oracle_tensor(golden, name, d, arena), *got = raw_find(raw, name);
    const size_t width = (size_t)d[2];
    float *sorted;
    PD_CHECK_OK(PD_ALLOC(&sorted, arena, (size_t)n * ROWS * width, &err));
    PD_CHECK(want && got);
    for (int i = 0; i < n * ROWS; i++)
        if (row[i] >= 0)
            memcpy(sorted + (size_t)i * width, got + ((size_t)(i / ROWS) * ROWS + (size_t)row[i]) * width,
                   width * sizeof *got);
    check_tensor(golden, name, sorted);
}

static void check_stage(const pd_st *golden, const pd_raw *raw, int k, int n, const int *row, pd_arena *arena)
{
    static const char *const parts[] = {"rois", "cls_score", "bbox_pred"};
    char name[32];
    int d[4], wrong = 0;
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "stage%d.%s", k, parts[i]);
        check_rows(golden, raw, name, n, row, arena);
    }
    snprintf(name, sizeof name, "stage%d.level", k);
    const float *level = pd_oracle_tensor(golden, name, d, arena);
    const int *ours = raw_find(raw, name);
    for (int i = 0; i < n * ROWS; i++) wrong += row[i] >= 0 && ours[i / ROWS * ROWS + row[i]] != (int)level[i];
    PD_CHECK_INT(wrong, 0);
}

static void test_forward(pd_detector_type type, const char *file, pd_form form)
{
    const int stages = type == PD_FASTER_RCNN ? 1 : STAGES;
    PD_ROW(file);
    pd_st *golden = golden_open(file);
    if (!golden) return;
    pd_arena *arena = pd_arena_new();
    int xd[4], *row;
    float *x = pd_oracle_tensor(golden, "x", xd, arena);
    pd_detector *d = golden_forward_detector(settings_of(type), golden);
    pd_raw raw = {0};
    PD_CHECK_OK(PD_ALLOC(&row, arena, (size_t)xd[0] * ROWS, &err));
    PD_CHECK_OK(pd_detector_raw(d, form, x, NULL, xd[0], xd[2], xd[3], &raw, &err));
    PD_CHECK_INT(raw.count, 15 + 2 + 4 * stages);
    for (int i = 0; i < raw.count; i++)
        if (raw.shape[i].rank == 4 && pd_st_find(golden, raw.name[i])) check_tensor(golden, raw.name[i], raw.data[i]);
    match_proposals(golden, &raw, xd[0], row, arena);
    for (int k = 0; k < stages; k++) check_stage(golden, &raw, k, xd[0], row, arena);
    check_decoded(d, golden, xd[0], xd[2], xd[3]);
    pd_detector_free(d);
    pd_arena_free(arena);
    pd_st_close(golden);
}

/* ---- training ---- */

/* The k-th operation of that name on the tape. */
static const pd_node *find_node(pd_detector *d, const char *op, int k)
{
    for (const pd_node *n = pd_tape_nodes(pd_detector_tape(d)); n; n = n->next)
        if (!strcmp(n->op->name, op) && k-- == 0) return n;
    PD_CHECK_MSG(false, "no operation %s", op);
    return NULL;
}

/* What an operation left, from place `at` on. */
static const int *ints_of(const pd_value *v, size_t at, size_t count, pd_arena *arena)
{
    int *host;
    if (PD_ALLOC(&host, arena, count, &err) != PD_OK) abort();
    PD_CHECK_OK(device->download(device, host, (const int *)v->data + at, count * sizeof *host, &err));
    return host;
}

/* The gradient of a parameter; NULL: there is none of that name. */
static const float *grad_of(pd_detector *d, const char *name, size_t *count, pd_arena *arena)
{
    const pd_params *params = pd_detector_params(d);
    const pd_param *p = pd_params_find(params, name);
    float *host;
    *count = p ? p->count : 0;
    PD_CHECK_MSG(p != NULL, "there is no %s", name);
    if (!p) return NULL;
    if (PD_ALLOC(&host, arena, p->count, &err) != PD_OK) abort();
    PD_CHECK_OK(pd_param_read(host, params, p, pd_params_grads(params), &err));
    return host;
}

static void check_pair(const pd_json *pair, const int *got, const char *what)
{
    int i = 0;
    for (const pd_json *v = pd_json_first(pair); v; v = pd_json_next(v), i++)
        PD_CHECK_MSG(got[i] == (int)pd_json_number(v), "%s: %d, expected %d", what, got[i], (int)pd_json_number(v));
    PD_CHECK_INT(i, 2);
}

/* Which anchors and how many boxes were trained on. What these operations left is there until the backward run. */
static void check_decisions(pd_detector *d, const golden_loss *g)
{
    const pd_node *sample = find_node(d, "sample", 0), *rpn = find_node(d, "match_targets", 0);
    int image = 0;
    for (const pd_json *v = pd_json_first(pd_json_member(g->root, "images")); v; v = pd_json_next(v), image++) {
        const size_t pair = 2 * (size_t)image;
        const int anchors = sample->out[0]->shape.dim[1],
                  *match = ints_of(sample->out[0], (size_t)(image * anchors), (size_t)anchors, g->arena);
        const pd_json *want = pd_json_first(pd_json_member(v, "rpn_positives"));
        int wrong = 0;
        for (int a = 0; a < anchors; a++) {
            if (match[a] < 0) continue;
            const pd_json *anchor = want ? pd_json_first(want) : NULL;
            wrong +=
                !anchor || (int)pd_json_number(anchor) != a || (int)pd_json_number(pd_json_next(anchor)) != match[a];
            want = want ? pd_json_next(want) : NULL;
        }
        PD_CHECK_MSG(wrong == 0 && !want, "image %d: %d positive anchors differ", image, wrong);
        check_pair(pd_json_member(v, "rpn_sampled"), ints_of(rpn->out[1], pair, 2, g->arena), "anchors sampled");
        for (int k = 0; k < STAGES; k++) {
            const char name[3] = {'s', (char)('0' + k), 0};
            const pd_json *stage = pd_json_member(v, name);
            check_pair(pd_json_member(stage, "sampled"),
                       ints_of(find_node(d, "match_targets", k + 1)->out[1], pair, 2, g->arena), "boxes sampled");
        }
    }
}

static void test_loss(const char *file)
{
    golden_loss g;
    PD_ROW(file);
    if (golden_loss_open(&g, file)) {
        pd_detector *d = golden_loss_detector(cascade(), &g);
        pd_losses losses;
        const pd_status ran = pd_detector_loss(d, &g.batch, 0, &losses, &err);
        PD_CHECK_OK(ran);
        if (ran == PD_OK) {
            check_losses(&g, &losses);
            check_decisions(d, &g);
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
        pd_detector *d = golden_loss_detector(cascade(), &g);
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

/* Random samplers draw by the images seen, not by what ran before; the seed changes the draw. */
static void test_draws(void)
{
    golden_loss g;
    PD_ROW("draws");
    if (golden_loss_open(&g, "cascade_loss_ragged_resnet18")) {
        pd_detector_settings set = cascade();
        set.cascade.rpn.sample.first = set.cascade.sample.first = false;
        pd_losses at[4] = {{0}};
        for (int net = 0; net < 2; net++) {
            pd_detector *d = golden_loss_detector(set, &g);
            if (net == 0) PD_CHECK_OK(pd_detector_loss(d, &g.batch, 0, &at[0], &err));
            if (net == 0) PD_CHECK_OK(pd_detector_loss(d, &g.batch, 8, &at[1], &err));
            if (net == 1) PD_CHECK_OK(pd_detector_loss(d, &g.batch, 8, &at[2], &err)); /* as after resuming */
            pd_detector_free(d);
        }
        PD_CHECK(at[0].loss != at[1].loss);
        for (int i = 0; i < at[1].count; i++) PD_CHECK(at[1].value[i] == at[2].value[i]);
        set.cascade.rpn.sample.seed = set.cascade.sample.seed = 7;
        pd_detector *d = golden_loss_detector(set, &g);
        PD_CHECK_OK(pd_detector_loss(d, &g.batch, 8, &at[3], &err));
        PD_CHECK(at[3].loss != at[1].loss);
        pd_detector_free(d);
    }
    golden_loss_close(&g);
}

/* Images without any object, and no room for one: everything is background. */
static void test_no_objects(void)
{
    golden_loss g;
    PD_ROW("no objects");
    if (golden_loss_open(&g, "cascade_loss_ragged_resnet18")) {
        pd_detector *d = golden_loss_detector(cascade(), &g);
        pd_losses losses = {0};
        g.counts[0] = g.counts[1] = g.batch.max_boxes = 0;
        g.batch.boxes = NULL;
        g.batch.box_labels = NULL;
        PD_CHECK_OK(pd_detector_loss(d, &g.batch, 0, &losses, &err));
        PD_CHECK_INT(losses.positives, 0);
        PD_CHECK_INT(losses.count, 2 + 3 * STAGES);
        for (int i = 0; i < losses.count; i++) {
            const bool box = strstr(losses.name[i], "bbox") != NULL;
            PD_CHECK_MSG(box ? losses.value[i] == 0 : isfinite(losses.value[i]), "%s is %g", losses.name[i],
                         (double)losses.value[i]);
        }
        PD_CHECK(losses.loss > 0);
        PD_CHECK_OK(pd_detector_backward(d, false, &err));
        size_t count;
        const float *reg = grad_of(d, "roi_head.bbox_head.1.fc_reg.weight", &count, g.arena);
        for (size_t i = 0; i < count; i++) PD_CHECK(reg[i] == 0);
        pd_detector_free(d);
    }
    golden_loss_close(&g);
}

/* Boxes for every class: offsets of the object's own class are trained, the others' gradients are none. */
static void test_class_boxes(void)
{
    static const char batch[] = "cascade_loss_ragged_resnet18"; /* the same images and boxes */
    golden_loss g;
    pd_losses losses = {0};
    PD_ROW("faster_loss_ragged_resnet18");
    if (golden_loss_open_on(&g, "faster_loss_ragged_resnet18", batch)) {
        pd_detector *d = golden_loss_detector(settings_of(PD_FASTER_RCNN), &g);
        PD_CHECK_OK(pd_detector_loss(d, &g.batch, 0, &losses, &err));
        check_losses(&g, &losses);
        PD_CHECK_OK(pd_detector_backward(d, false, &err));
        check_gradients(&g, pd_detector_params(d));
        size_t count;
        const float *reg = grad_of(d, "roi_head.bbox_head.fc_reg.bias", &count, g.arena);
        const int *label = g.labels;
        PD_CHECK_INT(count, 4 * 20);
        for (size_t c = 0; reg && c < 20; c++) {
            bool there = false, moved = false;
            for (int i = 0; i < GOLDEN_IMAGES * GOLDEN_BOXES; i++)
                there |= i % GOLDEN_BOXES < g.counts[i / GOLDEN_BOXES] && label[i] == (int)c;
            for (size_t i = 0; i < 4; i++) moved |= reg[4 * c + i] != 0;
            PD_CHECK_MSG(there == moved, "class %zu is %s, its offsets are %s", c, there ? "there" : "not there",
                         moved ? "trained" : "not trained");
        }
        pd_detector_free(d);
    }
    golden_loss_close(&g);
}

/* ---- what has no golden file ---- */

/* One stage, one box for all classes: other names, the same first stage. */
static void test_faster(void)
{
    golden_loss g;
    PD_ROW("faster_rcnn");
    if (golden_loss_open(&g, "cascade_loss_ragged_resnet18")) {
        pd_detector_settings set = cascade();
        pd_detector *d = NULL;
        set.type = PD_FASTER_RCNN;
        set.classes = 20;
        PD_CHECK_OK(pd_arch_parse(&set.arch, "resnet18", NULL, &err));
        PD_CHECK_FAILS(pd_detector_new(&d, device, &set, &err), PD_EINVAL, "one stage, not 3");
        set.type = PD_CASCADE_RCNN;
        set.cascade.class_boxes = true;
        PD_CHECK_FAILS(pd_detector_new(&d, device, &set, &err), PD_EINVAL, "for every class go with one stage, not 3");
        set.type = PD_FASTER_RCNN;
        set.cascade.class_boxes = false;
        set.cascade.stages = 1;
        d = golden_loss_detector(set, &g);
        pd_params *params = pd_detector_params(d);
        PD_CHECK(pd_params_find(params, "roi_head.bbox_head.shared_fcs.0.weight") != NULL);
        for (size_t i = 0; i < pd_params_count(params); i++) { /* the cascade's first stage under its other name */
            const pd_param *p = pd_params_at(params, i);
            PD_CHECK(!strstr(p->name, "bbox_head.0"));
        }
        pd_losses losses = {0};
        PD_CHECK_OK(pd_detector_loss(d, &g.batch, 0, &losses, &err));
        const pd_json *want = pd_json_member(g.root, "losses");
        PD_CHECK_INT(losses.count, 5);
        PD_CHECK_STR(losses.name[2], "loss_cls");
        PD_CHECK_STR(losses.name[3], "acc");
        for (int i = 0; i < 2; i++)
            PD_CHECK_NEAR(losses.value[i], golden_number(want, losses.name[i]),
                          1e-4 * golden_number(want, losses.name[i]));
        PD_CHECK_NEAR(losses.loss, losses.value[0] + losses.value[1] + losses.value[2] + losses.value[4],
                      1e-5 * (double)losses.loss);
        PD_CHECK_OK(pd_detector_backward(d, false, &err));
        pd_detector_free(d);
    }
    golden_loss_close(&g);
}

/* Boxes of an image that is smaller than its batch stay inside it, and come back in pixels of the original. */
static void test_small_image(void)
{
    PD_ROW("small image");
    pd_st *golden = golden_open("cascade_resnet18");
    if (!golden) return;
    pd_arena *arena = pd_arena_new();
    int xd[4];
    float *x = pd_oracle_tensor(golden, "x", xd, arena);
    pd_detector *d = golden_forward_detector(cascade(), golden);
    const pd_image_info one = {
        .h = 60, .w = 90, .pad_h = 64, .pad_w = 96, .ori_h = 120, .ori_w = 45, .scale_x = 2, .scale_y = 0.5f};
    const pd_image_info info[2] = {one, one};
    pd_detection found[2 * GOLDEN_DETS];
    int count[2] = {0, 0};
    pd_raw raw = {0};
    PD_CHECK_OK(pd_detector_raw(d, PD_FORM_FUSED, x, info, xd[0], xd[2], xd[3], &raw, &err));
    const float *box = raw_find(&raw, "proposals");
    for (int r = 0; r < 2 * ROWS; r++) PD_CHECK(box[5 * r + 2] <= 90 && box[5 * r + 3] <= 60);
    PD_CHECK_OK(pd_detector_decode(d, info, found, count, &err));
    PD_CHECK(count[0] > 0 && count[1] > 0);
    float right = 0, bottom = 0;
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < count[i]; k++) {
            right = fmaxf(right, found[i * GOLDEN_DETS + k].box.x2);
            bottom = fmaxf(bottom, found[i * GOLDEN_DETS + k].box.y2);
        }
    PD_CHECK_MSG(right > 23 && right <= 45 && bottom > 61 && bottom <= 120, "boxes reach to %g, %g", (double)right,
                 (double)bottom);
    pd_detector_free(d);
    pd_arena_free(arena);
    pd_st_close(golden);
}

int main(void)
{
    PD_CHECK_OK(pd_oracle_device(&device, &err));
    test_forward(PD_CASCADE_RCNN, "cascade_resnet18", PD_FORM_EVAL);
    test_forward(PD_CASCADE_RCNN, "cascade_pd_b_resnet18", PD_FORM_EVAL);
    test_forward(PD_CASCADE_RCNN, "cascade_pd_b_resnet18", PD_FORM_FUSED);
    test_forward(PD_FASTER_RCNN, "faster_resnet18", PD_FORM_FUSED);
    test_loss("cascade_loss_resnet18");
    test_loss("cascade_loss_ragged_resnet18");
    test_groups("cascade_loss_ragged_resnet18");
    test_draws();
    test_no_objects();
    test_class_boxes();
    test_faster();
    test_small_image();
    pd_device_close(device);
    return golden_end();
}
