#include "kernels/cuda/plan_store.h"
#include "engine/arena.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct line {
    char *key, *plan;
    double ms;
} line;

struct pd_plan_store {
    char path[1024]; /* "": nowhere to write */
    long read;       /* bytes of the file that are known: whole lines */
    line *lines;
    size_t count, room;
};

static pd_status append(pd_plan_store *s, const char *key, double ms, const char *plan, pd_err *err)
{
    PD_TRY(pd_grow(&s->lines, &s->room, s->count + 1, sizeof *s->lines, err));
    const line l = {strdup(key), strdup(plan), ms};
    if (!l.key || !l.plan) {
        free(l.key);
        free(l.plan);
        return PD_FAIL(err, PD_ENOMEM, "out of memory for plans");
    }
    s->lines[s->count++] = l;
    return PD_OK;
}

/* The folder is made; letters of the name that a file name should not have become '-'. */
static void choose_path(pd_plan_store *s, const char *name)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char folder[800];
    if (cache && *cache == '/')
        snprintf(folder, sizeof folder, "%s", cache);
    else if (home && *home == '/')
        snprintf(folder, sizeof folder, "%s/.cache", home);
    else
        return;
    if (mkdir(folder, 0777) != 0 && errno != EEXIST) return;
    strncat(folder, "/paradise", sizeof folder - strlen(folder) - 1);
    if (mkdir(folder, 0777) != 0 && errno != EEXIST) return;
    const int at = snprintf(s->path, sizeof s->path, "%s/", folder);
    for (int i = 0; name[i] && at + i < (int)sizeof s->path - 1; i++)
        s->path[at + i] = isalnum((unsigned char)name[i]) || name[i] == '.' ? name[i] : '-';
}

/* The lines that are not known yet. One that nobody has finished is left for later. */
static pd_status read_lines(pd_plan_store *s, pd_err *err)
{
    FILE *f = *s->path ? fopen(s->path, "r") : NULL;
    char *text = NULL;
    size_t room = 0;
    ssize_t length;
    pd_status status = PD_OK;
    if (f && fseek(f, s->read, SEEK_SET) == 0)
        while (status == PD_OK && (length = getline(&text, &room, f)) > 0 && text[length - 1] == '\n') {
            char *ms = strchr(text, '\t'), *plan = ms ? strchr(ms + 1, '\t') : NULL;
            s->read += (long)length;
            if (!plan || strchr(plan + 1, '\t')) continue; /* none, or one that was cut off */
            *ms++ = *plan++ = text[length - 1] = '\0';
            status = append(s, text, strtod(ms, NULL), plan, err);
        }
    free(text);
    if (f) fclose(f);
    return status;
}

pd_status pd_plan_store_open(pd_plan_store **out, const char *name, pd_err *err)
{
    pd_plan_store *s = calloc(1, sizeof *s);
    if (!s) return PD_FAIL(err, PD_ENOMEM, "out of memory for plans");
    choose_path(s, name);
    const pd_status status = read_lines(s, err);
    if (status != PD_OK) {
        pd_plan_store_close(s);
        return status;
    }
    *out = s;
    return PD_OK;
}

void pd_plan_store_close(pd_plan_store *s)
{
    if (!s) return;
    for (size_t i = 0; i < s->count; i++) {
        free(s->lines[i].key);
        free(s->lines[i].plan);
    }
    free(s->lines);
    free(s);
}

const char *pd_plan_store_find(const pd_plan_store *s, const char *key, double *ms)
{
    for (size_t i = 0; i < s->count; i++)
        if (!strcmp(s->lines[i].key, key)) {
            *ms = s->lines[i].ms;
            return s->lines[i].plan;
        }
    return NULL;
}

/* One write, so that lines of several processes do not mix. A line that somebody could not finish is ended as none. */
static bool write_line(const pd_plan_store *s, const char *text, size_t length)
{
    static const char none[] = "\t\t\t\n";
    char last = '\n';
    const int file = *s->path ? open(s->path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0666) : -1;
    if (file < 0) return false;
    const off_t end = lseek(file, 0, SEEK_END);
    bool good = end == 0 || (end > 0 && pread(file, &last, 1, end - 1) == 1);
    if (good && last != '\n') good = write(file, none, sizeof none - 1) == (ssize_t)sizeof none - 1;
    good = good && write(file, text, length) == (ssize_t)length;
    return close(file) == 0 && good;
}

pd_status pd_plan_store_add(pd_plan_store *s, const char *key, double ms, const char *plan, pd_err *err)
{
    double known;
    PD_TRY(read_lines(s, err));
    if (pd_plan_store_find(s, key, &known)) return PD_OK;
    const size_t room = strlen(key) + strlen(plan) + 64;
    char *text = malloc(room);
    if (!text) return PD_FAIL(err, PD_ENOMEM, "out of memory for a plan");
    const size_t begin = (size_t)snprintf(text, room, "%s\t%.6f\t", key, ms);
    const size_t length = begin + (size_t)snprintf(text + begin, room - begin, "%s\n", plan);
    for (size_t i = begin; i < length - 1; i++)
        if (strchr("\t\r\n", text[i])) text[i] = ' ';
    pd_status status = write_line(s, text, length) ? read_lines(s, err) : PD_OK;
    free(text);
    if (status == PD_OK && !pd_plan_store_find(s, key, &known)) status = append(s, key, ms, plan, err);
    return status;
}
