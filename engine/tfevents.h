/* tfevents.h: scalars for TensorBoard, without TensorFlow.
 *
 * A file of records: length (u64), masked crc32c of it, the bytes, masked crc32c of them; each record is a protocol
 * buffer `Event` {1: wall_time double, 2: step int64, 3: file_version string, 5: Summary, 7: SessionLog}, Summary {1:
 * Value {1: tag, 2: simple_value float}}. (tensorflow/core/util/event.proto, lib/io/record_writer.) */
#ifndef PD_TFEVENTS_H
#define PD_TFEVENTS_H

#include "engine/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct pd_tfevents pd_tfevents;

/* A new file `dir`/events.out.tfevents.<seconds>.<host>.<process>. TensorBoard is told to forget the points at
 * first_step (0 or more) and beyond in the folder's older files: those of a run that resumes, or was started anew. */
pd_status pd_tfevents_open(pd_tfevents **out, const char *dir, double wall_time, int64_t first_step, pd_err *err);

/* `count` scalars of one step, tags "prefix/name"; written out at once. */
pd_status pd_tfevents_scalars(pd_tfevents *t, double wall_time, int64_t step, const char *prefix,
                              const char *const *names, const double *values, size_t count, pd_err *err);

pd_status pd_tfevents_close(pd_tfevents *t, pd_err *err); /* NULL allowed */

/* CRC-32C (Castagnoli, polynomial 0x1edc6f41 reflected). */
uint32_t pd_crc32c(const void *data, size_t size);

#endif
