#include "engine/plan_cache.h"

#include <stdlib.h>
#include <string.h>

typedef struct slot {
    pd_planned planned;
    void *key;
    unsigned long used;
} slot;

struct pd_plan_cache {
    pd_device *device;
    const pd_plan_recorder *recorder;
    void *owner;
    pd_workspace *workspace;
    slot *slots, *last;
    int room, count;
    const slot *late[PD_PLAN_LATE]; /* the oldest first */
    int unread;
    unsigned long clock;
};

static void clear(slot *s)
{
    pd_plan_free(s->planned.plan);
    pd_tape_free(s->planned.tape);
    s->planned = (pd_planned){.key = s->key};
}

pd_status pd_plan_cache_new(pd_plan_cache **out, pd_device *device, const pd_plan_recorder *recorder, void *owner,
                            pd_err *err)
{
    pd_plan_cache *c = calloc(1, sizeof *c);
    if (!c) return PD_FAIL(err, PD_ENOMEM, "out of memory for a network's plans");
    *c = (pd_plan_cache){.device = device, .recorder = recorder, .owner = owner};
    c->room = device->kind == PD_CPU ? recorder->room : recorder->device_room;
    pd_status status = pd_workspace_new(&c->workspace, device, err);
    if (status == PD_OK) {
        const size_t room = (size_t)c->room;
        c->slots = calloc(1, room * (sizeof *c->slots + recorder->key_bytes));
        if (!c->slots) status = PD_FAIL(err, PD_ENOMEM, "out of memory for a network's plans");
        for (size_t i = 0; c->slots && i < room; i++)
            c->slots[i].key = (char *)(c->slots + room) + i * recorder->key_bytes;
    }
    if (status == PD_OK)
        *out = c;
    else
        pd_plan_cache_free(c);
    return status;
}

void pd_plan_cache_free(pd_plan_cache *c)
{
    if (!c) return;
    for (int i = 0; i < c->count; i++) clear(&c->slots[i]);
    pd_workspace_free(c->workspace);
    free(c->slots);
    free(c);
}

static slot *find(const pd_plan_cache *c, const void *key)
{
    for (int i = 0; i < c->count; i++)
        if (!memcmp(c->slots[i].key, key, c->recorder->key_bytes)) return &c->slots[i];
    return NULL;
}

/* A place for one more plan: a free one, or that of the longest unused plan, which goes when the new one is there. */
static pd_status find_room(pd_plan_cache *c, slot **out, pd_err *err)
{
    slot *s = &c->slots[0];
    if (c->count < c->room) {
        *out = &c->slots[c->count];
        return PD_OK;
    }
    for (int i = 1; i < c->count; i++)
        if (c->slots[i].used < s->used) s = &c->slots[i];
    for (int i = 0; i < c->unread; i++)
        if (c->late[i] == s) return PD_FAIL(err, PD_EINVAL, "losses are unread, and their plan must make room");
    *out = s;
    return PD_OK;
}

pd_status pd_plan_cache_use(pd_plan_cache *c, const void *key, pd_err *err)
{
    const pd_plan_recorder *r = c->recorder;
    slot *s = find(c, key);
    if (!s) {
        slot made = {.used = 0};
        pd_planned *p = &made.planned;
        PD_TRY(find_room(c, &s, err));
        pd_status status = r->record(c->owner, key, &p->tape, &p->net, err);
        if (status == PD_OK) status = pd_plan_new(&p->plan, p->tape, c->device, r->mode(key), c->workspace, err);
        if (status != PD_OK) {
            clear(&made);
            return status;
        }
        if (s == &c->slots[c->count])
            c->count++;
        else
            clear(s);
        memcpy(s->key, key, r->key_bytes);
        s->planned = *p;
        s->planned.key = s->key;
    }
    s->used = ++c->clock;
    c->last = s;
    return PD_OK;
}

const pd_planned *pd_plan_cache_last(const pd_plan_cache *c)
{
    return c->last ? &c->last->planned : NULL;
}

pd_status pd_plan_cache_ready(const pd_plan_cache *c, bool later, pd_err *err)
{
    return c->unread < (later ? PD_PLAN_LATE : 1)
               ? PD_OK
               : PD_FAIL(err, PD_EINVAL, "unread losses: %d; they are read first", c->unread);
}

pd_status pd_plan_cache_later(pd_plan_cache *c, pd_err *err)
{
    PD_TRY(pd_plan_fetch_later(c->last->planned.plan, err));
    c->late[c->unread++] = c->last;
    return PD_OK;
}

pd_status pd_plan_cache_late(pd_plan_cache *c, const pd_planned **out, pd_err *err)
{
    if (!c->unread) return PD_FAIL(err, PD_EINVAL, "no losses are unread");
    const slot *s = c->late[0];
    PD_TRY(pd_plan_fetched(s->planned.plan, err));
    memmove(c->late, c->late + 1, (size_t)--c->unread * sizeof *c->late);
    *out = &s->planned;
    return PD_OK;
}

void pd_plan_cache_refresh(pd_plan_cache *c)
{
    for (int i = 0; i < c->count; i++) pd_plan_refresh(c->slots[i].planned.plan);
}
