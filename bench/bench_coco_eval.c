/* bench_coco_eval: whole runs of pd_coco_eval against pycocotools, faster-coco-eval and hotcoco, and how it grows.
 *
 *     bench_coco_eval [--rounds N] [--growth N] [--gt GT.json --dt DT.json [--type bbox|segm|keypoints]]
 *
 * Without files it draws its own set with the shape of COCO val2017: 5000 images, 80 categories, 37,000 objects and 100
 * detections an image, digits as single precision prints them. Every run is a fresh process, from its start to its
 * exit: reading both files, evaluating, printing; the files are in the page cache. Programs take turns; printed are the
 * best wall time, its processor time and the largest resident size. Peers that python3 (or $PD_PYTHON) does not have
 * are left out.
 * --growth N adds sets of 2, 4, .. N times as many images (20: 10 million detections, 2 GB of disk in $TMPDIR), and
 * sets of 2, 4, .. N times as many categories. */
#include "engine/rng.h"
#include "eval/results.h"

#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *const peers[][2] = {
    {"hotcoco", "import sys\nfrom hotcoco import COCO, COCOeval\ng=COCO(sys.argv[1]);d=g.load_res(sys.argv[2])\n"
                "e=COCOeval(g,d,sys.argv[3]);e.evaluate();e.accumulate();e.summarize()\n"
                "print('AP=%.17g'%list(e.stats)[0])\n"},
    {"faster-coco-eval",
     "import sys\nfrom faster_coco_eval import COCO, COCOeval_faster as E\n"
     "g=COCO(sys.argv[1]);d=g.loadRes(sys.argv[2])\n"
     "e=E(g,d,sys.argv[3]);e.evaluate();e.accumulate();e.summarize()\nprint('AP=%.17g'%e.stats[0])\n"},
    {"pycocotools", "import sys\nfrom pycocotools.coco import COCO\nfrom pycocotools.cocoeval import COCOeval as E\n"
                    "g=COCO(sys.argv[1]);d=g.loadRes(sys.argv[2])\n"
                    "e=E(g,d,sys.argv[3]);e.evaluate();e.accumulate();e.summarize()\nprint('AP=%.17g'%e.stats[0])\n"},
};
enum { PEERS = sizeof peers / sizeof *peers, PROGRAMS = PEERS + 2 };

typedef struct {
    double wall, cpu; /* seconds; wall 0: never ran */
    long kilobytes;
    double ap;
} timing;

