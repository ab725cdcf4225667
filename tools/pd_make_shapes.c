/* pd_make_shapes: draws the demonstration data: an ImageNet-layout folder and COCO training and validation sets.
 *
 * Every picture is a function of (seed, which set, its number), so a set that is made larger keeps its pictures. */
#include "engine/file.h"
#include "engine/json.h"
#include "engine/thread.h"
#include "tools/cli.h"
#include "tools/shapes.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MOST_OBJECTS = 8, IMAGE_STEP = 7, FIRST_IMAGE = 139 };

/* With gaps, as COCO's: a program that takes ids for labels is found out. */
static const int category_ids[PD_SHAPE_KINDS] = {1, 2, 3, 5, 8, 13, 21, 34};

typedef struct options {
    const char *dir;
    int64_t seed;
    int train, val, crops, val_crops, classes, side;
    double difficulty;
} options;

typedef struct object {
    int kind, x, y, w, h, area;
    bool crowd;
    int64_t *runs; /* crowd: COCO's run lengths, column by column, beginning with background */
    size_t n_runs;
} object;

typedef struct picture {
    char name[40];
    int h, w, n;
    object objects[MOST_OBJECTS + 1];
} picture;

/* What one thread has for itself. */
typedef struct hand {
    pd_arena *scratch, *keep; /* of one picture; the crowds' runs, until the annotations are written */
    pd_image image;
    pd_status status; /* its first failure */
    pd_err err;
} hand;

/* One set under way; a thread writes to its own pictures and its own hand. */
typedef struct job {
    const options *opt;
    const char *folder; /* where the files go */
    bool crops;         /* one object per picture, in class folders */
    uint32_t stream;    /* of random numbers */
    size_t first;       /* number of the first picture of the piece under way */
    picture *pictures;
    hand *hands;
} job;

/* ---- one picture ---- */

static double between(pd_rng *rng, double low, double high)
{
    return low + (high - low) * pd_rng_double(rng);
}

static pd_shape random_shape(pd_rng *rng, int kind, double radius)
{
    pd_shape s = {
        .kind = kind, .radius = radius, .aspect = between(rng, 0.8, 1.25), .angle = between(rng, -0.45, 0.45)};
    if (kind == 3 || kind == 7) s.angle = between(rng, -3.14159, 3.14159);
    return s;
}

/* A place with little overlap with those before; false after too many tries. */
static bool place_shape(pd_shape *s, const pd_shape *others, int n, int h, int w, pd_rng *rng)
{
    for (int tries = 0; tries < 60; tries++) {
        const double margin = s->radius * 0.6;
        s->x = between(rng, margin, w - margin);
        s->y = between(rng, margin, h - margin);
        bool free = true;
        for (int i = 0; i < n; i++) {
            const double gap = hypot(s->x - others[i].x, s->y - others[i].y);
            free = free && gap > 0.8 * (s->radius + others[i].radius);
        }
        if (free) return true;
    }
    return false;
}

/* What is seen of each id: box and pixels. */
static void measure(picture *p, const pd_canvas *c, const int *kinds, const int *covered, int n_ids, int crowd_id)
{
    for (int id = 1; id <= n_ids; id++) {
        int x1 = c->w, y1 = c->h, x2 = 0, y2 = 0, area = 0;
        for (int y = 0; y < c->h; y++)
            for (int x = 0; x < c->w; x++) {
                if (c->owner[y * c->w + x] != id) continue;
                area++;
                if (x < x1) x1 = x;
                if (x >= x2) x2 = x + 1;
                if (y < y1) y1 = y;
                y2 = y + 1;
            }
        if (area < 40 || area * 4 < covered[id]) continue; /* hidden by others */
        p->objects[p->n++] = (object){
            .kind = kinds[id], .x = x1, .y = y1, .w = x2 - x1, .h = y2 - y1, .area = area, .crowd = id == crowd_id};
    }
}

static pd_status crowd_runs(object *o, const pd_canvas *c, int id, pd_arena *arena, pd_err *err)
{
    PD_TRY(PD_ALLOC(&o->runs, arena, (size_t)c->h * (size_t)c->w + 1, err));
    bool inside = false;
    o->n_runs = 0;
    int64_t run = 0;
    for (int x = 0; x < c->w; x++)
        for (int y = 0; y < c->h; y++, run++) {
            if ((c->owner[y * c->w + x] == id) == inside) continue;
            o->runs[o->n_runs++] = run;
            run = 0;
            inside = !inside;
        }
    o->runs[o->n_runs++] = run;
    return PD_OK;
}

