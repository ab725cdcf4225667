/* Detections: RetinaNet's against a slow, plain program; proposals, refinement and box heads against PyTorch's figures.
 */
#include "detectors/candidates.h"
#include "engine/plan.h"
#include "engine/rng.h"
#include "engine/safetensors.h"
#include "kernels/proposals.h"
#include "kernels/refine.h"
#include "kernels/soft_nms.h"
#include "tests/pd_test.h"

static pd_err err;

/* ---- RetinaNet: the same steps without any shortcut ---- */

typedef struct pair {
    float score, x1, y1, x2, y2;
    int label, rank; /* rank: position before sorting, for ties */
} pair;

static int by_score(const void *a, const void *b)
{
    const pair *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? 1 : -1;
    return (x->rank > y->rank) - (x->rank < y->rank);
}

static int plain_nms(pd_detection *out, pair *list, int n, const pd_postprocess_cfg *cfg)
{
    float most = -INFINITY;
    for (int i = 0; i < n; i++) {
        list[i].rank = i;
        most = fmaxf(most, fmaxf(fmaxf(list[i].x1, list[i].x2), fmaxf(list[i].y1, list[i].y2)));
    }
    qsort(list, (size_t)n, sizeof *list, by_score);
    int kept = 0;
    pd_box *moved = calloc((size_t)n + 1, sizeof *moved);
    int *label = calloc((size_t)n + 1, sizeof *label);
    if (!moved || !label) exit(1);
    for (int i = 0; i < n && kept < cfg->max_per_image; i++) {
        const float by = cfg->nms_exact ? 0 : (float)list[i].label * (most + 1);
        const pd_box b = {list[i].x1 + by, list[i].y1 + by, list[i].x2 + by, list[i].y2 + by};
        bool drop = false;
        for (int k = 0; k < kept; k++) {
            const float inter = pd_box_intersection(moved[k], b);
            const float limit = cfg->nms_iou * ((pd_box_area(moved[k]) + pd_box_area(b)) - inter);
            drop = drop || (inter > limit && (!cfg->nms_exact || label[k] == list[i].label));
        }
        if (drop) continue;
        moved[kept] = b;
        label[kept] = list[i].label;
        out[kept++] = (pd_detection){{list[i].x1, list[i].y1, list[i].x2, list[i].y2}, list[i].score, list[i].label};
    }
    free(moved);
    free(label);
    return kept;
}

static float sigmoid(float x)
{
    return 1.f / (1.f + expf(-x));
}

static pair candidate(const pd_head_outputs *heads, const pd_image_info *info, const pd_postprocess_cfg *cfg, int l,
                      int image, int a, int c)
{
    const int in_level = heads->grid->first[l + 1] - heads->grid->first[l];
    const float *t = heads->deltas[l] + 4 * (image * in_level + a);
    pd_box p;
    pd_anchor_fill(&p, heads->grid, heads->grid->first[l] + a, heads->grid->first[l] + a + 1);
    p = pd_box_decode(&cfg->coder, p, (pd_delta){t[0], t[1], t[2], t[3]});
    p = pd_box_clip(&cfg->coder, p, info->h, info->w);
    return (pair){.score = sigmoid(heads->logits[l][(image * in_level + a) * heads->k + c]),
                  .x1 = p.x1 / info->scale_x,
                  .y1 = p.y1 / info->scale_y,
                  .x2 = p.x2 / info->scale_x,
                  .y2 = p.y2 / info->scale_y,
                  .label = c};
}

