/* A ring of slots, one batch each. Workers take samples one by one, batch after batch, as long as the batch's slot is
 * free; the worker that finishes the last sample of a batch puts it together. The consumer receives the slots in order.
 * Everything in pd_loader that changes is guarded by `lock`; a slot's content belongs to the workers until `ready`,
 * then to the consumer until it is handed back. */
#include "datasets/loader.h"

#include "datasets/sample.h"
#include "datasets/sampler.h"
#include "engine/thread.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BAD_IN_A_ROW 100

/* A file that could not be used. */
typedef struct bad_file {
    uint32_t index;
    char *text;
} bad_file;

typedef struct place {
    pd_sample sample;
    bool used;     /* holds a picture */
    bool other;    /* of another sample than planned */
    bad_file *bad; /* in the order of the tries */
    size_t n_bad, bad_room;
} place;

typedef struct slot {
    pd_batch batch;
    size_t pixel_room; /* allocated at batch.pixels (floats) or batch.bytes */
    place *places;     /* (config.batch) */
    int planned, left; /* samples of this batch; those not made yet */
    bool ready, held, done;
    pd_err err; /* why the batch failed */
} slot;

typedef struct worker {
    pthread_t thread;
    pd_loader *loader;
    pd_sample_tools tools;
} worker;

struct pd_loader {
    pd_loader_config config;
    pd_source source;
    pd_sampler sampler;
    uint8_t *group;  /* (n) aspect group, or NULL */
    uint32_t *order; /* this epoch's plan */
    size_t count, steps;
    int max_boxes;
    slot *slots;
    int n_slots;
    worker *workers;
    int n_workers;

    pthread_mutex_t lock;
    pthread_cond_t work, ready, idle;
    bool running, quit;
    int busy; /* workers inside of a sample */
    uint32_t epoch;
    size_t next_batch; /* the batch and ... */
    int next_place;    /* ... place that the next worker takes */
    size_t received, released;

    /* the consumer's own */
    unsigned char *warned; /* (n) bits: its warning was given since start */
    size_t bad;
    size_t bad_run; /* dropped in a row */
};

pd_loader_config pd_loader_defaults(void)
{
    return (pd_loader_config){
        .transform = pd_transform_none(), .batch = 1, .world = 1, .ahead = 3, .bad_images = PD_BAD_DROP};
}

/* ---- workers ---- */

static slot *slot_of(pd_loader *l, size_t batch)
{
    return &l->slots[batch % (size_t)l->n_slots];
}

static void note_bad(place *p, uint32_t index, const char *text)
{
    if (pd_grow(&p->bad, &p->bad_room, p->n_bad + 1, sizeof *p->bad, NULL) != PD_OK) return;
    char *copy = strdup(text);
    if (copy) p->bad[p->n_bad++] = (bad_file){index, copy};
}

/* The sample after i that may stand in for it. */
static uint32_t next_candidate(const pd_loader *l, uint32_t i)
{
    const uint8_t group = l->group ? l->group[i] : 0;
    do i = i + 1 < l->source.n ? i + 1 : 0;
    while (l->group && l->group[i] != group);
    return i;
}

/* Makes one sample of a batch, or a substitute, or none. */
static pd_status fill_place(pd_loader *l, place *p, uint32_t planned, uint32_t epoch, pd_sample_tools *tools,
                            pd_err *err)
{
    uint32_t i = planned;
    for (int tries = 1;; tries++) {
        pd_err why = PD_ERR_INIT;
        const pd_status status = pd_sample_make(&p->sample, &l->source, i, epoch, tools, &why);
        if (status == PD_OK) {
            p->used = true;
            p->other = tries > 1;
            return PD_OK;
        }
        if (l->config.bad_images == PD_BAD_ERROR || status == PD_ENOMEM) return pd_fail(err, status, "%s", why.text);
        note_bad(p, i, why.text);
        if (l->config.bad_images == PD_BAD_DROP) return PD_OK;
        i = next_candidate(l, i);
        if (tries == BAD_IN_A_ROW || i == planned)
            return PD_FAIL(err, status, "%d images in a row cannot be used; the last: %s", tries, why.text);
    }
}

