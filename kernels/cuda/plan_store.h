/* plan_store.h: chosen plans, kept between runs: text lines "key TAB milliseconds TAB plan" in one file.
 *
 * The file is $XDG_CACHE_HOME/paradise/NAME (or ~/.cache/paradise/NAME). A store that cannot be read or written is an
 * empty one: plans are then timed again. */
#ifndef PD_PLAN_STORE_H
#define PD_PLAN_STORE_H

#include "engine/status.h"

#include <stdbool.h>

typedef struct pd_plan_store pd_plan_store;

pd_status pd_plan_store_open(pd_plan_store **out, const char *name, pd_err *err);
/* The plan stored under this key, or NULL. */
const char *pd_plan_store_find(const pd_plan_store *store, const char *key);
/* Keeps copies. Lines must not hold tabs or newlines of their own: in a plan's JSON they become blanks. */
pd_status pd_plan_store_add(pd_plan_store *store, const char *key, double ms, const char *plan, pd_err *err);
/* Writes the file if something was added, as a whole or not at all; NULL allowed. */
void pd_plan_store_close(pd_plan_store *store);

#endif
