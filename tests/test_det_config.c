/* The configuration of detectors: its defaults are the library's, every file in configs/ is one, wrong values are
 * named. */
#include "engine/file.h"
#include "tests/pd_test.h"
#include "tools/det_config.h"

static pd_err err;
static pd_arena *arena;

/* A file of configs/, or {} where name is NULL, with up to two assignments over it. */
static pd_status settings(pd_detector_settings *out, const char *name, const char *one, const char *two)
{
    pd_config *c = NULL;
    pd_det_config cfg;
    char path[512];
    pd_status status = PD_OK;
    snprintf(path, sizeof path, "%s/configs/%s", PD_SOURCE_DIR, name ? name : "");
    if (name)
        PD_TRY(pd_config_load(&c, path, &err));
    else
        PD_TRY(pd_config_parse(&c, "nothing", "{}", 2, &err));
    if (one) PD_TRY_DONE(pd_config_set(c, one, &err));
    if (two) PD_TRY_DONE(pd_config_set(c, two, &err));
    PD_TRY_DONE(pd_config_read(&cfg, c, &pd_det_table, arena, &err));
    status = pd_det_settings(out, &cfg, 80, &err);
done:
    pd_config_free(c);
    return status;
}

static void same_assign(const pd_assign_cfg *a, const pd_assign_cfg *b)
{
    PD_CHECK(a->pos == b->pos && a->neg == b->neg && a->min_pos == b->min_pos && a->low_quality == b->low_quality &&
             a->border == b->border);
}

static void same_sample(const pd_sample_cfg *a, const pd_sample_cfg *b)
{
    PD_CHECK(a->num == b->num && a->fraction == b->fraction && a->first == b->first && a->stream == b->stream);
}

static void same_proposals(const pd_proposals_cfg *a, const pd_proposals_cfg *b)
{
    PD_CHECK(a->pre_nms == b->pre_nms && a->max_keep == b->max_keep && a->nms_iou == b->nms_iou &&
             a->nms_exact == b->nms_exact && !memcmp(&a->coder, &b->coder, sizeof a->coder));
}

static void same_rcnn(const pd_cascade_cfg *a, const pd_cascade_cfg *b)
{
    same_assign(&a->rpn.assign, &b->rpn.assign);
    same_sample(&a->rpn.sample, &b->rpn.sample);
    same_proposals(&a->rpn.train, &b->rpn.train);
    same_proposals(&a->rpn.test, &b->rpn.test);
    same_sample(&a->sample, &b->sample);
    PD_CHECK(a->rpn.smooth_l1_beta == b->rpn.smooth_l1_beta && a->smooth_l1_beta == b->smooth_l1_beta);
    PD_CHECK_INT(a->norm_group, b->norm_group);
    PD_CHECK_INT(a->stages, b->stages);
    PD_CHECK_INT(a->class_boxes, b->class_boxes);
    for (int k = 0; k < a->stages && k < b->stages; k++) {
        same_assign(&a->stage[k].assign, &b->stage[k].assign);
        PD_CHECK(a->stage[k].weight == b->stage[k].weight &&
                 !memcmp(&a->stage[k].coder, &b->stage[k].coder, sizeof(pd_box_coder)));
    }
}

static void same(const pd_detector_settings *a, pd_detector_type type)
{
    const pd_detector_settings b = pd_detector_defaults(type);
    const pd_retinanet_cfg *r = &a->retinanet, *q = &b.retinanet;
    PD_ROW(pd_detector_name(type));
    PD_CHECK_INT(a->type, type);
    PD_CHECK_INT(a->frozen_stages, b.frozen_stages);
    PD_CHECK(r->focal.alpha == q->focal.alpha && r->focal.gamma == q->focal.gamma &&
             r->smooth_l1_beta == q->smooth_l1_beta && r->norm_group == q->norm_group);
    same_assign(&r->assign, &q->assign);
    same_rcnn(&a->cascade, &b.cascade);
    PD_CHECK(a->test.pre_nms == b.test.pre_nms && a->test.score_thresh == b.test.score_thresh &&
             a->test.nms_iou == b.test.nms_iou && a->test.nms_exact == b.test.nms_exact &&
             a->test.max_per_image == b.test.max_per_image && a->test.topk_mode == b.test.topk_mode);
    PD_ROW("");
}

