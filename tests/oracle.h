/* oracle.h: the deterministic values that the reference (a PyTorch program) and these tests both make from a tensor's
 * name, index and seed, so that no file has to hold weights. Element i of a tensor: splitmix64(fnv1a(name) +
 * seed * 2^32 + i) >> 40, scaled by 2^-23, minus 1. */
#ifndef PD_TEST_ORACLE_H
#define PD_TEST_ORACLE_H

#include "engine/checkpoint.h"

#include <stdint.h>

/* The device whose results are compared with golden files: $PD_TEST_DEVICE ("cuda"), "cpu" unless it is set. */
const char *pd_oracle_device_name(void);
/* That device in fp32; the CPU with two threads. Says on standard output which one it is, unless it is the CPU. */
pd_status pd_oracle_device(pd_device **out, pd_err *err);

/* n values in [-1, 1). */
void pd_oracle_uniform(float *out, const char *name, size_t n, uint64_t seed);

/* Fills every parameter and buffer by what its name says it is; `detector`: names outside "backbone." by the detectors'
 * rule, and running variances scaled as there (scale 6 for pd_a, 1.5 for pd_b, 2 otherwise). */
void pd_oracle_fill(pd_params *params, uint64_t seed, bool detector, double variance_scale);

/* Compares (n, h, w, c) memory with a golden tensor [n, c, h, w] (or 2-D ones as they are): the largest difference
 * relative to the golden's largest magnitude. A missing tensor gives infinity. */
double pd_oracle_difference(const pd_st *golden, const char *name, const float *nhwc);

/* The same between a golden file and another file; a missing tensor or another shape gives infinity. */
double pd_oracle_between(const pd_st *golden, const pd_st *ours, const char *name);

/* Writes parameters as a file without metadata: what somebody else's state dict looks like. */
pd_status pd_oracle_save(const char *path, const pd_params *params, pd_err *err);

/* A golden tensor in our order (NCHW -> NHWC), in the arena. NULL if it is missing. */
float *pd_oracle_tensor(const pd_st *golden, const char *name, int dim[4], pd_arena *arena);

#endif