static void begin_slot(pd_loader *l, slot *s, size_t number)
{
    const size_t batch = (size_t)l->config.batch, left = l->count - number * batch;
    s->planned = s->left = (int)(left < batch ? left : batch);
    s->ready = s->held = s->done = false;
    s->err = (pd_err)PD_ERR_INIT;
    for (int i = 0; i < s->planned; i++) {
        place *p = &s->places[i];
        for (size_t k = 0; k < p->n_bad; k++) free(p->bad[k].text);
        p->n_bad = 0;
        p->used = p->other = false;
    }
}

static pd_status pixel_room(slot *s, size_t need, bool bytes, pd_err *err)
{
    if (need <= s->pixel_room) return PD_OK;
    free(s->batch.pixels);
    free(s->batch.bytes);
    s->batch.pixels = NULL;
    s->batch.bytes = NULL;
    s->pixel_room = 0;
    void *memory = aligned_alloc(64, (need * (bytes ? 1 : sizeof(float)) + 63) & ~(size_t)63);
    if (!memory) return PD_FAIL(err, PD_ENOMEM, "out of memory: a batch of %zu numbers", need);
    if (bytes)
        s->batch.bytes = memory;
    else
        s->batch.pixels = memory;
    s->pixel_room = need;
    return PD_OK;
}

/* The image into the upper left of (h, w, 3) bytes; what is beyond it is 0. */
static void pad_bytes(unsigned char *to, int h, int w, const pd_image *image)
{
    const size_t used = (size_t)image->w * 3, stride = (size_t)w * 3;
    for (int y = 0; y < image->h; y++, to += stride) {
        memcpy(to, image->rgb + (size_t)y * used, used);
        memset(to + used, 0, stride - used);
    }
    memset(to, 0, (size_t)(h - image->h) * stride);
}

/* Moves the used places to the front and, for whole pictures, normalises into the common size. */
static void finish_batch(pd_loader *l, slot *s)
{
    pd_batch *b = &s->batch;
    const pd_transform_kind kind = l->config.transform.kind;
    const bool crop = kind == PD_TRANSFORM_RANDOM_CROP || kind == PD_TRANSFORM_CENTER_CROP;
    b->n = b->h = b->w = 0;
    for (int i = 0; i < s->planned; i++) {
        const place *p = &s->places[i];
        if (!p->used) continue;
        if (p->sample.info.pad_h > b->h) b->h = p->sample.info.pad_h;
        if (p->sample.info.pad_w > b->w) b->w = p->sample.info.pad_w;
        b->n++;
    }
    const size_t size = (size_t)b->h * (size_t)b->w * 3;
    const bool bytes = l->config.bytes;
    if (!crop && pixel_room(s, size * (size_t)b->n, bytes, &s->err) != PD_OK) return;
    size_t at = 0;
    for (int i = 0; i < s->planned; i++) {
        const pd_sample *from = &s->places[i].sample;
        if (!s->places[i].used) continue;
        float *to = bytes ? NULL : b->pixels + at * size;
        if (crop && to != from->pixels) memmove(to, from->pixels, size * sizeof *to);
        if (bytes) pad_bytes(b->bytes + at * size, b->h, b->w, &from->image);
        if (!crop && !bytes) pd_normalize_pad(to, b->h, b->w, &from->image, from->info.flipped, &l->source.norm);
        b->info[at] = from->info;
        if (b->labels) b->labels[at] = from->label;
        if (b->n_boxes) {
            const size_t row = at * (size_t)b->max_boxes, n = (size_t)from->n_boxes;
            b->n_boxes[at] = from->n_boxes;
            memmove(b->boxes + row, from->boxes, n * sizeof *from->boxes);
            memmove(b->box_labels + row, from->box_labels, n * sizeof *from->box_labels);
        }
        at++;
    }
}

static bool work_waits(const pd_loader *l)
{
    return l->running && l->next_batch < l->steps && l->next_batch < l->released + (size_t)l->n_slots;
}