static void test_defaults(void)
{
    pd_detector_settings s = {.classes = 0};
    PD_CHECK_OK(settings(&s, NULL, "model.type=retinanet", NULL));
    PD_CHECK_INT(s.classes, 80);
    same(&s, PD_RETINANET);
    PD_CHECK_OK(settings(&s, NULL, "model.type=cascade_rcnn", "model.num_classes=7"));
    PD_CHECK_INT(s.classes, 7);
    same(&s, PD_CASCADE_RCNN);
    PD_CHECK_OK(settings(&s, "base/faster.json", NULL, NULL));
    same(&s, PD_FASTER_RCNN);
}

static void test_keys(void)
{
    pd_detector_settings s = {.classes = 0};
    PD_CHECK_OK(settings(&s, "cascade_r50.json", "model.rcnn.sampler=first", "train.seed=9"));
    PD_CHECK(s.cascade.sample.first && s.cascade.rpn.sample.first);
    PD_CHECK_INT(s.cascade.sample.seed, 9);
    PD_CHECK_INT(s.cascade.rpn.sample.seed, 9);
    PD_CHECK_OK(settings(&s, "cascade_r50.json", "model.rcnn.rpn.test_proposals=50", "model.test.nms_exact=true"));
    PD_CHECK(s.cascade.rpn.test.max_keep == 50 && s.cascade.rpn.test.nms_exact && s.cascade.rpn.train.max_keep == 2000);
    PD_CHECK_FAILS(settings(&s, "cascade_r50.json", "model.type=faster_rcnn", NULL), PD_EFORMAT, "one stage");
    PD_CHECK_FAILS(settings(&s, "cascade_r50.json", "model.rcnn.stages.weights=[1, 1]", NULL), PD_EINVAL,
                   "3 weights and 12 stds");
    PD_CHECK_FAILS(settings(&s, "cascade_r50.json", "model.rcnn.stages.ious=[]", NULL), PD_EINVAL, "one per stage");
    PD_CHECK_FAILS(settings(&s, "cascade_r50.json", "model.rcnn.stages.reg_class_agnostic=false", NULL), PD_EINVAL,
                   "goes with one stage, but ious has 3");
    PD_CHECK_OK(settings(&s, "cascade_r50.json", "model.rcnn.stages.low_quality=true", NULL));
    PD_CHECK(s.cascade.stage[0].assign.low_quality && s.cascade.stage[2].assign.low_quality);
    PD_CHECK_OK(settings(&s, "faster_r50.json", "model.rcnn.stages.reg_class_agnostic=true", NULL));
    PD_CHECK(!s.cascade.class_boxes);
    PD_CHECK_FAILS(settings(&s, "cascade_r50.json", "model.rcnn.rpn.neg_iou=0.9", NULL), PD_EFORMAT,
                   "more than pos_iou");
    PD_CHECK_FAILS(settings(&s, "cascade_r50.json", "model.rcnn.sampler=last", NULL), PD_EINVAL, "first");
    PD_CHECK_FAILS(settings(&s, "cascade_r50.json", "model.type=cascade", NULL), PD_EINVAL, "cascade_rcnn");
    pd_detector_type type = PD_RETINANET;
    for (int i = 0; i < PD_DETECTOR_TYPES; i++) {
        PD_CHECK_OK(pd_detector_parse(&type, pd_detector_name((pd_detector_type)i), &err));
        PD_CHECK_INT(type, i);
    }
    PD_CHECK_FAILS(pd_detector_parse(&type, "yolo", &err), PD_EINVAL, "faster_rcnn");
}

/* Every detector's configuration that is delivered. */
static void test_files(void)
{
    static const char *const kinds[] = {"retina", "cascade", "faster", "demo_retina", "demo_cascade"};
    char **names, dir[512];
    size_t count = 0;
    int seen = 0;
    snprintf(dir, sizeof dir, "%s/configs", PD_SOURCE_DIR);
    PD_CHECK_OK(pd_list_dir(&names, &count, dir, 'f', arena, &err));
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
            pd_detector_settings s;
            if (strncmp(names[i], kinds[k], strlen(kinds[k])) != 0) continue;
            PD_ROW(names[i]);
            PD_CHECK_OK(settings(&s, names[i], NULL, NULL));
            seen++;
        }
    PD_ROW("");
    PD_CHECK(seen >= 9);
}

int main(void)
{
    arena = pd_arena_new();
    test_defaults();
    test_keys();
    test_files();
    pd_arena_free(arena);
    return pd_test_end();
}
