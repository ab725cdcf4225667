/* plan_store.h: chosen plans, kept between runs: text lines "key TAB milliseconds TAB plan" in one file.
 *
 * The file is $XDG_CACHE_HOME/paradise/NAME (or ~/.cache/paradise/NAME). Every plan is written as soon as it is known,
 * as one line behind the others, so that neither a killed program nor another one that writes at the same time loses
 * any. Of several lines with one key the first counts: all who share the file choose the same plan, now and in later
 * runs. A file that cannot be read or written is an empty one: plans are then timed again. */
#ifndef PD_PLAN_STORE_H
#define PD_PLAN_STORE_H

#include "engine/status.h"

#include <stdbool.h>

typedef struct pd_plan_store pd_plan_store;

pd_status pd_plan_store_open(pd_plan_store **out, const char *name, pd_err *err);
void pd_plan_store_close(pd_plan_store *store); /* NULL allowed */
/* The plan stored under this key and what it took, or NULL. Valid until the next call. */
const char *pd_plan_store_find(const pd_plan_store *store, const char *key, double *ms);
/* Looks for what others have written meanwhile, and adds the plan if there is still none under this key; after that
 * pd_plan_store_find gives the one that counts. Tabs and newlines in a plan become blanks. */
pd_status pd_plan_store_add(pd_plan_store *store, const char *key, double ms, const char *plan, pd_err *err);

#endif
