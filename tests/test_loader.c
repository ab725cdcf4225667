/* The loader: what batches hold, that it never depends on threads, resuming, bad images, all on pictures drawn here. */
#include "tests/loader_set.h"

#include <malloc.h>
#include <unistd.h>

static void spoil(const char *name)
{
    pd_err err = PD_ERR_INIT;
    PD_CHECK_OK(pd_file_write(in_dir(name), "\xff\xd8\xff\xe0 no picture", 15, &err));
}

/* Hashes of an epoch's batches from a step on; returns their number. */
static size_t run_epoch(pd_loader *l, uint32_t epoch, size_t step, uint64_t *hashes)
{
    pd_err err = PD_ERR_INIT;
    size_t n = 0;
    PD_CHECK_OK(pd_loader_start(l, epoch, step, &err));
    for (;;) {
        const pd_batch *b = NULL;
        PD_CHECK_OK(pd_loader_next(l, &b, &err));
        if (!b) return n;
        hashes[n++] = hash_batch(b);
        pd_loader_done(l, b);
    }
}

typedef struct warnings {
    int n;
    char text[20][400];
} warnings;

static void collect(void *arg, const char *text)
{
    warnings *w = arg;
    if (w->n < 20) snprintf(w->text[w->n++], sizeof w->text[0], "%s", text);
}

/* ---- classification ---- */

static void make_folder(const char *root, int spoiled)
{
    char name[100];
    for (int i = 0; i < 23; i++) {
        snprintf(name, sizeof name, "%s/c%d/%02d.%s", root, i % 3, i, i % 2 ? "png" : "jpg");
        draw(name, 20 + i * 3 % 17, 24 + i * 5 % 19, (uint32_t)i);
    }
    for (int i = 0; i < spoiled; i++) {
        snprintf(name, sizeof name, "%s/c%d/%02d.%s", root, i % 3, i, i % 2 ? "png" : "jpg");
        spoil(name);
    }
}

/* Order of the set: c0: 00 03 06 .. 21 (8 files), c1: 01 .. 22 (8), c2: 02 .. 20 (7). */
static pd_imagenet open_folder(const char *root)
{
    pd_err err = PD_ERR_INIT;
    pd_imagenet set = {0};
    PD_CHECK_OK(pd_imagenet_open(&set, in_dir(root), NULL, 0, arena, &err));
    return set;
}

static pd_loader_config train_config(const pd_imagenet *set)
{
    pd_loader_config c = pd_loader_defaults();
    c.imagenet = set;
    c.transform = pd_transform_train();
    c.transform.crop = 16;
    c.batch = 4;
    c.shuffle = true;
    c.seed = 11;
    c.threads = 1;
    c.bad_images = PD_BAD_REPLACE;
    return c;
}

static void test_threads_and_resume(void)
{
    pd_err err = PD_ERR_INIT;
    const pd_imagenet set = open_folder("good");
    pd_loader_config c = train_config(&set);
    uint64_t want[3][8], got[8];
    pd_loader *l = NULL;
    PD_CHECK_OK(pd_loader_open(&l, &c, &err));
    PD_CHECK_INT(pd_loader_steps(l), 6);
    PD_CHECK_INT(pd_loader_samples(l), 23);
    for (uint32_t e = 0; e < 3; e++) PD_CHECK_INT(run_epoch(l, e, 0, want[e]), 6);
    PD_CHECK(memcmp(want[0], want[1], sizeof want[0]) != 0);
    pd_loader_close(l);
    for (int threads = 1; threads < 6; threads += 2)
        for (int ahead = 1; ahead < 4; ahead++) {
            c.threads = threads;
            c.ahead = ahead;
            PD_CHECK_OK(pd_loader_open(&l, &c, &err));
            for (uint32_t e = 3; e-- > 0;) {
                const size_t n = run_epoch(l, e, e, got);
                PD_CHECK_INT(n, 6 - e);
                PD_CHECK(!memcmp(got, want[e] + e, n * sizeof *got));
            }
            /* Left in the middle, with a batch in hand. */
            const pd_batch *b = NULL;
            PD_CHECK_OK(pd_loader_start(l, 0, 1, &err));
            PD_CHECK_OK(pd_loader_next(l, &b, &err));
            PD_CHECK_INT(run_epoch(l, 1, 0, got), 6);
            PD_CHECK(!memcmp(got, want[1], 6 * sizeof *got));
            PD_CHECK_OK(pd_loader_start(l, 0, 1, &err));
            pd_loader_close(l);
        }
    c.drop_last = true;
    PD_CHECK_OK(pd_loader_open(&l, &c, &err));
    PD_CHECK_INT(pd_loader_steps(l), 5);
    PD_CHECK_INT(run_epoch(l, 0, 0, got), 5);
    PD_CHECK_INT(run_epoch(l, 0, 5, got), 0);
    PD_CHECK_FAILS(pd_loader_start(l, 0, 6, &err), PD_EINVAL, "step 6 of an epoch of 5");
    pd_loader_close(l);
}