/* Several objects, now and then none, now and then a crowd of small ones of one class. */
static pd_status draw_scene(picture *p, pd_canvas *c, const options *opt, pd_rng *rng, hand *own, pd_err *err)
{
    const int side = opt->side;
    p->w = side - (int)pd_rng_below(rng, (uint32_t)(side / 4 + 1));
    p->h = side - (int)pd_rng_below(rng, (uint32_t)(side / 4 + 1));
    PD_TRY(pd_canvas_begin(c, p->h, p->w, opt->difficulty, rng, own->scratch, err));
    pd_shape shapes[MOST_OBJECTS + 1];
    int kinds[MOST_OBJECTS + 2], covered[MOST_OBJECTS + 2] = {0}, n = 0;
    const int wanted = pd_rng_below(rng, 12) == 0 ? 0 : 2 + (int)pd_rng_below(rng, 4);
    const int crowd_id = wanted && pd_rng_below(rng, 10) == 0 ? 1 : -1;
    if (crowd_id > 0) {
        const int kind = (int)pd_rng_below(rng, (uint32_t)opt->classes), members = 8 + (int)pd_rng_below(rng, 7);
        shapes[0] = (pd_shape){.kind = kind, .radius = side * 0.17, .aspect = 1};
        (void)place_shape(&shapes[0], shapes, 0, p->h, p->w, rng);
        kinds[1] = kind;
        for (int i = 0; i < members; i++) {
            pd_shape one = random_shape(rng, kind, between(rng, 0.03, 0.05) * side);
            const double a = between(rng, 0, 6.2832), r = shapes[0].radius * sqrt(pd_rng_double(rng));
            one.x = shapes[0].x + r * cos(a);
            one.y = shapes[0].y + r * sin(a);
            covered[1] += pd_canvas_shape(c, &one, 1, opt->difficulty, rng);
        }
        covered[1] = 0; /* its members hide each other */
        n = 1;
    }
    for (int i = 0; i < wanted; i++) {
        const double radius = side * exp(between(rng, log(0.10), log(0.27)));
        pd_shape s = random_shape(rng, (int)pd_rng_below(rng, (uint32_t)opt->classes), radius);
        if (!place_shape(&s, shapes, n, p->h, p->w, rng)) continue;
        shapes[n++] = s;
        kinds[n] = s.kind;
        covered[n] = pd_canvas_shape(c, &s, (uint16_t)n, opt->difficulty, rng);
    }
    measure(p, c, kinds, covered, n, crowd_id);
    for (int i = 0; i < p->n; i++)
        if (p->objects[i].crowd) PD_TRY(crowd_runs(&p->objects[i], c, crowd_id, own->keep, err));
    return PD_OK;
}

/* One object; at 64 pixels about as large as those of scenes are at 128. */
static pd_status draw_crop(picture *p, pd_canvas *c, const options *opt, int kind, pd_rng *rng, pd_arena *arena,
                           pd_err *err)
{
    p->h = p->w = 64 + (int)pd_rng_below(rng, 33);
    PD_TRY(pd_canvas_begin(c, p->h, p->w, opt->difficulty, rng, arena, err));
    pd_shape s = random_shape(rng, kind, exp(between(rng, log(0.17), log(0.44))) * p->w);
    const double slack = p->w * 0.5 - s.radius * 0.95;
    s.x = p->w * 0.5 + between(rng, -slack, slack);
    s.y = p->h * 0.5 + between(rng, -slack, slack);
    (void)pd_canvas_shape(c, &s, 1, opt->difficulty, rng);
    return PD_OK;
}