static int plain_retina(pd_detection *out, const pd_head_outputs *heads, const pd_image_info *info,
                        const pd_postprocess_cfg *cfg, int image)
{
    const int k = heads->k, all = pd_anchor_count(heads->grid) * k;
    pair *list = calloc((size_t)all + 1, sizeof *list), *level = calloc((size_t)all + 1, sizeof *level);
    int n = 0;
    if (!list || !level) exit(1);
    for (int l = 0; l < heads->grid->levels; l++) {
        const int in_level = heads->grid->first[l + 1] - heads->grid->first[l];
        int m = 0;
        if (cfg->topk_mode == PD_TOPK_ANCHORS) {
            for (int a = 0; a < in_level; a++) {
                level[m] = (pair){.rank = a, .score = -INFINITY};
                for (int c = 0; c < k; c++)
                    level[m].score = fmaxf(level[m].score, candidate(heads, info, cfg, l, image, a, c).score);
                m++;
            }
            if (m > cfg->pre_nms) {
                qsort(level, (size_t)m, sizeof *level, by_score);
                m = cfg->pre_nms;
            }
            for (int i = 0; i < m; i++)
                for (int c = 0; c < k; c++) {
                    const pair p = candidate(heads, info, cfg, l, image, level[i].rank, c);
                    if (p.score > cfg->score_thresh) list[n++] = p;
                }
            continue;
        }
        for (int i = 0; i < in_level * k; i++) {
            level[m] = candidate(heads, info, cfg, l, image, i / k, i % k);
            level[m].rank = i;
            m += level[m].score > cfg->score_thresh;
        }
        qsort(level, (size_t)m, sizeof *level, by_score);
        for (int i = 0; i < m && i < cfg->pre_nms; i++) list[n++] = level[i];
    }
    const int kept = plain_nms(out, list, n, cfg);
    free(list);
    free(level);
    return kept;
}

static void test_retina(void)
{
    enum { N = 3, ROOM = 400 };
    static const int h[3] = {12, 6, 3}, w[3] = {15, 8, 4}, stride[3] = {8, 16, 32}, classes[] = {1, 3, 17, 40};
    const pd_anchor_cfg anchors = pd_anchor_cfg_retina();
    pd_anchor_grid grid;
    PD_CHECK_OK(pd_anchor_grid_init(&grid, &anchors, 3, h, w, stride, &err));
    const int total = pd_anchor_count(&grid);
    for (int round = 0; round < 24; round++) {
        char row[64];
        snprintf(row, sizeof row, "seed %d", round);
        PD_ROW(row);
        pd_rng rng = pd_rng_make(3, (uint32_t)round, 0);
        pd_head_outputs heads = {.n = N, .k = classes[round % 4], .grid = &grid};
        float *logits = malloc((size_t)(N * total * heads.k) * sizeof *logits);
        float *deltas = malloc((size_t)(N * total * 4) * sizeof *deltas);
        if (!logits || !deltas) exit(1);
        for (int i = 0; i < N * total * heads.k; i++) {
            const float v = 6 * (float)pd_rng_normal(&rng) / 2 - 4;
            const float edge = -2.9444f + 0.004f * (float)pd_rng_normal(&rng); /* score about 0.05 */
            logits[i] = i % 50 == 0      ? edge
                        : round % 3 == 0 ? roundf(v)
                        : round % 3 == 1 ? v
                                         : v + 25; /* ties; usual; saturated */
        }
        for (int i = 0; i < N * total * 4; i++) deltas[i] = 0.5f * (float)pd_rng_normal(&rng);
        for (int l = 0, at = 0; l < 3; at += N * (grid.first[l + 1] - grid.first[l]), l++) {
            heads.logits[l] = logits + (size_t)at * (size_t)heads.k;
            heads.deltas[l] = deltas + (size_t)at * 4;
        }
        pd_image_info info[N];
        for (int i = 0; i < N; i++)
            info[i] = (pd_image_info){.h = 90 - i, .w = 115 - 9 * i, .scale_x = 1.25f, .scale_y = 0.7f + (float)i};
        pd_postprocess_cfg cfg = pd_postprocess_cfg_default();
        cfg.pre_nms = round % 5 ? 200 : 5000;
        cfg.max_per_image = round % 2 ? ROOM : 7;
        cfg.topk_mode = round % 8 < 4 ? PD_TOPK_ANCHORS : PD_TOPK_PAIRS;
        cfg.nms_exact = round % 7 == 3;
        if (round % 6 == 5) cfg.score_thresh = round % 4 == 3 ? 0 : 0.97f;
        for (int threads = 1; threads <= 3; threads += 2) {
            pd_pool *pool = NULL;
            pd_detection got[N * ROOM], want[ROOM];
            int count[N];
            memset(got, 0, sizeof got);
            PD_CHECK_OK(pd_pool_new(&pool, threads, &err));
            PD_CHECK_OK(pd_postprocess(got, count, &heads, info, &cfg, pool, &err));
            for (int i = 0; i < N; i++) {
                memset(want, 0, sizeof want);
                PD_CHECK_INT(count[i], plain_retina(want, &heads, &info[i], &cfg, i));
                const pd_detection *mine = got + i * cfg.max_per_image;
                int wrong = 0;
                for (int k = 0; k < count[i]; k++) wrong += memcmp(&mine[k], &want[k], sizeof *want) != 0;
                PD_CHECK_INT(wrong, 0);
            }
            pd_pool_free(pool);
        }
        free(logits);
        free(deltas);
    }
    PD_ROW("");
}

