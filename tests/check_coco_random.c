/* Random small evaluations, ours and pycocotools' side by side: boxes, masks and keypoints with equal scores and
 * overlaps, crowds, ids of all kinds, repeated ids, empty lists, NaN and infinities, and options: own thresholds,
 * limits, areas, sigmas, images, categories. Every statistic and the sums of all arrays must be equal to the last bit.
 * Skipped where python3 has no pycocotools ($PD_PYTHON: another interpreter). ctest: slow
 *
 *     check_coco_random [cases] [seed] */
#include "engine/rng.h"
#include "eval/coco_ap.h"
#include "tests/pd_test.h"
#include "tests/sha256.h"

#include <stdarg.h>
#include <unistd.h>

/* Reads lines "gt dt type {options}" and answers each with one line: the statistics in hexadecimal, then the SHA-256 of
 * precision, recall and scores; or "error". An option is a field of pycocotools' Params. */
static const char oracle[] =
    "import sys, io, contextlib, hashlib, json\n"
    "import numpy as np\n"
    "from pycocotools.coco import COCO\n"
    "from pycocotools.cocoeval import COCOeval\n"
    "np.seterr(all='ignore')\n"
    "print('ready', flush=True)\n"
    "for line in sys.stdin:\n"
    "    gt, dt, kind, options = line.split(None, 3)\n"
    "    try:\n"
    "        with contextlib.redirect_stdout(io.StringIO()):\n"
    "            g = COCO(gt)\n"
    "            e = COCOeval(g, g.loadRes(dt), kind)\n"
    "            for key, value in json.loads(options).items():\n"
    "                if key in ('iouThrs', 'recThrs', 'kpt_oks_sigmas'): value = np.array(value)\n"
    "                setattr(e.params, key, value)\n"
    "            e.evaluate(); e.accumulate(); e.summarize()\n"
    "        v = e.eval\n"
    "        sums = [hashlib.sha256(np.ascontiguousarray(v[k], '<f8').tobytes()).hexdigest()\n"
    "                for k in ('precision', 'recall', 'scores')]\n"
    "        print(' '.join([float(x).hex() for x in e.stats] + sums), flush=True)\n"
    "    except Exception as x:\n"
    "        print('error', type(x).__name__, flush=True)\n";

/* ---- drawing a case ---- */

typedef struct {
    pd_rng r;
    pd_coco_type type;
    int n_images, n_categories;
    bool text_ids, shared_ids, odd_numbers;
} drawing;

static unsigned below(drawing *d, unsigned n)
{
    return pd_rng_below(&d->r, n);
}

static bool yes(drawing *d, unsigned percent)
{
    return below(d, 100) < percent;
}

static void format_image_id(char out[16], const drawing *d, unsigned i)
{
    if (d->text_ids)
        snprintf(out, 16, "\"im%u\"", i * 7 % 5);
    else
        snprintf(out, 16, i == 2 ? "%u.5" : i == 3 ? "%u.0" : "%u", i * 3 % 7);
}

static void put_image_id(FILE *f, const drawing *d, unsigned i)
{
    char text[16];
    format_image_id(text, d, i);
    fputs(text, f);
}

static void put_coordinate(FILE *f, drawing *d, int low, int high)
{
    static const char *const odd[] = {"NaN", "Infinity", "-Infinity", "0", "-5", "1e300"};
    if (d->odd_numbers && yes(d, 4))
        fprintf(f, "%s", odd[below(d, 6)]);
    else if (yes(d, 70))
        fprintf(f, "%d", low + (int)below(d, (unsigned)(high - low)));
    else
        fprintf(f, "%.*f", 1 + (int)below(d, 16), low + pd_rng_double(&d->r) * (high - low));
}

