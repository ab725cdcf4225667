#include "backbones/fold.h"

#include <stdio.h>
#include <string.h>

/* The fold of the layer that owns this parameter ("layer1.0.conv1" of "layer1.0.conv1.weight"), or NULL. */
static const pd_node *find_fold(const pd_tape *fused, const char *param)
{
    const char *dot = strrchr(param, '.');
    if (!dot) return NULL;
    const size_t length = (size_t)(dot - param);
    for (const pd_node *n = pd_tape_nodes(fused); n; n = n->next)
        if (!strcmp(n->op->name, "fold_bn") && strlen(n->name) == length && !strncmp(n->name, param, length)) return n;
    return NULL;
}

pd_status pd_fold_params(pd_params *folded, const pd_params *unfolded, const pd_tape *fused, pd_err *err)
{
    for (size_t i = 0; i < pd_params_count(folded); i++) {
        const pd_param *to = pd_params_at(folded, i);
        const pd_node *fold = find_fold(fused, to->name);
        const pd_param *same = pd_params_find(unfolded, to->name);
        const bool bias = strlen(to->name) > 5 && !strcmp(to->name + strlen(to->name) - 5, ".bias");
        const float *from = NULL;
        size_t count = 0;
        if (fold) {
            from = fold->out[bias]->data;
            count = pd_shape_size(fold->out[bias]->shape);
        } else if (same) {
            from = same->data;
            count = same->count;
        }
        if (!from || count != to->count)
            return PD_FAIL(err, PD_EINVAL, "%s: %zu values are wanted, the unfolded network gives %zu", to->name, to->count, count);
        pd_device *device = pd_params_device(folded);
        PD_TRY(device->copy(device, to->data, from, count * sizeof *from, err));
    }
    return PD_OK;
}

double pd_tape_macs(const pd_tape *tape, const char *prefix)
{
    double sum = 0;
    for (const pd_node *n = pd_tape_nodes(tape); n; n = n->next)
        if (n->op->macs && (!prefix || !strncmp(n->name, prefix, strlen(prefix)))) sum += n->op->macs(n);
    return sum;
}
