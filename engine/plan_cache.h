/* plan_cache.h: the plans of one network, one per form and input shape: each made when it is first asked for, kept, and
 * dropped when room is needed and it is the longest unused one. They share one workspace, so they run in turn. And the
 * forward runs whose losses come late (pd_plan_fetch_later), in their order. Not for several threads at once. */
#ifndef PD_PLAN_CACHE_H
#define PD_PLAN_CACHE_H

#include "engine/plan.h"

/* How a network is recorded for a key. Keys are compared byte by byte: no padding. */
typedef struct pd_plan_recorder {
    size_t key_bytes;
    int room;        /* plans kept on the CPU */
    int device_room; /* and elsewhere, where a new plan is dear: its convolutions are looked up, its run is recorded */
    /* A new tape with the network, and what the owner needs to know of it, in the tape's memory. On failure *tape may
     * be set, and is freed. */
    pd_status (*record)(void *owner, const void *key, pd_tape **tape, void **net, pd_err *err);
    pd_plan_mode (*mode)(const void *key);
} pd_plan_recorder;

typedef struct pd_planned {
    const void *key;
    pd_tape *tape;
    pd_plan *plan;
    void *net;
} pd_planned;

typedef struct pd_plan_cache pd_plan_cache;

/* recorder and owner are borrowed. */
pd_status pd_plan_cache_new(pd_plan_cache **out, pd_device *device, const pd_plan_recorder *recorder, void *owner,
                            pd_err *err);
void pd_plan_cache_free(pd_plan_cache *cache); /* NULL allowed */

/* Makes the plan for a key the last one; its tape is recorded and planned if there is none. PD_EINVAL: the plan that
 * would make room has unread losses. */
pd_status pd_plan_cache_use(pd_plan_cache *cache, const void *key, pd_err *err);

/* NULL: none yet. Good until the next pd_plan_cache_use. */
const pd_planned *pd_plan_cache_last(const pd_plan_cache *cache);

/* Losses that come late. ready: before a forward run, whose loss is read at once or later; PD_EINVAL: too many are
 * unread. later: after the last plan's forward run. late: waits for the oldest unread run's and gives its plan;
 * PD_EINVAL: there is none. */
pd_status pd_plan_cache_ready(const pd_plan_cache *cache, bool later, pd_err *err);
pd_status pd_plan_cache_later(pd_plan_cache *cache, pd_err *err);
pd_status pd_plan_cache_late(pd_plan_cache *cache, const pd_planned **out, pd_err *err);

/* Parameters were changed from outside: pd_plan_refresh for every plan. */
void pd_plan_cache_refresh(pd_plan_cache *cache);

#endif