static void put_box(FILE *f, drawing *d)
{
    fprintf(f, "[");
    put_coordinate(f, d, 0, 6);
    fprintf(f, ", ");
    put_coordinate(f, d, 0, 6);
    fprintf(f, ", ");
    put_coordinate(f, d, yes(d, 5) ? -2 : 1, yes(d, 30) ? 120 : 12);
    fprintf(f, ", ");
    put_coordinate(f, d, yes(d, 5) ? -2 : 1, yes(d, 30) ? 120 : 12);
    fprintf(f, "]");
}

static void put_polygons(FILE *f, drawing *d)
{
    const unsigned n = 1 + below(d, 3);
    fprintf(f, "[");
    for (unsigned p = 0; p < n; p++) {
        const unsigned points = 3 + below(d, 5);
        fprintf(f, "%s[", p ? ", " : "");
        for (unsigned i = 0; i < 2 * points; i++)
            fprintf(f, yes(d, 50) ? "%s%.0f" : "%s%.3f", i ? ", " : "", -3 + pd_rng_double(&d->r) * 30);
        fprintf(f, "]");
    }
    fprintf(f, "]");
}

/* Runs that fill h x w, as a list or as text. */
static void put_runs(FILE *f, drawing *d, int h, int w, bool as_text)
{
    int runs[200], n = 0, left = h * w;
    const int longest = 1 + (int)below(d, yes(d, 50) ? 30 : 6);
    while (left > 0 && n < 190) {
        int run = (int)below(d, (unsigned)longest + 1);
        if (run == 0 && n && !yes(d, 15)) run = 1;
        run = run > left ? left : run;
        runs[n++] = run;
        left -= run;
    }
    if (left) runs[n++] = left;
    fprintf(f, "{\"size\": [%d, %d], \"counts\": ", h, w);
    if (!as_text) {
        for (int i = 0; i < n; i++) fprintf(f, "%s%d", i ? ", " : "[", runs[i]);
        fprintf(f, "]}");
        return;
    }
    fprintf(f, "\"");
    for (int i = 0; i < n; i++) {
        int v = i > 2 ? runs[i] - runs[i - 2] : runs[i];
        bool more = true;
        while (more) {
            int c = v & 31;
            v >>= 5;
            more = (c & 16) ? v != -1 : v != 0;
            c = (more ? c | 32 : c) + 48;
            fprintf(f, c == '\\' ? "\\\\" : "%c", c);
        }
    }
    fprintf(f, "\"}");
}

static void put_points(FILE *f, drawing *d, bool labels)
{
    const unsigned labelled = labels ? (yes(d, 20) ? 0 : 10 * below(d, 11)) : 50;
    fprintf(f, "[");
    for (int i = 0; i < 17; i++) {
        fprintf(f, i ? ", " : "");
        put_coordinate(f, d, 0, 9);
        fprintf(f, ", ");
        put_coordinate(f, d, 0, 9);
        fprintf(f, ", %d", yes(d, labelled) ? 1 + (int)below(d, 2) : 0);
    }
    fprintf(f, "]");
}

#define H 17
#define W 23

static void put_object(FILE *f, drawing *d, int id)
{
    fprintf(f, "{\"id\": %d, \"image_id\": ", d->shared_ids && yes(d, 20) ? (int)below(d, 4) : id);
    put_image_id(f, d, below(d, (unsigned)d->n_images));
    fprintf(f,
            ", \"category_id\": %u, \"iscrowd\": %s, \"area\": ", 1 + below(d, (unsigned)d->n_categories + yes(d, 5)),
            yes(d, 12)  ? "1"
            : yes(d, 5) ? "true"
                        : "0");
    put_coordinate(f, d, 0, yes(d, 50) ? 40 : 12000);
    fprintf(f, ", \"bbox\": ");
    put_box(f, d);
    if (d->type == PD_COCO_SEGM) {
        fprintf(f, ", \"segmentation\": ");
        const unsigned form = below(d, 3);
        if (form == 0)
            put_polygons(f, d);
        else
            put_runs(f, d, H, W, form == 1);
    }
    if (d->type == PD_COCO_KEYPOINTS) {
        fprintf(f, ", \"num_keypoints\": %u, \"keypoints\": ", below(d, 4));
        put_points(f, d, true);
    }
    fprintf(f, "}");
}