/* One in five is a PNG. */
static pd_status write_picture(const job *j, picture *p, const pd_image *image, const char *stem, pd_rng *rng,
                               pd_arena *arena, pd_err *err)
{
    const bool png = pd_rng_below(rng, 5) == 0;
    const int quality = 82 + (int)pd_rng_below(rng, 14);
    snprintf(p->name, sizeof p->name, "%s.%s", stem, png ? "png" : "jpg");
    char *path;
    pd_out *out;
    PD_TRY(pd_path_join(&path, j->folder, p->name, arena, err));
    PD_TRY(pd_out_open(&out, path, err));
    const pd_status status = png ? pd_png_encode(out, image, err) : pd_jpeg_encode(out, image, quality, err);
    if (status == PD_OK) return pd_out_commit(out, err);
    pd_out_cancel(out);
    return pd_err_context(err, "%s", path), status;
}

static pd_status make_picture(const job *j, size_t i, hand *own, pd_err *err)
{
    picture *p = &j->pictures[i];
    pd_rng rng = pd_rng_make((uint64_t)j->opt->seed, j->stream, (uint32_t)i);
    pd_canvas canvas;
    char stem[32];
    pd_arena_reset(own->scratch);
    if (j->crops) {
        const int kind = (int)(i % (size_t)j->opt->classes);
        snprintf(stem, sizeof stem, "%s/%05zu", pd_shape_name(kind), i / (size_t)j->opt->classes);
        PD_TRY(draw_crop(p, &canvas, j->opt, kind, &rng, own->scratch, err));
    } else {
        snprintf(stem, sizeof stem, "%012zu", FIRST_IMAGE + IMAGE_STEP * i);
        PD_TRY(draw_scene(p, &canvas, j->opt, &rng, own, err));
    }
    PD_TRY(pd_canvas_finish(&own->image, &canvas, j->opt->difficulty, &rng, err));
    return write_picture(j, p, &own->image, stem, &rng, own->scratch, err);
}

static void make_range(void *arg, size_t begin, size_t end, int thread)
{
    job *j = arg;
    hand *own = &j->hands[thread];
    for (size_t i = begin; i < end && own->status == PD_OK; i++)
        own->status = make_picture(j, j->first + i, own, &own->err);
}

/* ---- annotations ---- */

static void put_object(pd_json_writer *w, const picture *p, const object *o, int64_t id, int64_t image_id)
{
    pd_json_begin_object(w, NULL);
    pd_json_put_int(w, "id", id);
    pd_json_put_int(w, "image_id", image_id);
    pd_json_put_int(w, "category_id", category_ids[o->kind]);
    pd_json_put_ints(w, "bbox", (const int64_t[]){o->x, o->y, o->w, o->h}, 4);
    pd_json_put_int(w, "area", o->area);
    pd_json_put_int(w, "iscrowd", o->crowd);
    if (o->crowd) {
        pd_json_begin_object(w, "segmentation");
        pd_json_put_ints(w, "counts", o->runs, o->n_runs);
        pd_json_put_ints(w, "size", (const int64_t[]){p->h, p->w}, 2);
    } else {
        pd_json_begin_array(w, "segmentation");
    }
    pd_json_end(w);
    pd_json_end(w);
}

static pd_status write_annotations(const char *path, const job *j, size_t n, size_t *objects, pd_err *err)
{
    pd_json_writer *w = pd_json_object();
    pd_json_begin_object(w, "info");
    pd_json_put_string(w, "description", "shapes drawn by pd_make_shapes");
    pd_json_put_int(w, "seed", j->opt->seed);
    pd_json_end(w);
    pd_json_begin_array(w, "images");
    for (size_t i = 0; i < n; i++) {
        const picture *p = &j->pictures[i];
        pd_json_begin_object(w, NULL);
        pd_json_put_int(w, "id", (int64_t)(FIRST_IMAGE + IMAGE_STEP * i));
        pd_json_put_int(w, "width", p->w);
        pd_json_put_int(w, "height", p->h);
        pd_json_put_string(w, "file_name", p->name);
        pd_json_end(w);
    }
    pd_json_end(w);
    pd_json_begin_array(w, "annotations");
    int64_t id = 0;
    for (size_t i = 0; i < n; i++)
        for (int k = 0; k < j->pictures[i].n; k++)
            put_object(w, &j->pictures[i], &j->pictures[i].objects[k], ++id, (int64_t)(FIRST_IMAGE + IMAGE_STEP * i));
    pd_json_end(w);
    pd_json_begin_array(w, "categories");
    for (int c = 0; c < j->opt->classes; c++) {
        pd_json_begin_object(w, NULL);
        pd_json_put_int(w, "id", category_ids[c]);
        pd_json_put_string(w, "name", pd_shape_name(c));
        pd_json_put_string(w, "supercategory", "shape");
        pd_json_end(w);
    }
    pd_json_end(w);
    *objects = (size_t)id;
    return pd_json_save(path, w, false, err);
}

