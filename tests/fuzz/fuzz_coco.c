/* Any bytes as an annotation file: an index that holds together, or a sentence. */
#include "datasets/coco.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const pd_coco *set, pd_arena *arena)
{
    pd_err err = PD_ERR_INIT;
    uint32_t *list;
    size_t n, anns = 0, uses = 0;
    char *text;
    for (size_t i = 0; i < set->n_images; i++) {
        const pd_coco_photo *image = &set->images[i];
        if (image->w < 1 || image->h < 1 || !image->file[0] || image->first != anns) abort();
        if (pd_coco_find(set, image->id) != (ptrdiff_t)i) abort();
        anns += image->n;
    }
    for (size_t i = 0; i < set->n_anns; i++)
        if (set->anns[i].label < -1 || set->anns[i].label >= set->n_classes) abort();
    for (int u = 0; u < PD_COCO_USES; u++) uses += set->counts[u];
    if (anns != set->n_anns || uses != anns || set->n_images == 0) abort();
    if (pd_coco_train_images(&list, &n, set, 32, false, arena, &err) != PD_OK || n > set->n_images) abort();
    if (pd_coco_summary(&text, set, arena, &err) != PD_OK) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pd_err err = PD_ERR_INIT;
    char path[40];
    const int fd = memfd_create("coco", 0);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    pd_arena *arena = pd_arena_new();
    pd_coco set;
    const pd_status status = pd_coco_open(&set, path, NULL, 0, arena, &err);
    if (status == PD_OK)
        check(&set, arena);
    else if (status != PD_EFORMAT || !err.text[0])
        abort();
    pd_arena_free(arena);
    close(fd);
    return 0;
}