static void test_retina_errors(void)
{
    const pd_anchor_cfg anchors = pd_anchor_cfg_retina();
    const int one = 1;
    pd_anchor_grid grid;
    PD_CHECK_OK(pd_anchor_grid_init(&grid, &anchors, 1, &one, &one, &one, &err));
    pd_head_outputs heads = {.n = 1, .k = 1, .grid = &grid};
    pd_image_info info = {.scale_x = 1};
    pd_postprocess_cfg cfg = pd_postprocess_cfg_default();
    int count = -3;
    PD_CHECK_FAILS(pd_postprocess(NULL, &count, &heads, &info, &cfg, NULL, &err), PD_EINVAL, "scale factors 1 and 0");
    info.scale_y = 1;
    heads.k = 0;
    PD_CHECK_FAILS(pd_postprocess(NULL, &count, &heads, &info, &cfg, NULL, &err), PD_EINVAL, "0 classes");
    cfg.max_per_image = 0;
    PD_CHECK_FAILS(pd_postprocess(NULL, &count, &heads, &info, &cfg, NULL, &err), PD_EINVAL, "max_per_image 0");
    cfg = pd_postprocess_cfg_default();
    cfg.score_thresh = NAN;
    PD_CHECK_FAILS(pd_postprocess(NULL, &count, &heads, &info, &cfg, NULL, &err), PD_EINVAL, "score_thresh nan");
    PD_CHECK_INT(count, -3);
}

/* ---- the two-stage pieces, on the outputs of a whole network ---- */

typedef struct file {
    pd_st *st;
    pd_arena *arena;
} file;

static float *tensor(file *f, const char *name, int dim[4])
{
    const pd_st_tensor *t = pd_st_find(f->st, name);
    float *v = NULL;
    if (!t || PD_ALLOC(&v, f->arena, t->elements + 1, NULL) != PD_OK) {
        fprintf(stderr, "no tensor %s\n", name);
        exit(1);
    }
    pd_st_read_f32(v, t);
    for (int i = 0; dim && i < 4; i++) dim[i] = i < t->ndim ? (int)t->shape[i] : 1;
    return v;
}

/* [1, c, h, w] -> (1, h, w, c) */
static float *channels_last(file *f, const float *from, const int dim[4])
{
    float *to = NULL;
    const int c = dim[1], hw = dim[2] * dim[3];
    if (PD_ALLOC(&to, f->arena, (size_t)(c * hw), NULL) != PD_OK) exit(1);
    for (int k = 0; k < c; k++)
        for (int i = 0; i < hw; i++) to[i * c + k] = from[k * hw + i];
    return to;
}

static bool near_box(pd_box a, pd_box b)
{
    return fabsf(a.x1 - b.x1) < 0.05f && fabsf(a.y1 - b.y1) < 0.05f && fabsf(a.x2 - b.x2) < 0.05f &&
           fabsf(a.y2 - b.y2) < 0.05f;
}

