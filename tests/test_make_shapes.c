/* pd_make_shapes: its sets are readable, consistent, the same for any thread count, and never mixed with old ones. */
#include "datasets/coco.h"
#include "datasets/imagenet.h"
#include "engine/file.h"
#include "engine/json.h"
#include "tests/md5.h"
#include "tests/pd_test.h"
#include "tools/shapes.h"

#include <sys/wait.h>

static pd_arena *arena;
static char dir[256];

static int run(const char *arguments)
{
    char command[2400];
    snprintf(command, sizeof command, "%s/pd_make_shapes %s >'%s/out' 2>'%s/err'", PD_BIN_DIR, arguments, dir, dir);
    const int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool said(const char *part)
{
    pd_err err = PD_ERR_INIT;
    char path[300];
    pd_bytes text = {NULL, 0};
    snprintf(path, sizeof path, "%s/err", dir);
    PD_CHECK_OK(pd_file_read(&text, path, 0, arena, &err));
    return text.data && strstr((const char *)text.data, part);
}

static void check_coco(const char *root, const char *split, size_t images, pd_image *image)
{
    pd_err err = PD_ERR_INIT;
    char path[600];
    pd_coco set = {0};
    snprintf(path, sizeof path, "%s/coco/annotations/instances_%s.json", root, split);
    PD_CHECK_OK(pd_coco_open(&set, path, NULL, 0, arena, &err));
    PD_CHECK_INT(set.n_images, images);
    PD_CHECK_INT(set.n_classes, 5);
    PD_CHECK_INT(set.counts[PD_COCO_GT] + set.counts[PD_COCO_CROWD], set.n_anns);
    for (size_t i = 0; i < set.n_images; i++) {
        const pd_coco_photo *m = &set.images[i];
        snprintf(path, sizeof path, "%s/coco/%s/%s", root, split, m->file);
        PD_CHECK_OK(pd_image_load(image, path, NULL, &err));
        PD_CHECK(image->h == m->h && image->w == m->w && m->w <= 160 && m->w >= 120);
        for (size_t k = 0; k < m->n; k++) {
            const pd_box b = set.anns[m->first + k].box;
            PD_CHECK(b.x1 >= 0 && b.y1 >= 0 && b.x2 <= (float)m->w && b.y2 <= (float)m->h && b.x2 > b.x1 &&
                     b.y2 > b.y1);
        }
    }
    /* The crowds' run lengths cover the picture, and every second one is what "area" says. */
    pd_json_doc *doc = NULL;
    snprintf(path, sizeof path, "%s/coco/annotations/instances_%s.json", root, split);
    PD_CHECK_OK(pd_json_read(&doc, path, 0, &err));
    const pd_json *list = doc ? pd_json_member(pd_json_root(doc), "annotations") : NULL;
    for (const pd_json *a = list ? pd_json_first(list) : NULL; a; a = pd_json_next(a)) {
        const double area = pd_json_number(pd_json_member(a, "area"));
        if (pd_json_number(pd_json_member(a, "iscrowd")) != 1) continue;
        const pd_json *rle = pd_json_member(a, "segmentation"), *size = pd_json_first(pd_json_member(rle, "size"));
        double runs[2] = {0, 0};
        int at = 0;
        for (const pd_json *n = pd_json_first(pd_json_member(rle, "counts")); n; n = pd_json_next(n), at ^= 1)
            runs[at] += pd_json_number(n);
        PD_CHECK(runs[1] == area && runs[0] + runs[1] == pd_json_number(size) * pd_json_number(pd_json_next(size)));
    }
    pd_json_close(doc);
}

static void test_program(void)
{
    if (!pd_file_exists(PD_BIN_DIR "/pd_make_shapes")) {
        PD_SKIP("pd_make_shapes is not built");
        return;
    }
    pd_err err = PD_ERR_INIT;
    char arguments[600], root[300];
    static const char *const threads[] = {"1", "3"};
    pd_image image = PD_IMAGE_INIT;
    for (int t = 0; t < 2; t++) {
        snprintf(arguments, sizeof arguments,
                 "'%s/set%d' --train 40 --val 7 --crops 4 --val-crops 2 --classes 5 --side 160 --quiet --threads %s",
                 dir, t, threads[t]);
        PD_CHECK_INT(run(arguments), 0);
        snprintf(root, sizeof root, "%s/set%d", dir, t);
        check_coco(root, "train", 40, &image);
        check_coco(root, "val", 7, &image);
    }
    char command[2400];
    snprintf(command, sizeof command, "diff -r '%s/set0' '%s/set1'", dir, dir);
    PD_CHECK_INT(system(command), 0);
    pd_imagenet crops = {0};
    snprintf(root, sizeof root, "%s/set0/imagenet/train", dir);
    PD_CHECK_OK(pd_imagenet_open(&crops, root, NULL, 0, arena, &err));
    PD_CHECK(crops.n_classes == 5 && crops.n == 20);
    for (size_t i = 0; i < crops.n; i++) {
        char path[600];
        PD_CHECK_OK(pd_imagenet_path(path, sizeof path, &crops, i, &err));
        PD_CHECK_OK(pd_image_load(&image, path, NULL, &err));
        PD_CHECK(image.w >= 64 && image.w <= 96 && image.h == image.w);
    }
    PD_CHECK_INT(run(arguments), 1);
    PD_CHECK(said("set1/imagenet is there already"));
    PD_CHECK_INT(run("--train 0 x"), 2);
    PD_CHECK_INT(run(""), 2);
    PD_CHECK_INT(run("/proc/nonexistent/x"), 1);
    pd_image_free(&image);
}

/* A shape's own pixels are where it says, and a generator always draws the same. */
static void test_drawing(void)
{
    pd_err err = PD_ERR_INIT;
    char sums[2][33];
    for (int kind = 0; kind < PD_SHAPE_KINDS; kind++)
        for (int again = 0; again < 2; again++) {
            PD_ROW(pd_shape_name(kind));
            pd_rng rng = pd_rng_make(4, (uint32_t)kind, 0);
            pd_canvas c;
            pd_image image = PD_IMAGE_INIT;
            PD_CHECK_OK(pd_canvas_begin(&c, 60, 90, 1, &rng, arena, &err));
            const int covered =
                pd_canvas_shape(&c, &(pd_shape){.kind = kind, .x = 45, .y = 30, .radius = 20, .aspect = 1}, 7, 1, &rng);
            int owned = 0;
            for (int i = 0; i < 60 * 90; i++) {
                if (c.owner[i] != 7) continue;
                owned++;
                PD_CHECK(hypot(i % 90 + 0.5 - 45, (double)(i / 90) + 0.5 - 30) < 20 * 1.13);
            }
            PD_CHECK_INT(owned, covered);
            PD_CHECK(owned > 200 && owned < 1200);
            PD_CHECK_OK(pd_canvas_finish(&image, &c, 1, &rng, &err));
            md5_hex(sums[again], image.rgb, 60 * 90 * 3);
            if (again) PD_CHECK_STR(sums[1], sums[0]);
            pd_image_free(&image);
        }
    PD_ROW("");
}

int main(void)
{
    arena = pd_arena_new();
    PD_CHECK(pd_test_dir(dir, "shapes"));
    test_drawing();
    test_program();
    char command[300];
    snprintf(command, sizeof command, "rm -r '%s'", dir);
    PD_CHECK_INT(system(command), 0);
    pd_arena_free(arena);
    return pd_test_end();
}