static void put_result(FILE *f, drawing *d, bool with_box)
{
    static const char *const odd[] = {"NaN", "Infinity", "-Infinity", "-0.0", "1e-320", "3"};
    fprintf(f, "{\"image_id\": ");
    put_image_id(f, d, below(d, (unsigned)d->n_images));
    fprintf(f, ", \"category_id\": %u, \"score\": ", 1 + below(d, (unsigned)d->n_categories + yes(d, 5)));
    if (yes(d, 5))
        fprintf(f, "%s", odd[below(d, 6)]);
    else if (yes(d, 60))
        fprintf(f, "0.%u", below(d, 5));
    else
        fprintf(f, "%.17g", pd_rng_double(&d->r));
    if (with_box) {
        fprintf(f, ", \"bbox\": ");
        put_box(f, d);
    }
    if (d->type == PD_COCO_SEGM && (!with_box || yes(d, 50))) {
        fprintf(f, ", \"segmentation\": ");
        put_runs(f, d, yes(d, 3) ? H + 1 : H, W, true);
    }
    if (d->type == PD_COCO_KEYPOINTS) {
        fprintf(f, ", \"keypoints\": ");
        put_points(f, d, false);
    }
    fprintf(f, "}");
}

static void draw_case(drawing *d, const char *gt, const char *dt)
{
    FILE *f = fopen(gt, "w");
    fprintf(f, "{\"images\": [");
    for (int i = 0; i < d->n_images; i++) {
        fprintf(f, i ? ", {\"width\": %d, \"height\": %d, \"id\": " : "{\"width\": %d, \"height\": %d, \"id\": ", W, H);
        put_image_id(f, d, (unsigned)i);
        fprintf(f, "}");
    }
    fprintf(f, "], \"annotations\": [");
    const int objects = yes(d, 5) ? 0 : 1 + (int)below(d, 14);
    for (int i = 0; i < objects; i++) {
        fprintf(f, i ? ",\n" : "\n");
        put_object(f, d, i + !d->shared_ids);
    }
    fprintf(f, "], \"categories\": [");
    for (int i = d->n_categories; i > 0; i--)
        fprintf(f, "%s{\"id\": %d, \"name\": \"c%d\"}", i < d->n_categories ? ", " : "", i, i);
    fprintf(f, "]}\n");
    fclose(f);
    f = fopen(dt, "w");
    const bool with_box = d->type == PD_COCO_BBOX || yes(d, 40);
    const int results = 1 + (int)below(d, yes(d, 10) ? 150 : 25);
    for (int i = 0; i < results; i++) {
        fprintf(f, i ? ",\n" : "[");
        put_result(f, d, with_box);
    }
    fprintf(f, "]\n");
    fclose(f);
}

/* ---- drawing options ---- */

/* What is asked for, for both sides; a list of length 0 is the default. */
typedef struct {
    double iou[40], recall[12], sigmas[17];
    size_t limits[3];
    pd_coco_range areas[4];
    pd_coco_id images[4], categories[3];
    char text[4][16]; /* of the images' ids */
    size_t n_iou, n_recall, n_sigmas, n_limits, n_areas, n_images, n_categories;
    bool no_categories;
    char json[4096]; /* the same for the oracle */
} asked;