/* Two ranks with batch 2 see what one with batch 4 sees. */
static void test_ranks(void)
{
    pd_err err = PD_ERR_INIT;
    const pd_imagenet set = open_folder("good");
    pd_loader_config c = train_config(&set);
    pd_loader *whole = NULL, *half[2] = {NULL, NULL};
    PD_CHECK_OK(pd_loader_open(&whole, &c, &err));
    c.batch = 2;
    c.world = 2;
    for (c.rank = 0; c.rank < 2; c.rank++) PD_CHECK_OK(pd_loader_open(&half[c.rank], &c, &err));
    PD_CHECK_OK(pd_loader_start(whole, 3, 0, &err));
    for (int r = 0; r < 2; r++) PD_CHECK_OK(pd_loader_start(half[r], 3, 0, &err));
    const size_t row = 16 * 16 * 3;
    for (int step = 0; step < 6; step++) {
        const pd_batch *b = NULL, *part = NULL;
        PD_CHECK_OK(pd_loader_next(whole, &b, &err));
        for (int r = 0; r < 2; r++) {
            PD_CHECK_OK(pd_loader_next(half[r], &part, &err));
            PD_CHECK_INT(part->n, 2);
            for (int i = 0; i < 2 && 2 * r + i < b->n; i++) {
                PD_CHECK(part->labels[i] == b->labels[2 * r + i] && part->info[i].id == b->info[2 * r + i].id);
                PD_CHECK(!memcmp(part->pixels + (size_t)i * row, b->pixels + (size_t)(2 * r + i) * row,
                                 row * sizeof(float)));
            }
            pd_loader_done(half[r], part);
        }
        pd_loader_done(whole, b);
    }
    pd_loader_close(whole);
    for (int r = 0; r < 2; r++) pd_loader_close(half[r]);
}

