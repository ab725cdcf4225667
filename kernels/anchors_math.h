/* anchors_math.h: one anchor (anchors.h) from its place, for the CPU's loops and CUDA kernels. */
#ifndef PD_ANCHORS_MATH_H
#define PD_ANCHORS_MATH_H

#include "engine/box.h"

#include <stdbool.h>

/* Anchor a of the cell in row y, column x. */
typedef struct pd_anchor_cell {
    int level, y, x, a;
} pd_anchor_cell;

/* Where flat index `flat` lies; first (levels + 1), w (levels) as in pd_anchor_grid. */
PD_HD pd_anchor_cell pd_anchor_cell_at(const int *first, const int *w, int levels, int per_cell, int flat)
{
    pd_anchor_cell c = {0, 0, 0, 0};
    while (c.level < levels - 1 && flat >= first[c.level + 1]) c.level++;
    const int in_level = flat - first[c.level], width = w[c.level] ? w[c.level] : 1, cell = in_level / per_cell;
    c.a = in_level - cell * per_cell;
    c.y = cell / width;
    c.x = cell - c.y * width;
    return c;
}

/* A base anchor moved to the cell's corner (dx, dy) = (x, y) * stride. */
PD_HD pd_box pd_anchor_moved(pd_box base, int dx, int dy)
{
    const float x = (float)dx, y = (float)dy;
    const pd_box moved = {base.x1 + x, base.y1 + y, base.x2 + x, base.y2 + y};
    return moved;
}

/* pd_anchor_flags of one anchor. The cell's corner lies in the padded image: y < ceil(pad_h / t) is y t < pad_h. */
PD_HD bool pd_anchor_takes_part(pd_box anchor, int dx, int dy, const int size[4], int border)
{
    const float right = (float)(size[1] + border), bottom = (float)(size[0] + border), edge = (float)-border;
    const bool valid = dy < size[2] && dx < size[3];
    return valid && (border < 0 || (anchor.x1 >= edge && anchor.y1 >= edge && anchor.x2 < right && anchor.y2 < bottom));
}

#endif
