/* draw.h: boxes with class names and scores drawn onto RGB pictures.
 *
 * Colours are spread over the hue circle by the golden ratio, so that neighbours differ; line width and letters grow
 * with the picture. Everything is clipped to the picture: any box, also one with NaN corners (not drawn), is safe. Text
 * is printable ASCII in a small built-in bitmap font; other bytes show as '?'. */
#ifndef PD_DRAW_H
#define PD_DRAW_H

#include "datasets/image.h"
#include "engine/box.h"

typedef struct pd_color {
    unsigned char r, g, b;
} pd_color;

/* The colour of a class. */
pd_color pd_class_color(int label);

/* Outline of a box, `width` pixels wide, inside its corners. */
void pd_draw_box(pd_image *image, pd_box box, pd_color color, int width);

/* Text on a filled ground, upper left corner at (x, y), `size` picture pixels per font pixel (1, 2, ...); moved so that
 * it stays inside the picture where it can. Letters are black or white, whichever stands out. */
void pd_draw_text(pd_image *image, int x, int y, const char *text, pd_color ground, int size);

/* Box with a label above it: "name 0.87", or "name" if score < 0. name NULL: "class 12". */
void pd_draw_labelled(pd_image *image, pd_box box, int label, const char *name, float score);

#endif
