#include "kernels/cuda/plan_store.h"
#include "engine/arena.h"

#include <ctype.h>
#include <errno.h>
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
    line *lines;
    size_t count, room;
    bool changed;
};

static pd_status append(pd_plan_store *s, const char *key, double ms, const char *plan, pd_err *err)
{
    PD_TRY(pd_grow(&s->lines, &s->room, s->count + 1, sizeof *s->lines, err));
    line l = {strdup(key), strdup(plan), ms};
    if (!l.key || !l.plan) {
        free(l.key);
        free(l.plan);
        return PD_FAIL(err, PD_ENOMEM, "out of memory for plans");
    }
    for (char *p = l.plan; *p; p++)
        if (*p == '\n' || *p == '\t' || *p == '\r') *p = ' ';
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
    for (int i = 0; name[i] && at + i < (int)sizeof s->path - 8; i++)
        s->path[at + i] = isalnum((unsigned char)name[i]) || name[i] == '.' ? name[i] : '-';
}

static pd_status read_lines(pd_plan_store *s, pd_err *err)
{
    FILE *f = *s->path ? fopen(s->path, "r") : NULL;
    char *text = NULL;
    size_t room = 0;
    pd_status status = PD_OK;
    while (f && status == PD_OK && getline(&text, &room, f) > 0) {
        char *ms = strchr(text, '\t'), *plan = ms ? strchr(ms + 1, '\t') : NULL, *end = strchr(text, '\n');
        if (!plan || !end) continue; /* a line that was not finished */
        *ms++ = *plan++ = *end = '\0';
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

const char *pd_plan_store_find(const pd_plan_store *s, const char *key)
{
    for (size_t i = s->count; i-- > 0;) /* the newest first */
        if (!strcmp(s->lines[i].key, key)) return s->lines[i].plan;
    return NULL;
}

pd_status pd_plan_store_add(pd_plan_store *s, const char *key, double ms, const char *plan, pd_err *err)
{
    s->changed = true;
    return append(s, key, ms, plan, err);
}

static void write_lines(const pd_plan_store *s)
{
    char temporary[1100];
    snprintf(temporary, sizeof temporary, "%s.%ld", s->path, (long)getpid());
    FILE *f = fopen(temporary, "w");
    if (!f) return;
    bool good = true;
    for (size_t i = 0; i < s->count; i++)
        good = fprintf(f, "%s\t%.6f\t%s\n", s->lines[i].key, s->lines[i].ms, s->lines[i].plan) > 0 && good;
    good = fclose(f) == 0 && good;
    if (!good || rename(temporary, s->path) != 0) remove(temporary);
}

void pd_plan_store_close(pd_plan_store *s)
{
    if (!s) return;
    if (s->changed && *s->path) write_lines(s);
    for (size_t i = 0; i < s->count; i++) {
        free(s->lines[i].key);
        free(s->lines[i].plan);
    }
    free(s->lines);
    free(s);
}
