#include "tools/fold_proof.h"

#include <math.h>
#include <string.h>

pd_status pd_raw_copy(pd_raw *out, const pd_raw *from, pd_arena *arena, pd_err *err)
{
    *out = *from;
    for (int i = 0; i < from->count; i++) {
        float *copy;
        const size_t elements = pd_shape_size(from->shape[i]);
        PD_TRY(PD_ALLOC(&copy, arena, elements, err));
        memcpy(copy, from->data[i], elements * sizeof *copy); /* both types have four bytes */
        out->data[i] = copy;
    }
    return PD_OK;
}

static int find(const pd_raw *raw, const char *name)
{
    for (int i = 0; i < raw->count; i++)
        if (!strcmp(raw->name[i], name)) return i;
    return -1;
}

static bool same_proposal(const float *a, const float *b)
{
    for (int i = 0; i < 4; i++)
        if (!(fabsf(a[i] - b[i]) < 0.05f)) return false;
    return fabsf(a[4] - b[4]) < 1e-3f;
}

/* For each of a's proposals the row of its partner in b, -1 where there is none; rows: (n, m). */
static pd_status match_rows(int **rows, pd_fold_proof *p, const pd_raw *a, const pd_raw *b, pd_arena *arena,
                            pd_err *err)
{
    const int at = find(a, "proposals"), n = at < 0 ? 0 : a->shape[at].dim[0], m = at < 0 ? 0 : a->shape[at].dim[1];
    bool *taken;
    PD_TRY(PD_ALLOC(rows, arena, (size_t)n * (size_t)m, err));
    PD_TRY(PD_ALLOC(&taken, arena, (size_t)n * (size_t)m, err));
    for (int i = 0; i < n * m; i++) {
        const int image = i / m, r = i % m, counter = find(a, "num_proposals");
        const int *count_a = a->data[counter], *count_b = b->data[counter];
        (*rows)[i] = -1;
        if (r >= count_a[image]) continue;
        p->rows++;
        for (int k = 0; k < count_b[image] && (*rows)[i] < 0; k++) {
            const int other = image * m + (r + k) % count_b[image]; /* its own row first */
            if (taken[other] ||
                !same_proposal((const float *)a->data[at] + 5 * i, (const float *)b->data[at] + 5 * other))
                continue;
            taken[other] = true;
            (*rows)[i] = other;
        }
        p->lost += (*rows)[i] < 0;
    }
    return PD_OK;
}

static void compare(pd_fold_proof *p, int output, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const double d = fabs((double)a[i] - (double)b[i]);
        p->absolute[output] = d <= p->absolute[output] ? p->absolute[output] : isnan(d) ? INFINITY : d;
        p->largest[output] = fmax(p->largest[output], fabs((double)a[i]));
    }
}

/* Takes out rows that read another level than their partners. */
static void drop_levels(pd_fold_proof *p, int *rows, const int *a, const int *b, int n)
{
    for (int i = 0; i < n; i++) {
        if (rows[i] < 0 || a[i] == b[rows[i]]) continue;
        rows[i] = -1;
        p->lost++;
    }
}

pd_status pd_proof_add(pd_fold_proof *p, const pd_raw *a, const pd_raw *b, pd_arena *arena, pd_err *err)
{
    int *rows;
    if (a->count != b->count) return PD_FAIL(err, PD_EINVAL, "%d outputs against %d", a->count, b->count);
    PD_TRY(match_rows(&rows, p, a, b, arena, err));
    p->count = a->count;
    for (int i = 0; i < a->count; i++) {
        const pd_shape s = a->shape[i];
        snprintf(p->name[i], sizeof p->name[i], "%s", a->name[i]);
        if (pd_shape_size(s) != pd_shape_size(b->shape[i]))
            return PD_FAIL(err, PD_EINVAL, "%s: the two networks give other sizes", a->name[i]);
        if (a->type[i] == PD_I32) {
            if (s.rank == 2) drop_levels(p, rows, a->data[i], b->data[i], s.dim[0] * s.dim[1]);
            continue;
        }
        if (s.rank != 3) {
            compare(p, i, a->data[i], b->data[i], pd_shape_size(s));
            continue;
        }
        const size_t width = (size_t)s.dim[2];
        for (size_t r = 0; r < (size_t)s.dim[0] * (size_t)s.dim[1]; r++)
            if (rows[r] >= 0)
                compare(p, i, (const float *)a->data[i] + r * width,
                        (const float *)b->data[i] + (size_t)rows[r] * width, width);
    }
    return PD_OK;
}

static double relative(const pd_fold_proof *p, int i)
{
    return p->largest[i] > 0 ? p->absolute[i] / p->largest[i] : p->absolute[i];
}

bool pd_proof_holds(const pd_fold_proof *p, double bound)
{
    bool held = 100 * p->lost <= p->rows;
    for (int i = 0; i < p->count; i++) held = held && relative(p, i) <= bound;
    return held;
}

void pd_proof_print(const pd_fold_proof *p, FILE *out)
{
    fprintf(out, "%-16s %14s %14s\n", "output", "largest diff.", "relative");
    for (int i = 0; i < p->count; i++)
        if (p->largest[i] > 0 || p->absolute[i] > 0)
            fprintf(out, "%-16s %14.3e %14.3e\n", p->name[i], p->absolute[i], relative(p, i));
    if (p->rows) fprintf(out, "%ld of %ld proposals have their partner\n", p->rows - p->lost, p->rows);
}
