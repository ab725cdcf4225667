/* fold_proof.h: how far two runs of one network are apart: the proof that a fold changed nothing.
 *
 * Outputs are compared element by element. Those that list boxes, (n, m, k) behind "proposals", are compared row by row
 * instead: proposals of nearly equal score change places, and a suppression on the edge turns, by rounding alone. A
 * row's partner is the other run's proposal with the same corners (0.05 pixels) and score (0.001); a row whose box
 * falls on another pyramid level than its partner's is left out from there on. Rows without partner are counted. */
#ifndef PD_FOLD_PROOF_H
#define PD_FOLD_PROOF_H

#include "detectors/detector.h"

#include <stdio.h>

typedef struct pd_fold_proof {
    int count;
    char name[PD_MAX_HEADS][24];
    double absolute[PD_MAX_HEADS], largest[PD_MAX_HEADS]; /* difference, magnitude; over all runs so far */
    long rows, lost;                                      /* proposals; those without partner */
} pd_fold_proof;

/* A copy in the arena, for outputs that the next run overwrites. */
pd_status pd_raw_copy(pd_raw *out, const pd_raw *from, pd_arena *arena, pd_err *err);

/* Takes the outputs of both networks on one input into the proof. */
pd_status pd_proof_add(pd_fold_proof *proof, const pd_raw *a, const pd_raw *b, pd_arena *arena, pd_err *err);

/* Every difference within bound of the output's largest magnitude, at most one proposal in a hundred without partner.
 */
bool pd_proof_holds(const pd_fold_proof *proof, double bound);
void pd_proof_print(const pd_fold_proof *proof, FILE *out);

#endif