/* ---- sets ---- */

typedef struct program {
    const pd_cli_args *args;
    options opt;
    pd_arena *arena;
    pd_pool *pool;
    hand *hands;
    int n_hands;
} program;

/* Draws all pictures of a set, in pieces so that the bar moves and Ctrl-C is heard. */
static pd_status draw_all(program *g, job *j, size_t n, const char *title, pd_err *err)
{
    enum { PIECE = 32 };
    pd_progress bar;
    pd_progress_begin(&bar, title, "pictures", (int64_t)n, g->args->quiet);
    for (j->first = 0; j->first < n; j->first += PIECE) {
        pd_progress_update(&bar, (int64_t)j->first, NULL);
        if (pd_cli_stop_asked()) return PD_FAIL(err, PD_ESTOP, "stopped; %s holds a part of the pictures", g->opt.dir);
        pd_parallel_each(g->pool, n - j->first < PIECE ? n - j->first : PIECE, make_range, j);
        for (int i = 0; i < g->n_hands; i++)
            if (g->hands[i].status != PD_OK) return pd_fail(err, g->hands[i].status, "%s", g->hands[i].err.text);
    }
    pd_progress_end(&bar, (int64_t)n);
    return PD_OK;
}

static pd_status make_crops(program *g, const char *split, int per_class, uint32_t stream, pd_err *err)
{
    char *folder, *class_folder, *path;
    const size_t n = (size_t)per_class * (size_t)g->opt.classes;
    PD_TRY(pd_format(&path, g->arena, err, "imagenet/%s", split));
    PD_TRY(pd_path_join(&folder, g->opt.dir, path, g->arena, err));
    for (int c = 0; c < g->opt.classes; c++) {
        PD_TRY(pd_path_join(&class_folder, folder, pd_shape_name(c), g->arena, err));
        PD_TRY(pd_make_dirs(class_folder, err));
    }
    job j = {.opt = &g->opt, .folder = folder, .crops = true, .stream = stream, .hands = g->hands};
    PD_TRY(PD_ALLOC(&j.pictures, g->arena, n, err));
    PD_TRY(draw_all(g, &j, n, path, err));
    printf("%s: %zu pictures of %d classes\n", folder, n, g->opt.classes);
    return PD_OK;
}

static pd_status make_scenes(program *g, const char *split, int count, uint32_t stream, pd_err *err)
{
    char *folder, *notes, *file, *path;
    size_t objects;
    PD_TRY(pd_format(&path, g->arena, err, "coco/%s", split));
    PD_TRY(pd_path_join(&folder, g->opt.dir, path, g->arena, err));
    PD_TRY(pd_path_join(&notes, g->opt.dir, "coco/annotations", g->arena, err));
    PD_TRY(pd_make_dirs(folder, err));
    PD_TRY(pd_make_dirs(notes, err));
    PD_TRY(pd_format(&file, g->arena, err, "%s/instances_%s.json", notes, split));
    job j = {.opt = &g->opt, .folder = folder, .stream = stream, .hands = g->hands};
    PD_TRY(PD_ALLOC(&j.pictures, g->arena, (size_t)count, err));
    PD_TRY(draw_all(g, &j, (size_t)count, path, err));
    PD_TRY(write_annotations(file, &j, (size_t)count, &objects, err));
    printf("%s: %d pictures, %zu objects of %d classes in %s\n", folder, count, objects, g->opt.classes, file);
    return PD_OK;
}

/* Old pictures among the new ones would be part of the set. */
static pd_status refuse_old(const program *g, pd_err *err)
{
    static const char *const parts[] = {"imagenet", "coco"};
    for (int i = 0; i < 2; i++) {
        char *path;
        PD_TRY(pd_path_join(&path, g->opt.dir, parts[i], g->arena, err));
        if (pd_file_exists(path))
            return PD_FAIL(err, PD_EINVAL, "%s is there already: choose another folder, or delete it first", path);
    }
    return PD_OK;
}