typedef struct {
    char program[512], python[512], folder[256], gt[300], dt[300];
    const char *type;
} setting;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Runs a program and reads what it prints. False where it fails. */
static bool run(timing *best, char *const argv[], char *text, size_t room)
{
    int ends[2];
    if (pipe(ends)) return false;
    const double start = now();
    const pid_t pid = fork();
    if (pid == 0) {
        const int null = open("/dev/null", O_WRONLY);
        dup2(ends[1], 1);
        dup2(null, 2);
        close(ends[0]);
        execvp(argv[0], argv);
        _exit(127);
    }
    close(ends[1]);
    size_t n = 0;
    for (ssize_t got; n + 1 < room && (got = read(ends[0], text + n, room - 1 - n)) > 0;) n += (size_t)got;
    text[n] = '\0';
    close(ends[0]);
    int status;
    struct rusage use;
    if (pid < 0 || wait4(pid, &status, 0, &use) != pid || !WIFEXITED(status) || WEXITSTATUS(status)) return false;
    const double wall = now() - start;
    if (best->wall == 0 || wall < best->wall) {
        best->wall = wall;
        best->cpu = (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
                    1e-6 * (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec);
    }
    if (use.ru_maxrss > best->kilobytes) best->kilobytes = use.ru_maxrss;
    return true;
}

static void run_ours(timing *t, const setting *s, char *threads)
{
    char text[8192], json[300], *found;
    snprintf(json, sizeof json, "%s/out.json", s->folder);
    char *const argv[] = {(char *)s->program, (char *)s->gt, (char *)s->dt, "--iou-type", (char *)s->type,
                          "--threads",        threads,       "--quiet",     NULL};
    char *const exact[] = {(char *)s->program, (char *)s->gt, (char *)s->dt, "--iou-type", (char *)s->type,
                           "--json",           json,          "--quiet",     NULL};
    if (t->wall == 0) { /* the exact number once, outside of the timing */
        timing ignored = {0};
        FILE *f = run(&ignored, exact, text, sizeof text) ? fopen(json, "r") : NULL;
        if (f) text[fread(text, 1, sizeof text - 1, f)] = '\0';
        if (f) fclose(f);
        if ((found = strstr(text, "\"stats\":["))) t->ap = strtod(found + 9, NULL);
    }
    run(t, argv, text, sizeof text);
}

static void run_peer(timing *t, const setting *s, int peer)
{
    char text[8192], *found;
    char *const argv[] = {(char *)s->python, "-c", (char *)peers[peer][1], (char *)s->gt, (char *)s->dt,
                          (char *)s->type,   NULL};
    if (run(t, argv, text, sizeof text) && (found = strstr(text, "AP="))) t->ap = strtod(found + 3, NULL);
}

/* ---- a set like val2017 ---- */

static double draw(pd_rng *r, double low, double high)
{
    return low + (high - low) * pd_rng_double(r);
}

#define IMAGES 5000
#define CATEGORIES 80

/* A category: the first holds three of ten objects. */
static int draw_category(pd_rng *r, int categories)
{
    return pd_rng_below(r, 10) < 3 ? 1 : 1 + (int)pd_rng_below(r, (uint32_t)categories);
}

static void write_set(const setting *s, int images, int categories)
{
    pd_rng r = pd_rng_make(7, 0, 0);
    FILE *const gt = fopen(s->gt, "w"), *const dt = fopen(s->dt, "w");
    fprintf(gt, "{\"images\": [");
    for (int i = 0; i < images; i++)
        fprintf(gt, "%s{\"license\": 1, \"file_name\": \"%012d.jpg\", \"height\": 480, \"width\": 640, \"id\": %d}",
                i ? ", " : "", 97 * i + 139, 97 * i + 139);
    fprintf(gt, "], \"categories\": [");
    for (int k = 1; k <= categories; k++)
        fprintf(gt, "%s{\"supercategory\": \"all\", \"id\": %d, \"name\": \"kind%d\"}", k > 1 ? ", " : "", k, k);
    fprintf(gt, "], \"annotations\": [");
    fprintf(dt, "[");
    int id = 0;
    for (int i = 0; i < images; i++) {
        double boxes[16][4];
        int kinds[16];
        const int objects = (int)pd_rng_below(&r, 16);
        for (int o = 0; o < objects; o++) {
            double *const b = boxes[o];
            b[0] = draw(&r, 0, 500);
            b[1] = draw(&r, 0, 380);
            b[2] = draw(&r, 8, 140);
            b[3] = draw(&r, 8, 100);
            kinds[o] = draw_category(&r, categories);
            fprintf(gt,
                    "%s{\"area\": %.4f, \"iscrowd\": %d, \"image_id\": %d, \"bbox\": [%.2f, %.2f, %.2f, %.2f], "
                    "\"category_id\": %d, "
                    "\"id\": %d}",
                    id ? ", " : "", b[2] * b[3] * 0.7, pd_rng_below(&r, 100) == 0, 97 * i + 139, b[0], b[1], b[2], b[3],
                    kinds[o], id + 1);
            id++;
        }
        for (int d = 0; d < 100; d++) {
            const int near = objects && d < 3 * objects ? d % objects : -1;
            double b[4] = {draw(&r, 0, 500), draw(&r, 0, 380), draw(&r, 4, 140), draw(&r, 4, 100)};
            for (int c = 0; c < 4 && near >= 0; c++)
                b[c] = boxes[near][c] * (1 + 0.04 * (1 + d / objects) * pd_rng_normal(&r));
            fprintf(
                dt,
                "%s{\"image_id\": %d, \"category_id\": %d, \"bbox\": [%.17g, %.17g, %.17g, %.17g], \"score\": %.17g}",
                i || d ? ", " : "", 97 * i + 139, near >= 0 ? kinds[near] : draw_category(&r, categories),
                (double)(float)b[0], (double)(float)b[1], (double)(float)b[2], (double)(float)b[3],
                (double)(float)(near >= 0 ? draw(&r, 0.1, 1) : draw(&r, 0, 0.4)));
        }
    }
    fprintf(gt, "]}");
    fprintf(dt, "]");
    fclose(gt);
    fclose(dt);
}

/* ---- tables ---- */

static double megabytes(const char *path)
{
    struct stat st;
    return stat(path, &st) ? 0 : (double)st.st_size / 1e6;
}

static void compare(const setting *s, int rounds)
{
    timing t[PROGRAMS] = {{0}};
    for (int round = 0; round < rounds; round++) {
        run_ours(&t[0], s, "0");
        run_ours(&t[1], s, "1");
        for (int p = 0; p < PEERS; p++) run_peer(&t[2 + p], s, p);
    }
    printf("%s, ground truth %.1f MB, results %.1f MB, best of %d\n", s->type, megabytes(s->gt), megabytes(s->dt),
           rounds);
    printf("%-26s %8s %8s %8s  %-20s %s\n", "", "wall s", "cpu s", "MB", "AP", "times our wall");
    for (int i = 0; i < PROGRAMS; i++) {
        const char *const name = i == 0 ? "pd_coco_eval" : i == 1 ? "pd_coco_eval, one thread" : peers[i - 2][0];
        if (t[i].wall == 0)
            printf("%-26s not here\n", name);
        else
            printf("%-26s %8.3f %8.3f %8.0f  %-20.17g %.1f\n", name, t[i].wall, t[i].cpu, (double)t[i].kilobytes / 1024,
                   t[i].ap, t[i].wall / t[0].wall);
    }
}

/* Up to `most` times as many images, or as many categories. */
static void grow(const setting *s, int rounds, int most, bool of_categories)
{
    printf("\n%-12s %-12s %10s %8s %8s %8s  %s\n", "categories", "detections", "MB of text", "wall s", "cpu s", "MB",
           "ns of cpu a detection");
    for (int scale = 1;; scale = scale * 2 < most ? scale * 2 : most) {
        timing t = {0};
        const int images = of_categories ? IMAGES : IMAGES * scale;
        const int categories = of_categories ? CATEGORIES * scale : CATEGORIES;
        write_set(s, images, categories);
        for (int round = 0; round < rounds; round++) run_ours(&t, s, "0");
        const double n = 100.0 * images;
        printf("%-12d %-12.0f %10.0f %8.3f %8.3f %8.0f  %.0f\n", categories, n, megabytes(s->gt) + megabytes(s->dt),
               t.wall, t.cpu, (double)t.kilobytes / 1024, 1e9 * t.cpu / n);
        if (scale >= most) break;
    }
}

int main(int argc, char **argv)
{
    setting s = {.type = "bbox"};
    int rounds = 3, growth = 0;
    const char *gt = NULL, *dt = NULL;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--rounds"))
            rounds = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--growth"))
            growth = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--gt"))
            gt = argv[i + 1];
        else if (!strcmp(argv[i], "--dt"))
            dt = argv[i + 1];
        else if (!strcmp(argv[i], "--type"))
            s.type = argv[i + 1];
    }
    char self[400];
    snprintf(self, sizeof self, "%s", argv[0]);
    snprintf(s.program, sizeof s.program, "%s/pd_coco_eval", dirname(self));
    snprintf(s.python, sizeof s.python, "%s", getenv("PD_PYTHON") ? getenv("PD_PYTHON") : "python3");
    snprintf(s.folder, sizeof s.folder, "%s/pd_bench_coco_XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    if (rounds < 1 || !mkdtemp(s.folder)) {
        fprintf(stderr, "bench_coco_eval: --rounds wants 1 or more, and $TMPDIR a folder that can be written\n");
        return 2;
    }
    snprintf(s.gt, sizeof s.gt, "%s/gt.json", s.folder);
    snprintf(s.dt, sizeof s.dt, "%s/dt.json", s.folder);
    setting given = s;
    if (gt && dt) {
        snprintf(given.gt, sizeof given.gt, "%s", gt);
        snprintf(given.dt, sizeof given.dt, "%s", dt);
    } else {
        write_set(&s, IMAGES, CATEGORIES);
    }
    compare(&given, rounds);
    if (growth > 1) grow(&s, rounds, growth, false);
    if (growth > 1) grow(&s, rounds, growth, true);
    remove(s.gt);
    remove(s.dt);
    snprintf(s.gt, sizeof s.gt, "%s/out.json", s.folder);
    remove(s.gt);
    remove(s.folder);
    return 0;
}
