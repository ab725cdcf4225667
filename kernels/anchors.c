#include "kernels/anchors.h"
#include "kernels/anchors_math.h"

#include <limits.h>
#include <math.h>

pd_anchor_cfg pd_anchor_cfg_retina(void)
{
    pd_anchor_cfg cfg = {.n_ratios = 3, .n_scales = 3, .ratios = {0.5f, 1, 2}};
    for (int i = 0; i < 3; i++) cfg.scales[i] = (float)(4.0 * pow(2.0, i / 3.0));
    return cfg;
}

pd_anchor_cfg pd_anchor_cfg_rpn(void)
{
    return (pd_anchor_cfg){.n_ratios = 3, .n_scales = 1, .ratios = {0.5f, 1, 2}, .scales = {8}};
}

void pd_anchor_base(pd_box *out, const pd_anchor_cfg *cfg, int stride)
{
    const float t = (float)stride, c = 0.5f * (t - 1);
    for (int r = 0; r < cfg->n_ratios; r++)
        for (int s = 0; s < cfg->n_scales; s++) {
            const float hr = sqrtf(cfg->ratios[r]), wr = 1.f / hr;
            const float w = t * wr * cfg->scales[s], h = t * hr * cfg->scales[s];
            if (cfg->rounded) {
                const float dx = 0.5f * (w - 1), dy = 0.5f * (h - 1);
                *out++ = (pd_box){rintf(c - dx), rintf(c - dy), rintf(c + dx), rintf(c + dy)};
            } else {
                *out++ = (pd_box){-0.5f * w, -0.5f * h, 0.5f * w, 0.5f * h};
            }
        }
}

pd_status pd_anchor_grid_init(pd_anchor_grid *out, const pd_anchor_cfg *cfg, int levels, const int *h, const int *w,
                              const int *stride, pd_err *err)
{
    if (levels < 1 || levels > PD_MAX_LEVELS)
        return PD_FAIL(err, PD_EINVAL, "anchors: %d levels, expected 1..%d", levels, PD_MAX_LEVELS);
    if (cfg->n_ratios < 1 || cfg->n_ratios > 8 || cfg->n_scales < 1 || cfg->n_scales > 8 ||
        cfg->n_ratios * cfg->n_scales > PD_MAX_CELL_ANCHORS)
        return PD_FAIL(err, PD_EINVAL, "anchors: %d ratios and %d scales: expected 1..8 of each, at most %d together",
                       cfg->n_ratios, cfg->n_scales, PD_MAX_CELL_ANCHORS);
    for (int i = 0; i < cfg->n_ratios; i++)
        if (!(cfg->ratios[i] > 0 && cfg->ratios[i] < 1e6f))
            return PD_FAIL(err, PD_EINVAL, "anchors: ratio %g: expected a positive number", (double)cfg->ratios[i]);
    for (int i = 0; i < cfg->n_scales; i++)
        if (!(cfg->scales[i] > 0 && cfg->scales[i] < 1e6f))
            return PD_FAIL(err, PD_EINVAL, "anchors: scale %g: expected a positive number", (double)cfg->scales[i]);
    pd_anchor_grid grid = {.levels = levels, .per_cell = cfg->n_ratios * cfg->n_scales};
    long long total = 0;
    for (int l = 0; l < levels; l++) {
        if (h[l] < 0 || w[l] < 0 || stride[l] < 1)
            return PD_FAIL(err, PD_EINVAL, "anchors: level %d is %d x %d with stride %d", l, h[l], w[l], stride[l]);
        grid.h[l] = h[l];
        grid.w[l] = w[l];
        grid.stride[l] = stride[l];
        pd_anchor_base(grid.base[l], cfg, stride[l]);
        grid.first[l] = (int)total;
        if (w[l] && h[l] > INT_MAX / PD_MAX_CELL_ANCHORS / w[l]) total = INT_MAX;
        total += (long long)h[l] * w[l] * grid.per_cell;
        if (total >= INT_MAX) return PD_FAIL(err, PD_EINVAL, "anchors: too many: level %d is %d x %d", l, h[l], w[l]);
    }
    grid.first[levels] = (int)total;
    *out = grid;
    return PD_OK;
}

/* Loops walk cells instead of dividing per anchor. */
static pd_anchor_cell cell_at(const pd_anchor_grid *grid, int flat)
{
    return pd_anchor_cell_at(grid->first, grid->w, grid->levels, grid->per_cell, flat);
}

static void next_cell(pd_anchor_cell *c, const pd_anchor_grid *grid)
{
    c->a = 0;
    if (++c->x < grid->w[c->level]) return;
    c->x = 0;
    if (++c->y < grid->h[c->level]) return;
    c->y = 0;
    do c->level++;
    while (c->level < grid->levels && grid->first[c->level] == grid->first[c->level + 1]);
}

void pd_anchor_fill(pd_box *out, const pd_anchor_grid *grid, int begin, int end)
{
    if (begin >= end) return;
    pd_anchor_cell c = cell_at(grid, begin);
    for (int i = begin; i < end; next_cell(&c, grid)) {
        const int dx = c.x * grid->stride[c.level], dy = c.y * grid->stride[c.level];
        for (; c.a < grid->per_cell && i < end; c.a++, i++) *out++ = pd_anchor_moved(grid->base[c.level][c.a], dx, dy);
    }
}

void pd_anchor_flags(unsigned char *out, const pd_anchor_grid *grid, const int size[4], int border, int begin, int end)
{
    if (begin >= end) return;
    pd_anchor_cell c = cell_at(grid, begin);
    for (int i = begin; i < end; next_cell(&c, grid)) {
        const int dx = c.x * grid->stride[c.level], dy = c.y * grid->stride[c.level];
        for (; c.a < grid->per_cell && i < end; c.a++, i++)
            *out++ = pd_anchor_takes_part(pd_anchor_moved(grid->base[c.level][c.a], dx, dy), dx, dy, size, border);
    }
}

static void fill_range(void *arg, size_t begin, size_t end, int thread)
{
    const pd_node *node = arg;
    (void)thread;
    pd_anchor_fill((pd_box *)node->out[0]->data + begin, node->args, (int)begin, (int)end);
}

static pd_status fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    (void)err;
    pd_parallel(run->device->pool, (size_t)pd_anchor_count(node->args), fill_range, node);
    return PD_OK;
}

static const pd_kernel cpu = {NULL, fwd, NULL, NULL};
static const pd_op anchors = {.name = "anchors", .kernel = {[PD_CPU] = &cpu}};

pd_value *pd_anchors(pd_tape *tape, const pd_anchor_grid *grid)
{
    pd_value *none[1] = {NULL};
    return pd_tape_add1(tape, &anchors, NULL, 0, none, PD_SHAPE(pd_anchor_count(grid), 4), grid, sizeof *grid);
}
