#include "engine/shared.h"

#include <stdlib.h>
#include <string.h>

pd_status pd_share(pd_shared **out, pd_device *device, const void *key, size_t key_bytes, pd_err *err)
{
    for (pd_shared *s = device->shared; s; s = s->next)
        if (s->key_bytes == key_bytes && !memcmp(s->key, key, key_bytes)) {
            s->users++;
            *out = s;
            return PD_OK;
        }
    pd_shared *s = calloc(1, sizeof *s + key_bytes);
    if (!s) return PD_FAIL(err, PD_ENOMEM, "out of memory for what plans share");
    s->device = device;
    s->users = 1;
    s->key_bytes = key_bytes;
    memcpy(s->key, key, key_bytes);
    s->next = device->shared;
    device->shared = s;
    *out = s;
    return PD_OK;
}

void pd_unshare(pd_shared *s)
{
    if (!s || --s->users) return;
    pd_device *device = s->device;
    pd_shared **at = &device->shared;
    while (*at != s) at = &(*at)->next;
    *at = s->next;
    if (s->thing && s->free_thing)
        s->free_thing(device, s->thing);
    else if (s->thing)
        device->release(device, s->thing);
    free(s);
}

bool pd_shared_current(const pd_shared *s)
{
    return s->made == s->device->changes + 1;
}

void pd_shared_done(pd_shared *s)
{
    s->made = s->device->changes + 1;
}

void pd_shared_changed(pd_device *device)
{
    device->changes++;
}
