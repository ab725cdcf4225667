#include "tests/programs.h"

#include <ctype.h>
#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_WORDS 96

static void fatal(const char *what)
{
    fprintf(stderr, "test harness: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* In the new process. */
static void become(const pd_child *c, const pd_child_how *how, const char *program, char *const *argv)
{
    if (how && how->dir && chdir(how->dir) != 0) _exit(127);
    if (how && how->file_limit) {
        const struct rlimit limit = {how->file_limit, how->file_limit};
        if (setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(127);
    }
    if (how && how->out) {
        if (!freopen(how->out, "w", stdout)) _exit(127);
    } else {
        dup2(fileno(c->file[0]), STDOUT_FILENO);
    }
    dup2(fileno(c->file[1]), STDERR_FILENO);
    setenv("OMP_WAIT_POLICY", "passive", 0); /* several programs share the machine */
    execv(program, argv);
    _exit(127);
}

void pd_child_start(pd_child *c, const pd_child_how *how, const char *bin, const char *fmt, ...)
{
    char words[sizeof c->line], program[4096], *argv[MAX_WORDS + 1];
    int n = 0;
    va_list args;
    pd_child_free(c);
    va_start(args, fmt);
    const int length = vsnprintf(c->line, sizeof c->line, fmt, args);
    va_end(args);
    if (length < 0 || (size_t)length >= sizeof c->line) fatal("a command line is too long");
    memcpy(words, c->line, (size_t)length + 1);
    char *rest = words;
    for (char *word; (word = strsep(&rest, " ")) && n < MAX_WORDS;)
        if (*word) argv[n++] = word;
    argv[n] = NULL;
    snprintf(program, sizeof program, "%s/%s", bin, argv[0]);
    for (int i = 0; i < 2; i++)
        if (!(c->file[i] = tmpfile())) fatal("tmpfile");
    fflush(stdout);
    fflush(stderr);
    c->pid = fork();
    if (c->pid < 0) fatal("fork");
    if (c->pid == 0) become(c, how, program, argv);
}

static char *read_back(FILE *file)
{
    fseek(file, 0, SEEK_END);
    const long size = ftell(file);
    rewind(file);
    char *text = malloc((size_t)size + 1);
    if (size < 0 || !text) fatal("reading what a program said");
    text[fread(text, 1, (size_t)size, file)] = '\0';
    fclose(file);
    return text;
}

static bool reap(pd_child *c, int options)
{
    int status;
    pid_t got;
    if (c->pid <= 0) return true;
    do got = waitpid(c->pid, &status, options);
    while (got < 0 && errno == EINTR);
    if (got < 0) fatal("waitpid");
    if (got == 0) return false;
    c->code = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
    c->out = read_back(c->file[0]);
    c->err = read_back(c->file[1]);
    c->file[0] = c->file[1] = NULL;
    c->pid = 0;
    return true;
}

bool pd_child_running(pd_child *c)
{
    return !reap(c, WNOHANG);
}

void pd_child_wait(pd_child *c)
{
    reap(c, 0);
}

void pd_child_free(pd_child *c)
{
    if (c->pid > 0) {
        kill(c->pid, SIGKILL);
        reap(c, 0);
    }
    free(c->out);
    free(c->err);
    *c = (pd_child){0};
}

int pd_count_lines(const char *text)
{
    int n = 0;
    for (; *text; text++) n += *text == '\n';
    return n;
}

bool pd_same_files(const char *a, const char *b)
{
    FILE *x = fopen(a, "rb"), *y = fopen(b, "rb");
    bool same = x && y;
    while (same) {
        char p[1 << 16], q[1 << 16];
        const size_t n = fread(p, 1, sizeof p, x), m = fread(q, 1, sizeof q, y);
        same = n == m && memcmp(p, q, n) == 0;
        if (n < sizeof p) break;
    }
    if (x) fclose(x);
    if (y) fclose(y);
    return same;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

void pd_remove_tree(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}