static void test_proposals(file *f, pd_device *device)
{
    static const int stride[5] = {4, 8, 16, 32, 64};
    const pd_anchor_cfg anchors = pd_anchor_cfg_rpn();
    pd_anchor_grid grid;
    pd_params *params = NULL;
    pd_tape *tape = NULL;
    pd_plan *plan = NULL;
    pd_value *logits[5], *deltas[5];
    int h[5], w[5], sizes[4];
    PD_CHECK_OK(pd_params_new(&params, &err));
    PD_CHECK_OK(pd_tape_new(&tape, params, false, &err));
    for (int l = 0; l < 5; l++) {
        char name[32];
        int dim[4];
        snprintf(name, sizeof name, "rpn_cls.%d", l);
        const float *cls = tensor(f, name, dim);
        h[l] = dim[2];
        w[l] = dim[3];
        logits[l] = pd_tape_input(tape, name, PD_F32, PD_SHAPE(1, h[l], w[l], 3));
        pd_plan_bind(logits[l], channels_last(f, cls, dim));
        snprintf(name, sizeof name, "rpn_bbox.%d", l);
        const float *reg = tensor(f, name, dim);
        deltas[l] = pd_tape_input(tape, name, PD_F32, PD_SHAPE(1, h[l], w[l], 12));
        pd_plan_bind(deltas[l], channels_last(f, reg, dim));
    }
    const float *shape = tensor(f, "img_shape", NULL);
    for (int i = 0; i < 4; i++) sizes[i] = (int)shape[i % 2];
    PD_CHECK_OK(pd_anchor_grid_init(&grid, &anchors, 5, h, w, stride, &err));
    pd_value *size = pd_tape_input(tape, "sizes", PD_I32, PD_SHAPE(1, 4));
    pd_plan_bind(size, sizes);
    const pd_proposals_cfg cfg = {1000, 1000, 0.7f, false, pd_box_coder_unit()};
    const pd_proposals_out out = pd_proposals(tape, &grid, logits, deltas, size, &cfg);
    pd_tape_keep(tape, out.boxes);
    pd_tape_keep(tape, out.score);
    pd_tape_keep(tape, out.count);
    PD_CHECK_OK(pd_params_allocate(params, device, false, &err));
    PD_CHECK_OK(pd_plan_new(&plan, tape, device, PD_PLAN_INFER, NULL, &err));
    PD_CHECK_OK(pd_plan_forward(plan, &err));
    const int count = (int)*tensor(f, "num_proposals", NULL);
    const float *want = tensor(f, "proposals", NULL), *score = out.score->data;
    const pd_box *box = out.boxes->data;
    PD_CHECK_INT(*(int *)out.count->data, count);
    int lost = 0;
    for (int i = 0; i < count; i++) {
        const pd_box b = {want[5 * i], want[5 * i + 1], want[5 * i + 2], want[5 * i + 3]};
        int k = i > 3 ? i - 3 : 0;
        while (k < i + 4 && k < count && !(near_box(b, box[k]) && fabsf(score[k] - want[5 * i + 4]) < 1e-5f)) k++;
        lost += k >= i + 4 || k >= count;
    }
    PD_CHECK_MSG(lost == 0, "%d of %d proposals lost", lost, count);
    for (int i = 1; i < count; i++)
        if (score[i] > score[i - 1]) PD_CHECK(!"by descending score");
    for (int i = count; i < 1000; i++)
        if (score[i] != 0 || box[i].x2 != 0) PD_CHECK(!"zeros behind");
    pd_plan_free(plan);
    pd_tape_free(tape);
    pd_params_free(params);
}