/* A batch's pixels are those of decoding and resizing by hand; labels are the folders'. */
static void test_contents(void)
{
    pd_err err = PD_ERR_INIT;
    const pd_imagenet set = open_folder("good");
    pd_loader_config c = pd_loader_defaults();
    c.imagenet = &set;
    c.transform = pd_transform_val();
    c.transform.resize = 18;
    c.transform.crop = 14;
    c.batch = 5;
    pd_loader *l = NULL;
    pd_normalizer norm;
    pd_normalizer_init(&norm, &c.transform);
    PD_CHECK_OK(pd_loader_open(&l, &c, &err));
    PD_CHECK_OK(pd_loader_start(l, 0, 0, &err));
    pd_image image = PD_IMAGE_INIT;
    pd_transform_work work = {NULL, 0};
    size_t seen = 0;
    int counts[3] = {0};
    float want[14 * 14 * 3];
    for (const pd_batch *b = NULL; pd_loader_next(l, &b, &err) == PD_OK && b; pd_loader_done(l, b))
        for (int i = 0; i < b->n; i++, seen++) {
            char path[512];
            PD_CHECK_OK(pd_loader_path(path, sizeof path, l, seen, &err));
            PD_CHECK_OK(pd_image_load(&image, path, NULL, &err));
            const pd_area box = pd_center_crop(image.h, image.w, 18, 14);
            PD_CHECK_OK(pd_resize_triangle(want, 14, 14, &image, 0, 0, box, (pd_rect){0, 0, image.w, image.h}, false,
                                           &norm, &work, &err));
            PD_CHECK(b->h == 14 && b->w == 14 && !b->boxes && b->info[i].ori_h == image.h &&
                     b->info[i].ori_w == image.w);
            PD_CHECK_INT(b->info[i].id, seen);
            PD_CHECK_INT(b->labels[i], set.labels[seen]);
            PD_CHECK(!memcmp(b->pixels + (size_t)i * 14 * 14 * 3, want, sizeof want));
            counts[b->labels[i]]++;
        }
    PD_CHECK_INT(seen, 23);
    PD_CHECK(counts[0] == 8 && counts[1] == 8 && counts[2] == 7);
    pd_loader_close(l);
    pd_image_free(&image);
    pd_transform_work_free(&work);
}

static void test_bad_images(void)
{
    pd_err err = PD_ERR_INIT;
    const pd_imagenet set = open_folder("bad"); /* 00 01 02 03 spoiled: c0/00 c0/03 c1/01 c2/02 */
    static const uint32_t spoiled[] = {0, 1, 8, 16};
    pd_loader_config c = train_config(&set);
    warnings w = {0};
    c.warn = collect;
    c.warn_arg = &w;
    pd_loader *l = NULL;
    uint64_t first[8], again[8];
    PD_CHECK_OK(pd_loader_open(&l, &c, &err));
    PD_CHECK_INT(run_epoch(l, 0, 0, first), 6);
    PD_CHECK_INT(pd_loader_bad(l), 4);
    PD_CHECK_INT(w.n, 4);
    for (int i = 0; i < 4; i++) PD_CHECK(strstr(w.text[i], dir) && strstr(w.text[i], "JPEG"));
    /* File 0 is followed by the spoiled 1: sample 2 stands in for both. */
    int stand_in = 0, total = 0;
    PD_CHECK_OK(pd_loader_start(l, 0, 0, &err));
    for (const pd_batch *b = NULL; pd_loader_next(l, &b, &err) == PD_OK && b; pd_loader_done(l, b))
        for (int i = 0; i < b->n; i++) {
            total++;
            stand_in += b->info[i].id == 2;
            for (int k = 0; k < 4; k++) PD_CHECK(b->info[i].id != spoiled[k]);
            PD_CHECK_INT(b->labels[i], set.labels[b->info[i].id]);
        }
    PD_CHECK_INT(total, 23);
    PD_CHECK_INT(stand_in, 3);
    pd_loader_close(l);
    c.threads = 4;
    PD_CHECK_OK(pd_loader_open(&l, &c, &err));
    PD_CHECK_INT(run_epoch(l, 0, 0, again), 6);
    PD_CHECK(!memcmp(first, again, 6 * sizeof *first));
    pd_loader_close(l);

    c = pd_loader_defaults();
    c.imagenet = &set;
    c.transform = pd_transform_val();
    c.transform.resize = c.transform.crop = 8;
    c.batch = 2; /* the first batch is 0, 1: empty, so not delivered */
    c.warn = collect;
    c.warn_arg = &w;
    w.n = 0;
    PD_CHECK_OK(pd_loader_open(&l, &c, &err));
    PD_CHECK_OK(pd_loader_start(l, 0, 0, &err));
    int batches = 0;
    total = 0;
    for (const pd_batch *b = NULL; pd_loader_next(l, &b, &err) == PD_OK && b; pd_loader_done(l, b), batches++)
        for (int i = 0; i < b->n; i++, total++) PD_CHECK_INT(b->labels[i], set.labels[b->info[i].id]);
    PD_CHECK_INT(batches, 11);
    PD_CHECK_INT(total, 19);
    PD_CHECK_INT(pd_loader_bad(l), 4);
    PD_CHECK_INT(w.n, 4);
    PD_CHECK(strstr(w.text[0], "c0/00") && strstr(w.text[3], "c2/02"));
    pd_loader_close(l);

    c.bad_images = PD_BAD_ERROR;
    PD_CHECK_OK(pd_loader_open(&l, &c, &err));
    PD_CHECK_OK(pd_loader_start(l, 0, 1, &err));
    const pd_batch *b = NULL;
    for (int i = 0; i < 3; i++) {
        PD_CHECK_OK(pd_loader_next(l, &b, &err));
        pd_loader_done(l, b);
    }
    PD_CHECK_FAILS(pd_loader_next(l, &b, &err), PD_EFORMAT, "c1/01.png: ");
    PD_CHECK_FAILS(pd_loader_next(l, &b, &err), PD_EINVAL, "after a failure");
    PD_CHECK_OK(pd_loader_start(l, 0, 5, &err));
    PD_CHECK_OK(pd_loader_next(l, &b, &err));
    pd_loader_close(l);

    /* Nothing can be used: an error, not an empty epoch. */
    const char *none[] = {in_dir("bad/c0/00.jpg"), in_dir("missing.jpg"), in_dir("bad/c1/01.png")};
    for (int policy = PD_BAD_REPLACE; policy <= PD_BAD_DROP; policy++) {
        c = pd_loader_defaults();
        c.paths = none;
        c.n_paths = 3;
        c.transform = pd_transform_detect(false);
        c.bad_images = (pd_bad_images)policy;
        PD_CHECK_OK(pd_loader_open(&l, &c, &err));
        PD_CHECK_OK(pd_loader_start(l, 0, 0, &err));
        PD_CHECK_MSG(pd_loader_next(l, &b, &err) != PD_OK && strstr(err.text, "3 images in a row cannot be used"), "%s",
                     err.text);
        pd_loader_close(l);
    }
}

