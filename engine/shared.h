/* shared.h: what several plans make of the same parameters, kept once on a device: folded kernels, packed weights.
 *
 * A thing has a key of bytes: whoever asks for the same key gets the same thing; the last one who gives it back frees
 * it. A key names what the thing is made of by address (a parameter's data, another thing's memory), so it holds as
 * long as that lives: give a thing back before what it is made of is freed.
 *
 * A thing is current when it was made (pd_shared_done) after parameters last changed (pd_shared_changed); pd_plan_new
 * and pd_plan_refresh see to that. One thread at a time, as for everything of a device. */
#ifndef PD_SHARED_H
#define PD_SHARED_H

#include "engine/device.h"

typedef struct pd_shared pd_shared;
struct pd_shared {
    void *thing;                                  /* NULL when new: whoever asked first puts it there */
    void (*free_thing)(pd_device *, void *thing); /* with this; NULL: device memory, released */
    /* private */
    pd_device *device;
    pd_shared *next;
    size_t users, key_bytes;
    unsigned long made;
    char key[];
};

pd_status pd_share(pd_shared **out, pd_device *device, const void *key, size_t key_bytes, pd_err *err);
void pd_unshare(pd_shared *shared); /* NULL allowed */

bool pd_shared_current(const pd_shared *shared);
void pd_shared_done(pd_shared *shared);

/* Parameters were changed: nothing is current any more. */
void pd_shared_changed(pd_device *device);

#endif
