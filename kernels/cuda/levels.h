/* levels.h: for operations that read all levels of a pyramid in one launch. */
#ifndef PD_CUDA_LEVELS_H
#define PD_CUDA_LEVELS_H

#include "engine/tape.h"

/* Inputs first .. first + count - 1 of a node must be stored alike: one kernel reads them all. */
static inline pd_status pd_cuda_one_store(const pd_node *node, int first, int count, pd_err *err)
{
    for (int i = 1; i < count; i++)
        if (node->in[first + i]->store != node->in[first]->store)
            return PD_FAIL(err, PD_EINVAL, "%s: level %d is stored in %zu bytes an element, level 0 in %zu",
                           node->op->name, i, pd_store_bytes(node->in[first + i]->store),
                           pd_store_bytes(node->in[first]->store));
    return PD_OK;
}

#endif