static void test_none(void)
{
    pd_err err = PD_ERR_INIT;
    draw("same/a/1.png", 9, 7, 1);
    draw("same/a/2.png", 9, 7, 2);
    draw("same/b/3.png", 9, 7, 3);
    draw("same/b/4.png", 9, 8, 4);
    const pd_imagenet set = open_folder("same");
    pd_loader_config c = pd_loader_defaults();
    warnings w = {0};
    c.imagenet = &set;
    c.batch = 4;
    c.warn = collect;
    c.warn_arg = &w;
    pd_loader *l = NULL;
    PD_CHECK_OK(pd_loader_open(&l, &c, &err));
    PD_CHECK_OK(pd_loader_start(l, 0, 0, &err));
    const pd_batch *b = NULL;
    PD_CHECK_OK(pd_loader_next(l, &b, &err));
    PD_CHECK(b->n == 3 && b->h == 9 && b->w == 7);
    pd_image image = PD_IMAGE_INIT;
    PD_CHECK_OK(pd_image_load(&image, in_dir("same/b/3.png"), NULL, &err));
    for (int i = 0; i < 9 * 7 * 3; i++) {
        const float v = ((float)image.rgb[i] / 255.f - (float)c.transform.mean[i % 3]) / (float)c.transform.std[i % 3];
        PD_CHECK(b->pixels[2 * 9 * 7 * 3 + i] == v);
    }
    PD_CHECK(w.n == 1 && strstr(w.text[0], "b/4.png: 8x9") && strstr(w.text[0], "a/1.png has 7x9"));
    pd_loader_close(l);
    pd_image_free(&image);
}

/* ---- detection ---- */