static void test_stages(file *f, pd_device *device)
{
    static const float stds[3][4] = {
        {0.1f, 0.1f, 0.2f, 0.2f}, {0.05f, 0.05f, 0.1f, 0.1f}, {0.033f, 0.033f, 0.067f, 0.067f}};
    const int count = (int)*tensor(f, "num_proposals", NULL);
    const float *shape = tensor(f, "img_shape", NULL);
    int n = count, sizes[4] = {(int)shape[0], (int)shape[1], (int)shape[0], (int)shape[1]}, dim[4];
    pd_box last[1000];
    pd_roi_outputs heads = {.n = 1, .m = 1000, .stages = 3, .count = &count, .boxes = last};
    for (int k = 0; k < 3; k++) {
        char name[32];
        pd_params *params = NULL;
        pd_tape *tape = NULL;
        pd_plan *plan = NULL;
        PD_CHECK_OK(pd_params_new(&params, &err));
        PD_CHECK_OK(pd_tape_new(&tape, params, false, &err));
        snprintf(name, sizeof name, "stage%d.cls_score", k);
        heads.logits[k] = tensor(f, name, dim);
        heads.k = dim[2] - 1;
        pd_value *rois = pd_tape_input(tape, "rois", PD_F32, PD_SHAPE(1, 1000, 4));
        pd_value *deltas = pd_tape_input(tape, "deltas", PD_F32, PD_SHAPE(1000, 4));
        pd_value *counts = pd_tape_input(tape, "n", PD_I32, PD_SHAPE(1));
        pd_value *size = pd_tape_input(tape, "sizes", PD_I32, PD_SHAPE(1, 4));
        snprintf(name, sizeof name, "stage%d.rois", k);
        pd_plan_bind(rois, tensor(f, name, NULL));
        snprintf(name, sizeof name, "stage%d.bbox_pred", k);
        pd_plan_bind(deltas, tensor(f, name, NULL));
        pd_plan_bind(counts, &n);
        pd_plan_bind(size, sizes);
        pd_box_coder coder = {.o = 0};
        memcpy(coder.std, stds[k], sizeof coder.std);
        const pd_refined r = pd_refine(tape, rois, counts, deltas, NULL, size, &coder);
        pd_tape_keep(tape, r.boxes);
        pd_tape_keep(tape, r.count);
        PD_CHECK_OK(pd_params_allocate(params, device, false, &err));
        PD_CHECK_OK(pd_plan_new(&plan, tape, device, PD_PLAN_INFER, NULL, &err));
        PD_CHECK_OK(pd_plan_forward(plan, &err));
        memcpy(last, r.boxes->data, sizeof last);
        PD_CHECK_INT(*(int *)r.count->data, count);
        if (k < 2) {
            snprintf(name, sizeof name, "stage%d.rois", k + 1);
            const float *want = tensor(f, name, NULL);
            double worst = 0;
            for (int i = 0; i < 4 * count; i++)
                worst = fmax(worst, fabs((double)((float *)r.boxes->data)[i] - (double)want[i]));
            PD_CHECK_NEAR(worst, 0, 1e-4);
        }
        pd_plan_free(plan);
        pd_tape_free(tape);
        pd_params_free(params);
    }
    pd_image_info info = {.h = sizes[0], .w = sizes[1], .scale_x = 1, .scale_y = 1};
    pd_postprocess_cfg cfg = pd_postprocess_cfg_default();
    pd_detection found[100];
    int dets = 0, lost = 0;
    PD_CHECK_OK(pd_postprocess_rois(found, &dets, &heads, &info, &cfg, NULL, &err));
    const int want = (int)*tensor(f, "num_dets", NULL);
    const float *boxes = tensor(f, "det.boxes", NULL), *scores = tensor(f, "det.scores", NULL);
    const float *labels = tensor(f, "det.labels", NULL);
    PD_CHECK_INT(dets, want);
    for (int i = 0; i < want; i++) {
        const pd_box b = {boxes[4 * i], boxes[4 * i + 1], boxes[4 * i + 2], boxes[4 * i + 3]};
        bool there = false;
        for (int k = 0; k < dets && !there; k++)
            there = near_box(b, found[k].box) && found[k].label == (int)labels[i] &&
                    fabsf(found[k].score - scores[i]) < 1e-5f;
        lost += !there;
    }
    PD_CHECK_MSG(lost == 0, "%d of %d detections lost", lost, want);
    const int too_many = 1001;
    heads.count = &too_many;
    PD_CHECK_FAILS(pd_postprocess_rois(found, &dets, &heads, &info, &cfg, NULL, &err), PD_EINVAL, "1001 rows");
    heads.stages = 0;
    PD_CHECK_FAILS(pd_postprocess_rois(found, &dets, &heads, &info, &cfg, NULL, &err), PD_EINVAL, "0 stages");
}

/* Worked by hand: IoU of boxes 0 and 1 is 0.5, of 0 and 2 is 1/3, of 1 and 2 is 0.5; 3 is alone; 4 lies on 0 but is of
 * another class. exp(-0.5^2 / 0.5) = 0.60653066, exp(-(1/3)^2 / 0.5) = 0.80073740. */
