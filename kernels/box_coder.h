/* box_coder.h: a box as four offsets from a reference box (an anchor, a proposal), and back.
 *
 * Girshick et al. 2014, "Rich feature hierarchies", appendix C, with mmdetection's normalisation. p is the reference,
 * g the box, o = 0 (corners are continuous; the default) or 1 (mmdetection 1.x, inclusive corners):
 *   encode   pw = p.x2 - p.x1 + o, pcx = (p.x1 + p.x2) * 0.5, the same for y and for g
 *            d = ((gcx - pcx) / pw, (gcy - pcy) / ph, log(gw / pw), log(gh / ph)) / std
 *   decode   d = t * std, dw and dh clamped to [-R, R], R = |log(16 / 1000)|
 *            gw = pw * exp(dw), gcx = pcx + pw * dx, x1 = gcx - gw * 0.5 + o * 0.5, x2 = gcx + gw * 0.5 - o * 0.5
 * float32, in this order. The arithmetic is here (host and device); a reference without area gives infinities as the
 * original does: callers pass references with area. */
#ifndef PD_BOX_CODER_H
#define PD_BOX_CODER_H

#include "engine/box.h"

#include <math.h>

#define PD_BOX_CLAMP 4.135166556742356f /* |log(16 / 1000)| */

typedef struct pd_box_coder {
    float std[4]; /* of dx, dy, dw, dh */
    int o;        /* 0, or 1 for inclusive corners */
} pd_box_coder;

typedef struct pd_delta {
    float dx, dy, dw, dh;
} pd_delta;

/* stds 1, o 0: RetinaNet's and the RPN's. */
PD_HD pd_box_coder pd_box_coder_unit(void)
{
    const pd_box_coder unit = {{1, 1, 1, 1}, 0};
    return unit;
}

PD_HD pd_delta pd_box_encode(const pd_box_coder *coder, pd_box p, pd_box g)
{
    const float o = (float)coder->o;
    const float pw = p.x2 - p.x1 + o, ph = p.y2 - p.y1 + o, gw = g.x2 - g.x1 + o, gh = g.y2 - g.y1 + o;
    const float pcx = (p.x1 + p.x2) * 0.5f, pcy = (p.y1 + p.y2) * 0.5f;
    const float gcx = (g.x1 + g.x2) * 0.5f, gcy = (g.y1 + g.y2) * 0.5f;
    const pd_delta d = {(gcx - pcx) / pw / coder->std[0], (gcy - pcy) / ph / coder->std[1],
                        logf(gw / pw) / coder->std[2], logf(gh / ph) / coder->std[3]};
    return d;
}

PD_HD float pd_box_clampf(float v, float lo, float hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}

PD_HD pd_box pd_box_decode(const pd_box_coder *coder, pd_box p, pd_delta t)
{
    const float o = (float)coder->o;
    const float dw = pd_box_clampf(t.dw * coder->std[2], -PD_BOX_CLAMP, PD_BOX_CLAMP);
    const float dh = pd_box_clampf(t.dh * coder->std[3], -PD_BOX_CLAMP, PD_BOX_CLAMP);
    const float pw = p.x2 - p.x1 + o, ph = p.y2 - p.y1 + o;
    const float gw = pw * expf(dw), gh = ph * expf(dh);
    const float cx = (p.x1 + p.x2) * 0.5f + pw * (t.dx * coder->std[0]);
    const float cy = (p.y1 + p.y2) * 0.5f + ph * (t.dy * coder->std[1]);
    const pd_box b = {cx - gw * 0.5f + o * 0.5f, cy - gh * 0.5f + o * 0.5f, cx + gw * 0.5f - o * 0.5f,
                      cy + gh * 0.5f - o * 0.5f};
    return b;
}

/* Into the image: x to [0, w - o], y to [0, h - o]. */
PD_HD pd_box pd_box_clip(const pd_box_coder *coder, pd_box b, int h, int w)
{
    const float right = (float)(w - coder->o), bottom = (float)(h - coder->o);
    const pd_box c = {pd_box_clampf(b.x1, 0, right), pd_box_clampf(b.y1, 0, bottom), pd_box_clampf(b.x2, 0, right),
                      pd_box_clampf(b.y2, 0, bottom)};
    return c;
}

#endif