static void test_detection(void)
{
    pd_err err = PD_ERR_INIT;
    const pd_coco set = open_coco(set_json);
    pd_loader_config c = pd_loader_defaults();
    c.coco = &set;
    c.image_dir = in_dir("det");
    c.transform = pd_transform_detect(false);
    c.transform.long_side = 100;
    c.transform.short_side = 60;
    c.batch = 2;
    c.threads = 2;
    pd_loader *l = NULL;
    PD_CHECK_OK(pd_loader_open(&l, &c, &err));
    PD_CHECK_OK(pd_loader_start(l, 0, 0, &err));
    const pd_batch *b = NULL;
    PD_CHECK_OK(pd_loader_next(l, &b, &err));
    /* 40x30 -> 80x60 -> padded 96x64; 30x40 -> 60x80 -> 64x96; the batch 96x96 */
    PD_CHECK(b->n == 2 && b->h == 96 && b->w == 96 && b->max_boxes == 2);
    PD_CHECK(b->info[0].id == 10 && b->info[0].w == 80 && b->info[0].h == 60 && b->info[0].pad_w == 96 &&
             b->info[0].pad_h == 64);
    PD_CHECK(b->info[1].id == 11 && b->info[1].w == 60 && b->info[1].pad_h == 96 && b->info[1].ori_h == 40);
    PD_CHECK(b->info[0].scale_x == 2 && b->info[0].scale_y == 2 && !b->info[0].flipped);
    PD_CHECK(b->n_boxes[0] == 2 && b->n_boxes[1] == 0);
    PD_CHECK(b->box_labels[0] == 1 && b->box_labels[1] == 0);
    PD_CHECK(b->boxes[0].x1 == 20 && b->boxes[0].y1 == 10 && b->boxes[0].x2 == 60 && b->boxes[0].y2 == 30);
    PD_CHECK(b->boxes[1].y2 == 60 && b->boxes[1].x2 == 16);
    pd_image image = PD_IMAGE_INIT, big = PD_IMAGE_INIT;
    pd_transform_work work = {NULL, 0};
    pd_normalizer norm;
    pd_normalizer_init(&norm, &c.transform);
    float *want = malloc(96 * 96 * 3 * sizeof *want);
    PD_CHECK_OK(pd_image_load(&image, in_dir("det/h0.png"), NULL, &err));
    PD_CHECK_OK(pd_resize_opencv(&big, 80, 60, &image, &work, &err));
    pd_normalize_pad(want, 96, 96, &big, false, &norm);
    PD_CHECK(!memcmp(want, b->pixels + 96 * 96 * 3, 96 * 96 * 3 * sizeof *want));
    PD_CHECK(b->pixels[(60 * 96) * 3] == 0 && b->pixels[80 * 3] == 0 && b->pixels[79 * 3] != 0);
    pd_loader_done(l, b);
    pd_loader_close(l);

    /* Always mirrored: boxes and pixels. */
    c.transform.flip = 1;
    c.images = (const uint32_t[]){0, 3};
    c.n_images = 2;
    PD_CHECK_OK(pd_loader_open(&l, &c, &err));
    PD_CHECK_OK(pd_loader_start(l, 0, 0, &err));
    PD_CHECK_OK(pd_loader_next(l, &b, &err));
    PD_CHECK(b->info[1].id == 13 && b->info[0].flipped && b->boxes[0].x1 == 20 && b->boxes[0].x2 == 60 &&
             b->boxes[1].x1 == 64 && b->boxes[1].x2 == 80);
    PD_CHECK_OK(pd_image_load(&image, in_dir("det/w0.png"), NULL, &err));
    PD_CHECK_OK(pd_resize_opencv(&big, 60, 80, &image, &work, &err));
    for (int x = 0; x < 80; x++) PD_CHECK(b->pixels[x * 3 + 1] == norm.byte[1][big.rgb[(79 - x) * 3 + 1]]);
    pd_loader_close(l);

    /* Half of them by chance, by the seed; groups keep orientations apart. */
    c.images = NULL;
    c.transform.flip = 0.5;
    c.shuffle = c.group_aspect = true;
    c.seed = 5;
    uint64_t one[8], four[8];
    int flips = 0, total = 0;
    c.threads = 1;
    PD_CHECK_OK(pd_loader_open(&l, &c, &err));
    PD_CHECK_INT(pd_loader_steps(l), 3); /* 3 wide: 2 batches; 2 high: 1 */
    for (uint32_t e = 0; e < 30; e++) {
        PD_CHECK_OK(pd_loader_start(l, e, 0, &err));
        for (b = NULL; pd_loader_next(l, &b, &err) == PD_OK && b; pd_loader_done(l, b)) {
            PD_CHECK_INT(b->info[0].ori_w > b->info[0].ori_h, b->info[1].ori_w > b->info[1].ori_h);
            for (int i = 0; i < 2; i++, total++) flips += b->info[i].flipped;
        }
    }
    PD_CHECK_INT(total, 180);
    PD_CHECK(flips > 60 && flips < 120);
    PD_CHECK_INT(run_epoch(l, 7, 0, one), 3);
    pd_loader_close(l);
    c.threads = 4;
    PD_CHECK_OK(pd_loader_open(&l, &c, &err));
    PD_CHECK_INT(run_epoch(l, 7, 0, four), 3);
    PD_CHECK(!memcmp(one, four, 3 * sizeof *one));
    pd_loader_close(l);

    c.max_boxes = 1;
    PD_CHECK_FAILS(pd_loader_open(&l, &c, &err), PD_EINVAL, "image id 10 has 2 boxes");
    free(want);
    pd_image_free(&image);
    pd_image_free(&big);
    pd_transform_work_free(&work);
}