static pd_status run(program *g, pd_err *err)
{
    g->arena = pd_arena_new();
    if (!g->arena) return PD_FAIL(err, PD_ENOMEM, "out of memory");
    PD_TRY(pd_pool_new(&g->pool, g->args->threads, err));
    PD_TRY(PD_ALLOC(&g->hands, g->arena, (size_t)pd_pool_threads(g->pool), err));
    for (g->n_hands = 0; g->n_hands < pd_pool_threads(g->pool); g->n_hands++) {
        hand *h = &g->hands[g->n_hands];
        h->scratch = pd_arena_new();
        h->keep = pd_arena_new();
        if (!h->scratch || !h->keep) return PD_FAIL(err, PD_ENOMEM, "out of memory");
    }
    PD_TRY(refuse_old(g, err));
    PD_TRY(make_crops(g, "train", g->opt.crops, 0, err));
    PD_TRY(make_crops(g, "val", g->opt.val_crops, 1, err));
    PD_TRY(make_scenes(g, "train", g->opt.train, 2, err));
    return make_scenes(g, "val", g->opt.val, 3, err);
}

static void program_free(program *g)
{
    for (int i = 0; g->hands && i < pd_pool_threads(g->pool); i++) {
        pd_arena_free(g->hands[i].scratch);
        pd_arena_free(g->hands[i].keep);
        pd_image_free(&g->hands[i].image);
    }
    pd_pool_free(g->pool);
    pd_arena_free(g->arena);
}

int main(int argc, char **argv)
{
    program g = {.opt = {.seed = 1,
                         .train = 400,
                         .val = 100,
                         .crops = 150,
                         .val_crops = 40,
                         .classes = 6,
                         .side = 256,
                         .difficulty = 0.5}};
    options *o = &g.opt;
    const pd_opt opts[] = {
        PD_OPT_INT64(0, "seed", "N", &o->seed, 0, 9007199254740992.0, "other pictures"),
        PD_OPT_INT(0, "train", "N", &o->train, 1, 1000000, "pictures of the COCO training set"),
        PD_OPT_INT(0, "val", "N", &o->val, 1, 1000000, "pictures of the COCO validation set"),
        PD_OPT_INT(0, "crops", "N", &o->crops, 1, 1000000, "pictures per class in imagenet/train"),
        PD_OPT_INT(0, "val-crops", "N", &o->val_crops, 1, 1000000, "pictures per class in imagenet/val"),
        PD_OPT_INT(0, "classes", "N", &o->classes, 2, PD_SHAPE_KINDS, "kinds of shapes, 2 to 8"),
        PD_OPT_INT(0, "side", "N", &o->side, 96, 2048, "longest side of a COCO picture"),
        PD_OPT_DOUBLE(0, "difficulty", "X", &o->difficulty, 0, 1, "texture, clutter and noise, 0 to 1"),
    };
    const pd_cli cli = {.program = "pd_make_shapes",
                        .usage = "DIR",
                        .about = "Draws demonstration data: DIR/imagenet/{train,val}/CLASS/* for classifiers,\n"
                                 "DIR/coco/{train,val}/* with DIR/coco/annotations/instances_{train,val}.json for\n"
                                 "detectors. The same options give the same pictures.",
                        .example = "pd_make_shapes shapes && pd_cls_train -a pd_b_resnet18 -d shapes/imagenet",
                        .opts = opts,
                        .n_opts = sizeof opts / sizeof *opts,
                        .common = PD_CLI_THREADS | PD_CLI_QUIET,
                        .min_args = 1,
                        .max_args = 1};
    pd_cli_args args;
    const int code = pd_cli_parse(&args, &cli, argc, argv);
    if (code >= 0) return code;
    pd_cli_catch_stop();
    o->dir = args.args[0];
    g.args = &args;
    pd_err err = PD_ERR_INIT;
    const pd_status status = run(&g, &err);
    program_free(&g);
    const int result = pd_cli_close_stdout(&cli, status == PD_OK ? 0 : pd_cli_fail(&cli, &err));
    pd_cli_free(&args);
    return result;
}