/* Called with the lock held. */
static void do_sample(pd_loader *l, pd_sample_tools *tools)
{
    const size_t number = l->next_batch;
    const int at = l->next_place;
    slot *s = slot_of(l, number);
    if (at == 0) begin_slot(l, s, number);
    if (++l->next_place == s->planned) {
        l->next_place = 0;
        l->next_batch++;
    }
    const uint32_t planned = l->order[number * (size_t)l->config.batch + (size_t)at], epoch = l->epoch;
    l->busy++;
    pthread_mutex_unlock(&l->lock);
    pd_err err = PD_ERR_INIT;
    const pd_status status = fill_place(l, &s->places[at], planned, epoch, tools, &err);
    pthread_mutex_lock(&l->lock);
    if (status != PD_OK && s->err.code == PD_OK) s->err = err;
    if (--s->left == 0) {
        if (s->err.code == PD_OK) {
            pthread_mutex_unlock(&l->lock);
            finish_batch(l, s);
            pthread_mutex_lock(&l->lock);
        }
        s->ready = true;
        pthread_cond_signal(&l->ready);
    }
    if (--l->busy == 0) pthread_cond_signal(&l->idle);
}

static void *worker_main(void *arg)
{
    worker *w = arg;
    pd_loader *l = w->loader;
    pthread_mutex_lock(&l->lock);
    while (!l->quit) {
        if (work_waits(l))
            do_sample(l, &w->tools);
        else
            pthread_cond_wait(&l->work, &l->lock);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

/* ---- open and close ---- */

static size_t count_samples(const pd_loader_config *c)
{
    if (c->imagenet) return c->imagenet->n;
    if (c->coco) return c->images ? c->n_images : c->coco->n_images;
    return c->n_paths;
}

static pd_status check_config(const pd_loader_config *c, pd_err *err)
{
    if ((c->imagenet != NULL) + (c->coco != NULL) + (c->paths != NULL) != 1)
        return PD_FAIL(err, PD_EINVAL,
                       "a loader needs exactly one source: a class folder, a COCO set or a list of files");
    PD_TRY(pd_transform_check(&c->transform, err));
    if (c->bytes && !pd_transform_in_bytes(&c->transform))
        return PD_FAIL(err, PD_EINVAL, "images of a classification crop are no bytes before they are normalised");
    if (count_samples(c) == 0)
        return PD_FAIL(err, PD_EINVAL, "%s: no images to load", c->coco ? c->coco->path : "loader");
    if (c->coco && (c->transform.kind == PD_TRANSFORM_RANDOM_CROP || c->transform.kind == PD_TRANSFORM_CENTER_CROP))
        return PD_FAIL(err, PD_EINVAL, "%s: boxes cannot go through a classification crop", c->coco->path);
    for (size_t i = 0; c->images && i < c->n_images; i++)
        if (c->coco && c->images[i] >= c->coco->n_images)
            return PD_FAIL(err, PD_EINVAL, "image number %u of %zu", c->images[i], c->coco->n_images);
    if (c->threads < 0 || c->threads > 1024) return PD_FAIL(err, PD_EINVAL, "%d loader threads", c->threads);
    if (c->ahead < 1 || c->ahead > 1024)
        return PD_FAIL(err, PD_EINVAL, "%d batches ahead; expected 1 to 1024", c->ahead);
    return PD_OK;
}

/* Room for boxes, and the aspect groups. */
static pd_status prepare_coco(pd_loader *l, pd_err *err)
{
    const pd_loader_config *c = &l->config;
    uint32_t most = 1;
    const bool groups = c->group_aspect && c->shuffle;
    if (groups && !(l->group = calloc(l->source.n, 1))) return PD_FAIL(err, PD_ENOMEM, "out of memory: loader");
    for (size_t i = 0; i < l->source.n; i++) {
        const pd_coco_photo *image = pd_sample_coco(c, i);
        if (image->n_gt > most) most = image->n_gt;
        if (groups) l->group[i] = image->w > image->h;
        if (c->max_boxes > 0 && image->n_gt > (uint32_t)c->max_boxes)
            return PD_FAIL(err, PD_EINVAL, "%s: image id %lld has %u boxes, more than the %d allowed for",
                           c->coco->path, (long long)image->id, image->n_gt, c->max_boxes);
    }
    l->max_boxes = c->max_boxes > 0 ? c->max_boxes : (int)most;
    return PD_OK;
}

/* The common size of an untransformed set: the first image whose header can be read. */
static pd_status prepare_none(pd_loader *l, pd_err *err)
{
    pd_sample_tools tools = {.arena = pd_arena_new()};
    if (!tools.arena) return PD_FAIL(err, PD_ENOMEM, "out of memory: loader");
    pd_status status = PD_OK;
    for (uint32_t i = 0; i < l->source.n && i < BAD_IN_A_ROW; i++) {
        status = pd_sample_probe(&l->source.one_h, &l->source.one_w, &l->source, i, &tools, err);
        if (status == PD_OK) status = pd_sample_path(l->source.one_path, sizeof l->source.one_path, &l->config, i, err);
        if (status == PD_OK || l->config.bad_images == PD_BAD_ERROR) break;
    }
    pd_sample_tools_free(&tools);
    return status;
}

static void *zeroed(bool *failed, size_t count, size_t size)
{
    void *p = calloc(count ? count : 1, size);
    if (!p) *failed = true;
    return p;
}

static pd_status prepare_slots(pd_loader *l, pd_err *err)
{
    const pd_loader_config *c = &l->config;
    const size_t n = (size_t)c->batch, boxes = (size_t)l->max_boxes;
    const size_t side = (size_t)c->transform.crop, size = side * side * 3;
    const bool crop = c->transform.kind == PD_TRANSFORM_RANDOM_CROP || c->transform.kind == PD_TRANSFORM_CENTER_CROP;
    bool failed = false;
    l->slots = zeroed(&failed, (size_t)c->ahead + 1, sizeof *l->slots);
    if (failed) return PD_FAIL(err, PD_ENOMEM, "out of memory: loader");
    l->n_slots = c->ahead + 1;
    for (int i = 0; i < l->n_slots; i++) {
        slot *s = &l->slots[i];
        pd_batch *b = &s->batch;
        s->places = zeroed(&failed, n, sizeof *s->places);
        b->info = zeroed(&failed, n, sizeof *b->info);
        if (c->imagenet) b->labels = zeroed(&failed, n, sizeof *b->labels);
        if (c->coco) {
            b->max_boxes = l->max_boxes;
            b->n_boxes = zeroed(&failed, n, sizeof *b->n_boxes);
            b->boxes = zeroed(&failed, n * boxes, sizeof *b->boxes);
            b->box_labels = zeroed(&failed, n * boxes, sizeof *b->box_labels);
        }
        if (failed) return PD_FAIL(err, PD_ENOMEM, "out of memory: loader, batches of %zu images", n);
        b->norm = pd_transform_norm(&c->transform);
        if (crop) PD_TRY(pixel_room(s, n * size, false, err));
        for (size_t k = 0; k < n; k++) {
            s->places[k].sample.pixels = crop ? b->pixels + k * size : NULL;
            s->places[k].sample.boxes = c->coco ? b->boxes + k * boxes : NULL;
            s->places[k].sample.box_labels = c->coco ? b->box_labels + k * boxes : NULL;
        }
    }
    return PD_OK;
}

/* Signals are for the program's own threads: the workers block all of them. */
static pd_status start_workers(pd_loader *l, pd_err *err)
{
    const int n = l->config.threads ? l->config.threads : pd_cpu_count();
    l->workers = calloc((size_t)n, sizeof *l->workers);
    if (!l->workers) return PD_FAIL(err, PD_ENOMEM, "out of memory: loader");
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pd_status status = PD_OK;
    for (int i = 0; i < n && status == PD_OK; i++) {
        worker *w = &l->workers[i];
        w->loader = l;
        w->tools.arena = pd_arena_new();
        if (!w->tools.arena || pthread_create(&w->thread, NULL, worker_main, w) != 0) {
            pd_sample_tools_free(&w->tools);
            status =
                PD_FAIL(err, PD_ENOMEM, "cannot start loader thread %d of %d: out of memory or of threads", i + 1, n);
        } else {
            l->n_workers++;
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return status;
}

pd_status pd_loader_open(pd_loader **out, const pd_loader_config *config, pd_err *err)
{
    PD_TRY(check_config(config, err));
    pd_loader *l = calloc(1, sizeof *l);
    if (!l) return PD_FAIL(err, PD_ENOMEM, "out of memory: loader");
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->work, NULL);
    pthread_cond_init(&l->ready, NULL);
    pthread_cond_init(&l->idle, NULL);
    l->config = *config;
    l->source.config = &l->config;
    l->source.n = count_samples(config);
    pd_normalizer_init(&l->source.norm, &config->transform);
    pd_status status = PD_OK;
    if (config->coco) PD_TRY_DONE(prepare_coco(l, err));
    l->sampler = (pd_sampler){.n = l->source.n,
                              .group = l->group,
                              .batch = config->batch,
                              .shuffle = config->shuffle,
                              .drop_last = config->drop_last,
                              .exact = config->exact,
                              .seed = config->seed,
                              .rank = config->rank,
                              .world = config->world};
    PD_TRY_DONE(pd_sampler_check(&l->sampler, err));
    if (config->transform.kind == PD_TRANSFORM_NONE) PD_TRY_DONE(prepare_none(l, err));
    l->count = pd_sampler_count(&l->sampler);
    l->steps = pd_sampler_steps(&l->sampler);
    l->order = malloc((l->count + 1) * sizeof *l->order);
    l->warned = calloc(l->source.n / 8 + 1, 1);
    if (!l->order || !l->warned) {
        status = PD_FAIL(err, PD_ENOMEM, "out of memory: the order of %zu samples", l->count);
        goto done;
    }
    PD_TRY_DONE(prepare_slots(l, err));
    PD_TRY_DONE(start_workers(l, err));
    *out = l;
done:
    if (status != PD_OK) pd_loader_close(l);
    return status;
}

static void slot_free(slot *s, int places)
{
    for (int i = 0; s->places && i < places; i++) {
        place *p = &s->places[i];
        for (size_t k = 0; k < p->n_bad; k++) free(p->bad[k].text);
        free(p->bad);
        pd_image_free(&p->sample.image);
    }
    free(s->places);
    free(s->batch.pixels);
    free(s->batch.bytes);
    free(s->batch.info);
    free(s->batch.labels);
    free(s->batch.n_boxes);
    free(s->batch.boxes);
    free(s->batch.box_labels);
}

void pd_loader_close(pd_loader *l)
{
    if (!l) return;
    pthread_mutex_lock(&l->lock);
    l->quit = true;
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
    for (int i = 0; i < l->n_workers; i++) {
        pthread_join(l->workers[i].thread, NULL);
        pd_sample_tools_free(&l->workers[i].tools);
    }
    free(l->workers);
    for (int i = 0; i < l->n_slots; i++) slot_free(&l->slots[i], l->config.batch);
    free(l->slots);
    free(l->group);
    free(l->order);
    free(l->warned);
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->work);
    pthread_cond_destroy(&l->ready);
    pthread_cond_destroy(&l->idle);
    free(l);
}

/* ---- the consumer ---- */

size_t pd_loader_samples(const pd_loader *l)
{
    return l->source.n;
}

size_t pd_loader_steps(const pd_loader *l)
{
    return l->steps;
}

size_t pd_loader_bad(const pd_loader *l)
{
    return l->bad;
}

pd_status pd_loader_path(char *buffer, size_t size, const pd_loader *l, size_t i, pd_err *err)
{
    if (i >= l->source.n) return PD_FAIL(err, PD_EINVAL, "sample %zu of %zu", i, l->source.n);
    return pd_sample_path(buffer, size, &l->config, i, err);
}

pd_status pd_loader_start(pd_loader *l, uint32_t epoch, size_t step, pd_err *err)
{
    if (step > l->steps) return PD_FAIL(err, PD_EINVAL, "step %zu of an epoch of %zu", step, l->steps);
    pthread_mutex_lock(&l->lock);
    l->running = false;
    while (l->busy > 0) pthread_cond_wait(&l->idle, &l->lock);
    const pd_status status = pd_sampler_plan(l->order, &l->sampler, epoch, err);
    if (status == PD_OK) {
        l->epoch = epoch;
        l->next_batch = l->received = l->released = step;
        l->next_place = 0;
        for (int i = 0; i < l->n_slots; i++) l->slots[i].ready = l->slots[i].held = l->slots[i].done = false;
        memset(l->warned, 0, l->source.n / 8 + 1);
        l->bad_run = 0;
        l->running = true;
        pthread_cond_broadcast(&l->work);
    }
    pthread_mutex_unlock(&l->lock);
    return status;
}

/* Frees the slots of the oldest batches that were handed back. Called with the lock held. */
static void release(pd_loader *l)
{
    while (l->released < l->received && slot_of(l, l->released)->done) {
        slot *s = slot_of(l, l->released++);
        s->ready = s->held = s->done = false;
    }
    pthread_cond_broadcast(&l->work);
}

/* Warns of the files that this batch could not use, and counts. */
static pd_status report_bad(pd_loader *l, const slot *s, pd_err *err)
{
    const size_t limit = l->count < BAD_IN_A_ROW ? l->count : BAD_IN_A_ROW;
    for (int i = 0; i < s->planned; i++) {
        const place *p = &s->places[i];
        for (size_t k = 0; k < p->n_bad; k++) {
            const uint32_t index = p->bad[k].index;
            const unsigned char bit = (unsigned char)(1u << index % 8);
            if (l->config.warn && !(l->warned[index / 8] & bit)) l->config.warn(l->config.warn_arg, p->bad[k].text);
            l->warned[index / 8] |= bit;
        }
        if (!p->used || p->other) l->bad++;
        l->bad_run = p->used ? 0 : l->bad_run + 1;
        if (l->bad_run >= limit)
            return PD_FAIL(err, PD_EFORMAT, "%zu images in a row cannot be used; the last: %s", l->bad_run,
                           p->n_bad ? p->bad[p->n_bad - 1].text : "out of memory");
    }
    return PD_OK;
}

pd_status pd_loader_next(pd_loader *l, const pd_batch **batch, pd_err *err)
{
    for (;;) {
        pthread_mutex_lock(&l->lock);
        if (!l->running || l->received == l->steps) {
            const bool started = l->running;
            pthread_mutex_unlock(&l->lock);
            if (!started) return PD_FAIL(err, PD_EINVAL, "pd_loader_next before pd_loader_start, or after a failure");
            *batch = NULL;
            return PD_OK;
        }
        if (l->received == l->released + (size_t)l->n_slots) {
            pthread_mutex_unlock(&l->lock);
            return PD_FAIL(err, PD_EINVAL, "%d batches are held; hand one back with pd_loader_done", l->n_slots);
        }
        slot *s = slot_of(l, l->received);
        while (!s->ready) pthread_cond_wait(&l->ready, &l->lock);
        pd_status status = s->err.code;
        if (status == PD_OK) {
            s->held = true;
            l->received++;
        } else {
            l->running = false;
        }
        pthread_mutex_unlock(&l->lock);
        if (status != PD_OK) return pd_fail(err, status, "%s", s->err.text);
        status = report_bad(l, s, err);
        if (status != PD_OK || s->batch.n == 0) {
            pthread_mutex_lock(&l->lock);
            l->running = status == PD_OK;
            s->done = true;
            release(l);
            pthread_mutex_unlock(&l->lock);
            PD_TRY(status);
            continue;
        }
        *batch = &s->batch;
        return PD_OK;
    }
}

void pd_loader_done(pd_loader *l, const pd_batch *batch)
{
    pthread_mutex_lock(&l->lock);
    for (int i = 0; i < l->n_slots; i++)
        if (&l->slots[i].batch == batch && l->slots[i].held) l->slots[i].done = true;
    release(l);
    pthread_mutex_unlock(&l->lock);
}
