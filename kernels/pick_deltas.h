/* pick_deltas.h: where a box head predicts four offsets for every class, the four of each box's own class.
 *
 *   deltas   (rows, 4 * k)
 *   label    I32, `rows` elements in any shape   the class of each box (pd_match_targets); a number outside 0..k-1
 *                                                (background, boxes that take no part) leaves the row 0
 *   returns  (rows, 4)
 * Backward: the four offsets that were taken get their gradient, the others 0. */
#ifndef PD_PICK_DELTAS_H
#define PD_PICK_DELTAS_H

#include "engine/tape.h"

pd_value *pd_pick_deltas(pd_tape *tape, pd_value *deltas, pd_value *label);

#endif
