/* shapes.h: pictures of simple shapes, drawn for demonstrations and tests of training.
 *
 * A shape is a signed distance function: below 0 inside, in units of its radius. Drawing blends each pixel by how much
 * of it the shape covers, so that edges are smooth. Everything random comes from the caller's generator; the same
 * generator gives the same picture. */
#ifndef PD_SHAPES_H
#define PD_SHAPES_H

#include "datasets/image.h"
#include "engine/rng.h"

enum { PD_SHAPE_KINDS = 8 };

/* "circle", "square", "triangle", "star", "cross", "ring", "heart", "moon". */
const char *pd_shape_name(int kind);

typedef struct pd_shape {
    int kind;
    double x, y;   /* centre, pixels */
    double radius; /* of the circle around it, pixels */
    double aspect; /* width by height */
    double angle;  /* radians */
} pd_shape;

/* A picture under way: light 0..1 per channel, and who is on top. */
typedef struct pd_canvas {
    int h, w;
    float *rgb;      /* (h, w, 3) */
    uint16_t *owner; /* (h, w) id of the topmost shape that covers most of the pixel; 0: none */
} pd_canvas;

/* Begins a picture; its memory comes from the arena. difficulty 0..1: how busy the background is. */
pd_status pd_canvas_begin(pd_canvas *c, int h, int w, double difficulty, pd_rng *rng, pd_arena *arena, pd_err *err);

/* Draws a shape of random colour (most often one of its kind's), texture, shading, outline and shadow. Returns the
 * number of pixels of the picture that it covers, those that a later shape hides included. */
int pd_canvas_shape(pd_canvas *c, const pd_shape *shape, uint16_t id, double difficulty, pd_rng *rng);

/* Light and sensor noise, then bytes. */
pd_status pd_canvas_finish(pd_image *out, const pd_canvas *c, double difficulty, pd_rng *rng, pd_err *err);

#endif