static void append(asked *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void append(asked *o, const char *fmt, ...)
{
    const size_t n = strlen(o->json);
    va_list args;
    va_start(args, fmt);
    vsnprintf(o->json + n, sizeof o->json - n, fmt, args);
    va_end(args);
}

static void append_numbers(asked *o, const char *name, const double *v, size_t n)
{
    if (n == 0) return;
    append(o, ", \"%s\": ", name);
    for (size_t i = 0; i < n; i++) append(o, i ? ", %.17g" : "[%.17g", v[i]);
    append(o, "]");
}

static void draw_thresholds(asked *o, drawing *d)
{
    if (yes(d, 30)) o->n_iou = 1 + below(d, yes(d, 10) ? 40 : 6);
    for (size_t i = 0; i < o->n_iou; i++) o->iou[i] = yes(d, 60) ? 0.05 * (1 + below(d, 20)) : pd_rng_double(&d->r);
    append_numbers(o, "iouThrs", o->iou, o->n_iou);
    if (yes(d, 20)) o->n_recall = 1 + below(d, 12);
    for (size_t i = 0; i < o->n_recall; i++) o->recall[i] = ((double)i + pd_rng_double(&d->r)) / (double)o->n_recall;
    append_numbers(o, "recThrs", o->recall, o->n_recall);
}

static void draw_limits(asked *o, drawing *d)
{
    if (!yes(d, 30)) return;
    o->n_limits = 3;
    append(o, ", \"maxDets\": ");
    for (size_t i = 0; i < 3; i++) {
        o->limits[i] = i == 2 && yes(d, 30) ? 100 : 1 + (2 - i) * 7 + below(d, 7); /* any order, no two equal */
        append(o, i ? ", %zu" : "[%zu", o->limits[i]);
    }
    append(o, "]");
}

static void draw_areas(asked *o, drawing *d)
{
    if (!yes(d, 20)) return;
    o->n_areas = d->type == PD_COCO_KEYPOINTS ? 3 : 4;
    append(o, ", \"areaRng\": ");
    for (size_t i = 0; i < o->n_areas; i++) {
        o->areas[i].low = below(d, 30);
        o->areas[i].high = o->areas[i].low + below(d, i ? 60 : 9000);
        append(o, i ? ", [%g, %g]" : "[[%g, %g]", o->areas[i].low, o->areas[i].high);
    }
    append(o, "]");
}

static void draw_subsets(asked *o, drawing *d)
{
    const bool images = yes(d, 15), categories = yes(d, 15);
    for (int i = 0; images && i < d->n_images; i++) {
        char *const text = o->text[o->n_images];
        if (o->n_images && yes(d, 50)) continue;
        format_image_id(text, d, (unsigned)i);
        append(o, o->n_images ? ", %s" : ", \"imgIds\": [%s", text);
        const double number = strtod(text, NULL);
        if (d->text_ids) text[strlen(text) - 1] = '\0';
        o->images[o->n_images++] = d->text_ids                     ? (pd_coco_id){PD_COCO_ID_TEXT, 0, 0, text + 1}
                                   : number == (double)(int)number ? pd_coco_int_id((int)number)
                                                                   : (pd_coco_id){PD_COCO_ID_REAL, 0, number, NULL};
    }
    if (images) append(o, "]");
    for (int k = 1; categories && k <= d->n_categories; k++) {
        if (o->n_categories && yes(d, 50)) continue;
        append(o, o->n_categories ? ", %d" : ", \"catIds\": [%d", k);
        o->categories[o->n_categories++] = pd_coco_int_id(k);
    }
    if (categories) append(o, "]");
}

static void draw_options(asked *o, drawing *d)
{
    *o = (asked){.no_categories = yes(d, 25)};
    append(o, "{\"useCats\": %d", !o->no_categories);
    draw_thresholds(o, d);
    draw_limits(o, d);
    draw_areas(o, d);
    draw_subsets(o, d);
    if (d->type == PD_COCO_KEYPOINTS && yes(d, 20)) o->n_sigmas = 17;
    for (size_t i = 0; i < o->n_sigmas; i++) o->sigmas[i] = 0.02 + 0.1 * pd_rng_double(&d->r);
    append_numbers(o, "kpt_oks_sigmas", o->sigmas, o->n_sigmas);
    append(o, "}");
}

/* ---- comparing ---- */

static void sum_array(char out[65], const pd_coco_result *r,
                      double (*get)(const pd_coco_result *, size_t, size_t, size_t, size_t, size_t))
{
    sha256 h;
    sha256_begin(&h);
    for (size_t t = 0; t < r->n_iou; t++)
        for (size_t rec = 0; rec < (get ? r->n_recall : 1); rec++)
            for (size_t k = 0; k < r->n_categories; k++)
                for (size_t a = 0; a < r->n_areas; a++)
                    for (size_t m = 0; m < r->n_limits; m++) {
                        const double v = get ? get(r, t, rec, k, a, m) : pd_coco_recall(r, t, k, a, m);
                        sha256_add(&h, &v, sizeof v);
                    }
    sha256_end(&h, out);
}

/* Our answer as the oracle writes it. */
static pd_status answer(char *out, size_t room, const drawing *d, const asked *o, const char *gt_path,
                        const char *dt_path, pd_pool *pool, pd_err *err)
{
    pd_coco_gt *gt = NULL;
    pd_coco_dt *dt = NULL;
    pd_coco_result *r = NULL;
    const unsigned read =
        PD_COCO_READ_MASKS * (d->type == PD_COCO_SEGM) | PD_COCO_READ_KEYPOINTS * (d->type == PD_COCO_KEYPOINTS);
    const pd_coco_gt_options what = {.read = read};
    const pd_coco_dt_options how = {.read = read};
    const pd_coco_params params = {.type = d->type,
                                   .iou_thrs = o->n_iou ? o->iou : NULL,
                                   .n_iou = o->n_iou,
                                   .recall_thrs = o->n_recall ? o->recall : NULL,
                                   .n_recall = o->n_recall,
                                   .limits = o->n_limits ? o->limits : NULL,
                                   .n_limits = o->n_limits,
                                   .areas = o->n_areas ? o->areas : NULL,
                                   .n_areas = o->n_areas,
                                   .sigmas = o->n_sigmas ? o->sigmas : NULL,
                                   .n_sigmas = o->n_sigmas,
                                   .images = o->n_images ? o->images : NULL,
                                   .n_images = o->n_images,
                                   .categories = o->n_categories ? o->categories : NULL,
                                   .n_categories = o->n_categories,
                                   .no_categories = o->no_categories,
                                   .keep = PD_COCO_KEEP_ARRAYS};
    pd_status status = pd_coco_gt_open(&gt, gt_path, &what, pool, err);
    if (status == PD_OK) status = pd_coco_dt_open(&dt, gt, dt_path, &how, pool, err);
    if (status == PD_OK) status = pd_coco_evaluate(&r, gt, dt, &params, pool, err);
    if (status == PD_OK) {
        size_t n = 0;
        char sum[65];
        for (int i = 0; i < r->n_stats; i++) n += (size_t)snprintf(out + n, room - n, "%.17g ", r->stats[i]);
        sum_array(sum, r, pd_coco_precision);
        n += (size_t)snprintf(out + n, room - n, "%s ", sum);
        sum_array(sum, r, NULL);
        n += (size_t)snprintf(out + n, room - n, "%s ", sum);
        sum_array(sum, r, pd_coco_score);
        snprintf(out + n, room - n, "%s", sum);
    }
    pd_coco_result_free(r);
    pd_coco_dt_close(dt);
    pd_coco_gt_close(gt);
    return status;
}

/* Word by word: numbers by value, sums as text. */
static bool same(const char *ours, const char *theirs)
{
    char a[4096], b[4096], *save_a, *save_b;
    snprintf(a, sizeof a, "%s", ours);
    snprintf(b, sizeof b, "%s", theirs);
    char *x = strtok_r(a, " \n", &save_a), *y = strtok_r(b, " \n", &save_b);
    while (x && y) {
        if (strlen(y) == 64 ? strcmp(x, y) : strtod(x, NULL) != strtod(y, NULL)) return false;
        x = strtok_r(NULL, " \n", &save_a);
        y = strtok_r(NULL, " \n", &save_b);
    }
    return !x && !y;
}

typedef struct {
    FILE *to, *from;
} talk;

/* Starts the interpreter on the script; false where it does not answer "ready". */
static bool start(talk *t, const char *script)
{
    int down[2], up[2];
    if (pipe(down) || pipe(up)) return false;
    const char *const python = getenv("PD_PYTHON") ? getenv("PD_PYTHON") : "python3";
    if (fork() == 0) {
        dup2(down[0], 0);
        dup2(up[1], 1);
        close(down[1]);
        close(up[0]);
        execlp(python, python, script, (char *)NULL);
        _exit(127);
    }
    close(down[0]);
    close(up[1]);
    t->to = fdopen(down[1], "w");
    t->from = fdopen(up[0], "r");
    char line[64];
    return fgets(line, sizeof line, t->from) && !strncmp(line, "ready", 5);
}

int main(int argc, char **argv)
{
    const int cases = argc > 1 ? atoi(argv[1]) : 2000;
    const uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    char folder[256], gt[300], dt[300], script[300], ours[4096], theirs[4096];
    pd_err err = PD_ERR_INIT;
    pd_pool *pool = NULL;
    talk t;
    PD_CHECK_OK(pd_pool_new(&pool, 2, &err));
    PD_CHECK(pd_test_dir(folder, "coco_random"));
    snprintf(gt, sizeof gt, "%s/gt.json", folder);
    snprintf(dt, sizeof dt, "%s/dt.json", folder);
    snprintf(script, sizeof script, "%s/oracle.py", folder);
    PD_CHECK_OK(pd_file_write(script, oracle, sizeof oracle - 1, &err));
    const bool ready = start(&t, script);
    if (!ready) PD_SKIP("python3 has no pycocotools (PD_PYTHON chooses the interpreter)");
    int compared = 0, refused = 0;
    for (int i = 0; ready && i < cases; i++) {
        drawing d = {.r = pd_rng_make(seed, (uint32_t)i, 0)};
        d.type = (pd_coco_type)(i % 3);
        d.n_images = 1 + (int)below(&d, 4);
        d.n_categories = 1 + (int)below(&d, 3);
        d.text_ids = yes(&d, 15);
        d.shared_ids = yes(&d, 20);
        d.odd_numbers = d.type != PD_COCO_SEGM && yes(&d, 30);
        asked o;
        draw_options(&o, &d);
        draw_case(&d, gt, dt);
        fprintf(t.to, "%s %s %s %s\n", gt, dt, pd_coco_type_name(d.type), o.json);
        fflush(t.to);
        if (!fgets(theirs, sizeof theirs, t.from)) {
            PD_CHECK(!"pycocotools answers");
            break;
        }
        const pd_status status = answer(ours, sizeof ours, &d, &o, gt, dt, pool, &err);
        const bool raised = !strncmp(theirs, "error", 5);
        refused += raised;
        compared += !raised;
        PD_CHECK_MSG(raised ? status != PD_OK : status == PD_OK && same(ours, theirs),
                     "case %d of seed %llu (%s, %s):\n ours   %s\n theirs %s", i, (unsigned long long)seed,
                     pd_coco_type_name(d.type), o.json, status == PD_OK ? ours : err.text, theirs);
        if (pd_test_failures > 5) break;
    }
    if (ready) {
        printf("%d cases compared, %d refused by pycocotools\n", compared, refused);
        PD_CHECK(compared > refused);
        fclose(t.to);
        fclose(t.from);
    }
    pd_pool_free(pool);
    if (!pd_test_failures) {
        remove(gt);
        remove(dt);
        remove(script);
        remove(folder);
    }
    return pd_test_end();
}
