/* loader_set.h: pictures drawn in a folder of the test's own, a small COCO set of five of them, and what a batch holds
 * as one number. The test makes `dir` and `arena`. */
#ifndef PD_LOADER_SET_H
#define PD_LOADER_SET_H

#include "datasets/loader.h"
#include "engine/file.h"
#include "engine/rng.h"
#include "tests/pd_test.h"

#include <stddef.h>

static char dir[256];
static pd_arena *arena;

static const char *in_dir(const char *name)
{
    pd_err err = PD_ERR_INIT;
    char *full = NULL;
    PD_CHECK_OK(pd_path_join(&full, dir, name, arena, &err));
    return full;
}

static void draw(const char *name, int h, int w, uint32_t seed)
{
    pd_err err = PD_ERR_INIT;
    pd_image image = PD_IMAGE_INIT;
    pd_rng rng = pd_rng_make(seed, 0, 0);
    const double fx = 0.05 + pd_rng_double(&rng) / 4, fy = 0.05 + pd_rng_double(&rng) / 4;
    PD_CHECK_OK(pd_image_size(&image, h, w, &err));
    for (int i = 0; i < h * w * 3; i++)
        image.rgb[i] =
            (unsigned char)(128 + 60 * sin(fx * (i / 3 % w) + i % 3) + 60 * cos(fy * (i / 3 / w) + 2 * (i % 3)));
    const char *path = in_dir(name);
    char *folder = NULL;
    PD_CHECK_OK(pd_strndup(&folder, arena, path, (size_t)(strrchr(path, '/') - path), &err));
    PD_CHECK_OK(pd_make_dirs(folder, &err));
    PD_CHECK_OK(pd_image_save(path, &image, &err));
    pd_image_free(&image);
}

static uint64_t hash(uint64_t h, const void *data, size_t size)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < size; i++) h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

static uint64_t hash_batch(const pd_batch *b)
{
    uint64_t h = hash(14695981039346656037u, &b->n, sizeof b->n);
    const size_t n = (size_t)b->n;
    h = hash(h, b->pixels, n * (size_t)b->h * (size_t)b->w * 3 * sizeof(float));
    for (size_t i = 0; i < n; i++) /* without the padding at its end */
        h = hash(h, &b->info[i], offsetof(pd_image_info, flipped) + sizeof(int));
    if (b->labels) h = hash(h, b->labels, n * sizeof *b->labels);
    for (size_t i = 0; b->boxes && i < n; i++) {
        const size_t row = i * (size_t)b->max_boxes, k = (size_t)b->n_boxes[i];
        h = hash(h, b->boxes + row, k * sizeof *b->boxes);
        h = hash(h, b->box_labels + row, k * sizeof *b->box_labels);
    }
    return h;
}

static pd_coco open_coco(const char *json)
{
    pd_err err = PD_ERR_INIT;
    pd_coco set = {0};
    PD_CHECK_OK(pd_file_write(in_dir("det/gt.json"), json, strlen(json), &err));
    PD_CHECK_OK(pd_coco_open(&set, in_dir("det/gt.json"), NULL, 0, arena, &err));
    return set;
}

static const char set_json[] = "{\"images\": [{\"id\": 10, \"width\": 40, \"height\": 30, \"file_name\": \"w0.png\"},"
                               "{\"id\": 11, \"width\": 30, \"height\": 40, \"file_name\": \"h0.png\"},"
                               "{\"id\": 12, \"width\": 50, \"height\": 30, \"file_name\": \"w1.png\"},"
                               "{\"id\": 13, \"width\": 30, \"height\": 30, \"file_name\": \"h1.png\"},"
                               "{\"id\": 14, \"width\": 41, \"height\": 30, \"file_name\": \"w2.png\"}],"
                               "\"categories\": [{\"id\": 3, \"name\": \"a\"}, {\"id\": 1, \"name\": \"b\"}],"
                               "\"annotations\": [{\"image_id\": 10, \"category_id\": 3, \"bbox\": [10, 5, 20, 10]},"
                               "{\"image_id\": 10, \"category_id\": 1, \"bbox\": [0, 0, 8, 8], \"iscrowd\": 1},"
                               "{\"image_id\": 10, \"category_id\": 1, \"bbox\": [0, 0, 8, 60]},"
                               "{\"image_id\": 12, \"category_id\": 1, \"bbox\": [1, 2, 3, 4]}]}";

/* The pictures of set_json. */
static void draw_set(void)
{
    static const struct {
        const char *name;
        int h, w;
    } det[] = {{"det/w0.png", 30, 40},
               {"det/h0.png", 40, 30},
               {"det/w1.png", 30, 50},
               {"det/h1.png", 30, 30},
               {"det/w2.png", 30, 41}};
    for (uint32_t i = 0; i < 5; i++) draw(det[i].name, det[i].h, det[i].w, i);
}

#endif