/* The annotation file says another size; and an EXIF turn that the annotations do not know. */
static void test_sizes(void)
{
    pd_err err = PD_ERR_INIT;
    const pd_coco set =
        open_coco("{\"images\": [{\"id\": 10, \"width\": 41, \"height\": 30, \"file_name\": \"w0.png\"}],"
                  "\"categories\": [{\"id\": 3, \"name\": \"a\"}]}");
    pd_loader_config c = pd_loader_defaults();
    c.coco = &set;
    c.image_dir = in_dir("det");
    c.transform = pd_transform_detect(false);
    c.bad_images = PD_BAD_ERROR;
    pd_loader *l = NULL;
    const pd_batch *b = NULL;
    PD_CHECK_OK(pd_loader_open(&l, &c, &err));
    PD_CHECK_OK(pd_loader_start(l, 0, 0, &err));
    PD_CHECK_FAILS(pd_loader_next(l, &b, &err), PD_EFORMAT, "w0.png: the picture is 40x30, but ");
    PD_CHECK(strstr(err.text, "gt.json says 41x30 for image id 10"));
    pd_loader_close(l);

    pd_coco turned = open_coco("{\"images\": [{\"id\": 1, \"width\": 5, \"height\": 3, \"file_name\": \"" PD_GOLDEN
                               "/images/exif6.png\"}],"
                               "\"categories\": [{\"id\": 3, \"name\": \"a\"}]}");
    c.coco = &turned;
    c.image.exif = true;
    PD_CHECK_OK(pd_loader_open(&l, &c, &err));
    PD_CHECK_OK(pd_loader_start(l, 0, 0, &err));
    PD_CHECK_FAILS(pd_loader_next(l, &b, &err), PD_EFORMAT, "switch EXIF off");
    pd_loader_close(l);
    turned.images[0].w = 3;
    turned.images[0].h = 5;
    PD_CHECK_OK(pd_loader_open(&l, &c, &err));
    PD_CHECK_OK(pd_loader_start(l, 0, 0, &err));
    PD_CHECK_OK(pd_loader_next(l, &b, &err));
    PD_CHECK(b && b->info[0].ori_w == 3 && b->info[0].ori_h == 5);
    pd_loader_close(l);
}