static void test_soft_nms(void)
{
    static const pd_box boxes[] = {{0, 0, 10, 10}, {0, 0, 10, 20}, {0, 5, 10, 15}, {50, 50, 60, 60}, {0, 0, 10, 10}};
    static const float scores[] = {0.9f, 0.8f, 0.7f, 0.3f, 0.6f};
    static const int labels[] = {0, 0, 0, 0, 1};
    static const struct {
        pd_soft_nms_cfg cfg;
        int kept, index[5];
        double score[5];
    } rows[] = {
        /* 0; then 2 (1/3 > 0.3: 0.7 * 2/3) is 0.4667, 1 is 0.4, 4 keeps 0.6: 4, 2; 1 by 2: 0.2; 3 */
        {{PD_SOFT_LINEAR, 0.3f, 0.5f, 0.05f, 9}, 5, {0, 4, 2, 3, 1}, {0.9, 0.6, 0.7 * 2 / 3, 0.3, 0.2}},
        /* 1/3 is not above 0.4: 2 keeps 0.7; 1 is 0.4, then 0.2 */
        {{PD_SOFT_LINEAR, 0.4f, 0.5f, 0.05f, 9}, 5, {0, 2, 4, 3, 1}, {0.9, 0.7, 0.6, 0.3, 0.2}},
        {{PD_SOFT_LINEAR, 0.3f, 0.5f, 0.25f, 9}, 4, {0, 4, 2, 3}, {0.9, 0.6, 0.7 * 2 / 3, 0.3}},
        {{PD_SOFT_LINEAR, 0.3f, 0.5f, 0.05f, 2}, 2, {0, 4}, {0.9, 0.6}},
        {{PD_SOFT_GAUSSIAN, 0, 0.5f, 0.05f, 9},
         5,
         {0, 4, 2, 3, 1},
         {0.9, 0.6, 0.7 * 0.80073740, 0.3, 0.8 * 0.60653066 * 0.60653066}},
    };
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        char work[256];
        float s[5];
        int keep[5];
        memcpy(s, scores, sizeof s);
        PD_CHECK(pd_soft_nms_work(5) <= sizeof work);
        PD_CHECK_INT(pd_soft_nms(keep, boxes, s, labels, 5, &rows[r].cfg, work), rows[r].kept);
        for (int i = 0; i < rows[r].kept; i++) {
            PD_CHECK_INT(keep[i], rows[r].index[i]);
            PD_CHECK_NEAR(s[keep[i]], rows[r].score[i], 1e-6);
        }
    }
    /* by the settings of a detector */
    pd_postprocess_cfg cfg = pd_postprocess_cfg_default();
    pd_candidates c = {0};
    pd_detection found[100];
    int count = 0;
    for (int i = 0; i < 5; i++) PD_CHECK_OK(pd_candidates_add(&c, boxes[i], scores[i], labels[i], &err));
    PD_CHECK_OK(pd_candidates_detect(&c, &cfg, found, &count, &err));
    PD_CHECK_INT(count, 5); /* no overlap is above 0.5 */
    cfg.nms_iou = 0.3f;
    cfg.nms_type = PD_NMS_SOFT_LINEAR;
    PD_CHECK_OK(pd_candidates_detect(&c, &cfg, found, &count, &err));
    PD_CHECK(count == 5 && found[1].label == 1 && found[4].box.y2 == 20);
    PD_CHECK_NEAR(found[4].score, 0.2, 1e-6);
    pd_candidates_free(&c);
}

int main(void)
{
    pd_device *device = NULL;
    file f = {NULL, pd_arena_new()};
    test_retina();
    test_retina_errors();
    test_soft_nms();
    PD_CHECK_OK(pd_device_open(&device, "cpu", 2, &err));
    PD_CHECK_OK(pd_st_open(&f.st, PD_GOLDEN "/detection/cascade_pd_b_resnet18.safetensors", &err));
    if (f.st) {
        test_proposals(&f, device);
        test_stages(&f, device);
    }
    pd_st_close(f.st);
    pd_arena_free(f.arena);
    pd_device_close(device);
    return pd_test_end();
}
