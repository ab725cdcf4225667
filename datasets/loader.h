/* loader.h: batches in order, made by worker threads ahead of the consumer.
 *
 *   pd_loader_config cfg = pd_loader_defaults();
 *   cfg.imagenet = &train;  (or cfg.coco and cfg.image_dir, or cfg.paths and cfg.n_paths)
 *   cfg.transform = pd_transform_train();
 *   cfg.batch = 32; cfg.shuffle = true; cfg.seed = 1; cfg.threads = 2;
 *   pd_loader *loader;
 *   PD_TRY(pd_loader_open(&loader, &cfg, &err));
 *   for (uint32_t epoch = 0; epoch < epochs; epoch++) {
 *       PD_TRY(pd_loader_start(loader, epoch, 0, &err));           (resume: the epoch and the steps already done)
 *       for (;;) {
 *           const pd_batch *batch;
 *           PD_TRY(pd_loader_next(loader, &batch, &err));          (waits; the time it takes is the data time)
 *           if (!batch) break;                                     (end of the epoch)
 *           ... use batch ...
 *           pd_loader_done(loader, batch);
 *       }
 *   }
 *   pd_loader_close(loader);
 *
 * What is in a batch depends on the configuration, the epoch and the step only: every random choice about a sample
 * comes from a generator keyed by (seed, epoch, sample). The number of threads changes nothing but speed.
 *
 * Images that cannot be read or decoded, or that have another size than the annotation file says:
 *   PD_BAD_REPLACE  (training) the next readable sample in index order takes the place, of the same aspect group where
 *                   there are groups; the batch keeps its size
 *   PD_BAD_DROP     (evaluation) the sample is left out; the batch is smaller, a batch left empty is not delivered
 *   PD_BAD_ERROR    pd_loader_next fails with the sentence, which names the file
 * In the first two cases cfg.warn gets the sentence once per file and start, in the order of the batches, on the thread
 * that calls pd_loader_next, and pd_loader_bad counts. If 100 samples in a row cannot be read, that is an error in
 * any case.
 *
 * Memory: `ahead` + 1 batches with their buffers, and one decoder's worth per thread; grown in the first rounds, then
 * reused. The loader keeps pointers to the sets and strings of the configuration; they must live as long as it does.
 * Threads: open, start, next, done, close from one thread at a time. */
#ifndef PD_LOADER_H
#define PD_LOADER_H

#include "datasets/coco.h"
#include "datasets/imagenet.h"
#include "datasets/transform.h"
#include "engine/batch.h"

typedef enum pd_bad_images { PD_BAD_REPLACE, PD_BAD_DROP, PD_BAD_ERROR } pd_bad_images;

typedef struct pd_loader_config {
    /* Where samples come from: exactly one of the three. */
    const pd_imagenet *imagenet; /* labels, and info.id = index of the image */
    const pd_coco *coco;         /* boxes (PD_COCO_GT), and info.id = COCO image id */
    const char *image_dir;       /* coco: folder that file_name is relative to */
    const uint32_t *images;      /* coco: indices of the images to use (pd_coco_train_images); NULL: all */
    size_t n_images;             /* length of images */
    const char *const *paths;    /* files; info.id = index */
    size_t n_paths;

    pd_transform transform;
    pd_image_options image; /* exif is taken from here: set it for detection */

    bool bytes; /* batches hold bytes (batch.h), which a network normalises; only where pd_transform_in_bytes */

    int batch; /* samples per batch, >= 1 */
    bool shuffle;
    bool group_aspect; /* coco with shuffle: a batch holds images with width > height, or images without; not both */
    bool drop_last;    /* leave out the last, smaller batch */
    bool exact;        /* evaluation on several ranks: every sample once (see sampler.h) */
    uint64_t seed;
    int rank, world;

    int threads;   /* workers; 0: pd_cpu_count() */
    int ahead;     /* batches made in advance, >= 1 */
    int max_boxes; /* coco: room per image; 0: the set's largest count. Too small a number is an error at open */
    pd_bad_images bad_images;
    void (*warn)(void *arg, const char *text); /* may be NULL */
    void *warn_arg;
} pd_loader_config;

/* batch 1, no shuffle, rank 0 of 1, all threads, ahead 3, PD_BAD_DROP, transform none; no source. */
pd_loader_config pd_loader_defaults(void);

typedef struct pd_loader pd_loader;

/* Checks the configuration and starts the threads; reads no image (but with PD_TRANSFORM_NONE the first readable one,
 * for its size). PD_EINVAL names the setting. */
pd_status pd_loader_open(pd_loader **out, const pd_loader_config *config, pd_err *err);

/* Stops the threads and frees everything, at any time; NULL allowed. */
void pd_loader_close(pd_loader *loader);

/* Samples of the whole set; batches of this rank in an epoch. */
size_t pd_loader_samples(const pd_loader *loader);
size_t pd_loader_steps(const pd_loader *loader);

/* Begins an epoch at a step (0 .. steps); batches still under way are thrown away and all handed-out batches end. */
pd_status pd_loader_start(pd_loader *loader, uint32_t epoch, size_t step, pd_err *err);

/* The next batch, or NULL at the end of the epoch. Hand it back with pd_loader_done; up to `ahead` may be held at once.
 * After a failure only start and close are allowed. */
pd_status pd_loader_next(pd_loader *loader, const pd_batch **batch, pd_err *err);

/* In the order in which they were received. */
void pd_loader_done(pd_loader *loader, const pd_batch *batch);

/* Samples that could not be used since open (replaced or dropped). */
size_t pd_loader_bad(const pd_loader *loader);

/* The file behind sample number i (the index, not info.id); PD_EINVAL if it does not fit. */
pd_status pd_loader_path(char *buffer, size_t size, const pd_loader *loader, size_t i, pd_err *err);

#endif
