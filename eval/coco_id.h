/* coco_id.h: a set of ids as COCO files have them (whole, fractional or text), and the index of each. Private to eval/.
 *
 * Built once, then constant and free for all threads to look up in. */
#ifndef PD_COCO_ID_H
#define PD_COCO_ID_H

#include "engine/json_stream.h"
#include "eval/coco_gt.h"

#define PD_COCO_NONE UINT32_MAX /* no such image or category */

/* An id as it stands in the text: nothing is copied, so it is valid as long as the text. */
typedef struct pd_coco_raw_id {
    int64_t whole; /* WHOLE: the value; REAL: the double's bits; TEXT: offset of the string in the text */
    uint32_t size; /* TEXT: bytes */
    uint8_t kind;  /* pd_coco_id_kind, or PD_COCO_ID_NULL */
    bool escaped;  /* TEXT */
} pd_coco_raw_id;
enum { PD_COCO_ID_NULL = 3 }; /* null: equals nothing */

/* Reads an id: a number, text, true or false (1 and 0), or null. False with an error in j for anything else. */
bool pd_coco_read_id(pd_js *j, pd_coco_raw_id *out);
/* With text in the arena. raw.kind must not be PD_COCO_ID_NULL. */
pd_status pd_coco_id_keep(pd_coco_id *out, pd_coco_raw_id raw, const unsigned char *text, pd_arena *arena, pd_err *err);
/* The id for a message. */
const char *pd_coco_raw_format(char out[PD_COCO_ID_ROOM], pd_coco_raw_id raw, const unsigned char *text);

/* Hash table from id to index: open addressing, at most half full. */
typedef struct pd_coco_id_table {
    const pd_coco_id *ids; /* (n) borrowed */
    uint32_t *slots;       /* index, or PD_COCO_NONE */
    size_t mask;
    uint32_t *small; /* (n_small) index of the whole ids 0 .. n_small - 1, without hashing */
    size_t n_small;
} pd_coco_id_table;

pd_status pd_coco_id_table_make(pd_coco_id_table *out, const pd_coco_id *ids, size_t n, pd_arena *arena, pd_err *err);
uint32_t pd_coco_id_find(const pd_coco_id_table *table, pd_coco_id id);
uint32_t pd_coco_id_find_raw(const pd_coco_id_table *table, pd_coco_raw_id raw, const unsigned char *text);

#endif
