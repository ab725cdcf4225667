/* Evaluates detectors from memory: the ground truth is opened once, two detectors' boxes are added image by image from
 * four threads of the caller's own, each is evaluated, and the two are compared. Prints both APs. */
#include "eval/bootstrap.h"
#include "eval/coco_ap.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define IMAGES 100
#define THREADS 4

/* What stands for a detector here: finds the object, off by `shift` pixels, and one thing that is not there. */
typedef struct {
    pd_coco_dt *dt;
    int thread;
    double shift;
    pd_err err; /* of this thread */
} share;

static void *detect(void *arg)
{
    share *const s = arg;
    for (int i = s->thread; i < IMAGES; i += THREADS) {
        const double x = i % 7;
        const pd_coco_det dets[] = {
            {.category_id = 1, .bbox = {x + s->shift, 5, 20, 20}, .score = 0.9 - 0.001 * i},
            {.category_id = 1, .bbox = {60, 60, 9, 9}, .score = 0.2},
        };
        if (pd_coco_dt_add(s->dt, pd_coco_int_id(i), dets, 2, &s->err) != PD_OK) break;
    }
    return NULL;
}

static pd_status evaluate(pd_coco_result **out, const pd_coco_gt *gt, double shift, pd_err *err)
{
    pd_coco_dt *dt = NULL;
    share shares[THREADS];
    pthread_t threads[THREADS];
    PD_TRY(pd_coco_dt_new(&dt, gt, err));
    for (int t = 0; t < THREADS; t++) {
        shares[t] = (share){dt, t, shift, PD_ERR_INIT};
        pthread_create(&threads[t], NULL, detect, &shares[t]);
    }
    pd_status status = PD_OK;
    for (int t = 0; t < THREADS; t++) {
        pthread_join(threads[t], NULL);
        if (shares[t].err.code != PD_OK) {
            *err = shares[t].err;
            status = err->code;
        }
    }
    const pd_coco_params params = {.keep = PD_COCO_KEEP_MATCHES}; /* for the comparison; else NULL will do */
    if (status == PD_OK) status = pd_coco_evaluate(out, gt, dt, &params, NULL, err);
    pd_coco_dt_close(dt);
    return status;
}

static pd_status compare(const char *gt_path, pd_err *err)
{
    pd_coco_gt *gt = NULL;
    pd_coco_result *a = NULL, *b = NULL;
    pd_coco_difference difference[PD_COCO_METRICS];
    pd_status status = pd_coco_gt_open(&gt, gt_path, NULL, NULL, err);
    if (status == PD_OK) status = evaluate(&a, gt, 1, err);
    if (status == PD_OK) status = evaluate(&b, gt, 5, err);
    const pd_coco_bootstrap how = {.rounds = 200, .level = 0.95, .seed = 1};
    if (status == PD_OK) status = pd_coco_bootstrap_compare(difference, a, b, &how, NULL, err);
    if (status == PD_OK)
        printf("%.3f %.3f %s\n", a->stats[0], b->stats[0], difference[0].interval.high < 0 ? "worse" : "alike");
    pd_coco_result_free(a);
    pd_coco_result_free(b);
    pd_coco_gt_close(gt);
    return status;
}

/* One object an image. */
static int write_ground_truth(const char *path)
{
    FILE *const f = fopen(path, "w");
    if (!f) return 0;
    fprintf(f, "{\"categories\": [{\"id\": 1, \"name\": \"thing\"}], \"images\": [");
    for (int i = 0; i < IMAGES; i++) fprintf(f, "%s{\"id\": %d}", i ? ", " : "", i);
    fprintf(f, "], \"annotations\": [");
    for (int i = 0; i < IMAGES; i++)
        fprintf(f,
                "%s{\"id\": %d, \"image_id\": %d, \"category_id\": 1, \"bbox\": [%d, 5, 20, 20], \"area\": 400, "
                "\"iscrowd\": 0}",
                i ? ",\n" : "", i + 1, i, i % 7);
    fprintf(f, "]}\n");
    return fclose(f) == 0;
}

int main(int argc, char **argv)
{
    const char *const path = argc > 1 ? argv[1] : "ground_truth.json";
    pd_err err = PD_ERR_INIT;
    if (!write_ground_truth(path) || compare(path, &err) != PD_OK) {
        fprintf(stderr, "evaluate: %s\n", err.text);
        return 1;
    }
    return 0;
}