static void test_refusals(void)
{
    pd_err err = PD_ERR_INIT;
    const pd_imagenet set = open_folder("good");
    pd_loader *l = NULL;
    pd_loader_config c = pd_loader_defaults();
    PD_CHECK_FAILS(pd_loader_open(&l, &c, &err), PD_EINVAL, "exactly one source");
    c.imagenet = &set;
    c.batch = 0;
    PD_CHECK_FAILS(pd_loader_open(&l, &c, &err), PD_EINVAL, "0 samples per step");
    c.batch = 1;
    c.ahead = 0;
    PD_CHECK_FAILS(pd_loader_open(&l, &c, &err), PD_EINVAL, "0 batches ahead");
    c.ahead = 1;
    c.transform = pd_transform_train();
    c.transform.tries = -1;
    PD_CHECK_FAILS(pd_loader_open(&l, &c, &err), PD_EINVAL, "tries -1");
    c.transform.tries = 1;
    c.bytes = true;
    PD_CHECK_FAILS(pd_loader_open(&l, &c, &err), PD_EINVAL, "no bytes before they are normalised");
    const pd_coco coco = open_coco(set_json);
    c = pd_loader_defaults();
    c.coco = &coco;
    c.transform = pd_transform_train();
    PD_CHECK_FAILS(pd_loader_open(&l, &c, &err), PD_EINVAL, "classification crop");
    PD_CHECK(l == NULL);
    /* More batches in hand than the ring has. */
    c = pd_loader_defaults();
    c.imagenet = &set;
    c.transform = pd_transform_val();
    c.transform.crop = 8;
    c.ahead = 2;
    PD_CHECK_OK(pd_loader_open(&l, &c, &err));
    const pd_batch *b[4];
    PD_CHECK_FAILS(pd_loader_next(l, &b[0], &err), PD_EINVAL, "before pd_loader_start");
    PD_CHECK_OK(pd_loader_start(l, 0, 0, &err));
    for (int i = 0; i < 3; i++) PD_CHECK_OK(pd_loader_next(l, &b[i], &err));
    PD_CHECK_FAILS(pd_loader_next(l, &b[3], &err), PD_EINVAL, "3 batches are held");
    for (int i = 3; i-- > 0;) pd_loader_done(l, b[i]);
    PD_CHECK_OK(pd_loader_next(l, &b[3], &err));
    PD_CHECK_INT(b[3]->info[0].id, 3);
    pd_loader_close(l);
    pd_loader_close(NULL);
}

/* After the first rounds the heap stands still. */
static void test_memory(void)
{
    pd_err err = PD_ERR_INIT;
    const pd_imagenet set = open_folder("good");
    pd_loader_config c = train_config(&set);
    pd_loader *l = NULL;
    uint64_t hashes[8];
    size_t held[2] = {0, 0};
    PD_CHECK_OK(pd_loader_open(&l, &c, &err));
    for (uint32_t e = 0; e < 40; e++) {
        run_epoch(l, e, 0, hashes);
        if (e == 19 || e == 39) held[e / 20] = mallinfo2().uordblks;
    }
    PD_CHECK_MSG(held[1] <= held[0] + 4096, "%zu bytes, then %zu", held[0], held[1]);
    pd_loader_close(l);
}

int main(void)
{
    arena = pd_arena_new();
    PD_CHECK(pd_test_dir(dir, "loader"));
    make_folder("good", 0);
    make_folder("bad", 4);
    draw_set();
    test_threads_and_resume();
    test_ranks();
    test_contents();
    test_bad_images();
    test_none();
    test_detection();
    test_sizes();
    test_refusals();
    test_memory();
    char command[300];
    snprintf(command, sizeof command, "rm -r '%s'", dir);
    PD_CHECK_INT(system(command), 0);
    pd_arena_free(arena);
    return pd_test_end();
}
