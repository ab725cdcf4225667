/* bench_loader: training crops per second and core: decode, random resized crop to 224, mirror, normalise.
 *
 *   bench_loader FOLDER [ROUNDS]     FOLDER holds JPEG photos (ImageNet's are about 500x375 and 75-110 kB)
 *
 * One loader thread; time is the processor time of the process, so that a busy machine does not matter much. Where
 * /usr/bin/python3 has torchvision, PIL + torchvision.transforms do the same work in a child process, turn by turn with
 * us; medians are compared. */
#include "datasets/loader.h"
#include "engine/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST_ROUNDS = 99 };

static const char peer[] =
    "import sys, os, time\n"
    "import torch, torchvision.transforms as T\n"
    "from PIL import Image\n"
    "torch.set_num_threads(1)\n"
    "names = [os.path.join(sys.argv[1], n) for n in sorted(os.listdir(sys.argv[1]))]\n"
    "names = [n for n in names if os.path.isfile(n)]\n"
    "t = T.Compose([T.RandomResizedCrop(224, (0.1, 1), (0.8, 1.25)), T.RandomHorizontalFlip(), T.ToTensor(),\n"
    "               T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])\n"
    "print('ready', flush=True)\n"
    "for line in sys.stdin:\n"
    "    t0 = time.process_time()\n"
    "    for n in names: t(Image.open(n).convert('RGB'))\n"
    "    print(len(names) / (time.process_time() - t0), flush=True)\n";

/* A child with its input and output at our ends of two pipes; false if it does not come up. */
static bool start_peer(FILE **to, FILE **from, pid_t *pid, const char *folder)
{
    int in[2], out[2];
    if (pipe(in) != 0 || pipe(out) != 0) return false;
    *pid = fork();
    if (*pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        (void)!freopen("/dev/null", "w", stderr);
        for (int i = 0; i < 2; i++) {
            close(in[i]);
            close(out[i]);
        }
        execl("/usr/bin/python3", "python3", "-c", peer, folder, (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    *to = fdopen(in[1], "w");
    *from = fdopen(out[0], "r");
    char line[64] = "";
    return *pid > 0 && *to && *from && fgets(line, sizeof line, *from) && !strncmp(line, "ready", 5);
}

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report(const char *name, double *rates, int n)
{
    qsort(rates, (size_t)n, sizeof *rates, ascending);
    printf("%-24s %7.0f images/s/core  (%.0f to %.0f in %d rounds)\n", name, rates[n / 2], rates[0], rates[n - 1], n);
}

static pd_status epoch(pd_loader *l, uint32_t number, double *rate, pd_err *err)
{
    const double begin = cpu_seconds();
    size_t images = 0;
    PD_TRY(pd_loader_start(l, number, 0, err));
    for (;;) {
        const pd_batch *b;
        PD_TRY(pd_loader_next(l, &b, err));
        if (!b) break;
        images += (size_t)b->n;
        pd_loader_done(l, b);
    }
    *rate = (double)images / (cpu_seconds() - begin);
    return PD_OK;
}

static pd_status run(const char *folder, int rounds, pd_arena *arena, pd_err *err)
{
    char **names;
    size_t n;
    PD_TRY(pd_list_dir(&names, &n, folder, 'f', arena, err));
    for (size_t i = 0; i < n; i++) PD_TRY(pd_path_join(&names[i], folder, names[i], arena, err));
    pd_loader_config c = pd_loader_defaults();
    c.paths = (const char *const *)names;
    c.n_paths = n;
    c.transform = pd_transform_train();
    c.batch = 16;
    c.shuffle = true;
    c.threads = 1;
    pd_loader *l;
    PD_TRY(pd_loader_open(&l, &c, err));
    FILE *to = NULL, *from = NULL;
    pid_t pid = -1;
    const bool peer_runs = start_peer(&to, &from, &pid, folder);
    double ours[MOST_ROUNDS], theirs[MOST_ROUNDS], first;
    pd_status status = epoch(l, 0, &first, err); /* the files come into the cache */
    for (int r = 0; r < rounds && status == PD_OK; r++) {
        status = epoch(l, (uint32_t)r + 1, &ours[r], err);
        theirs[r] = 0;
        if (peer_runs && (fprintf(to, "go\n") < 0 || fflush(to) != 0 || fscanf(from, "%lf", &theirs[r]) != 1))
            theirs[r] = 0;
    }
    if (status == PD_OK) {
        report("paradise", ours, rounds);
        if (peer_runs) {
            report("PIL + torchvision", theirs, rounds);
            printf("ratio of medians: %.2f\n", ours[rounds / 2] / theirs[rounds / 2]);
        } else {
            printf("no torchvision to compare with\n");
        }
    }
    if (to) fclose(to);
    if (from) fclose(from);
    if (pid > 0) waitpid(pid, NULL, 0);
    pd_loader_close(l);
    return status;
}

int main(int argc, char **argv)
{
    const int rounds = argc > 2 ? atoi(argv[2]) : 7;
    if (argc < 2 || rounds < 1 || rounds > MOST_ROUNDS) {
        fprintf(stderr, "usage: bench_loader FOLDER_OF_JPEGS [ROUNDS, 1 to %d]\n", MOST_ROUNDS);
        return 2;
    }
    pd_err err = PD_ERR_INIT;
    pd_arena *arena = pd_arena_new();
    const pd_status status = arena ? run(argv[1], rounds, arena, &err) : PD_ENOMEM;
    if (status != PD_OK) fprintf(stderr, "bench_loader: %s\n", err.text);
    pd_arena_free(arena);
    return status != PD_OK;
}
