/* Out of memory, everywhere: each allocation of reading and writing JSON, configurations and tensor files fails once.
 * ctest: fault */
#include "engine/config.h"
#include "engine/file.h"
#include "engine/json.h"
#include "engine/log.h"
#include "engine/safetensors.h"
#include "engine/schedule.h"
#include "tests/fault.h"
#include "tests/pd_test.h"

#include <unistd.h>

static char dir[256], path[300];

/* Something that no function may write to when it fails. */
static char untouched;

static pd_status parse_json(void *arg, pd_err *err)
{
    const char *text = arg;
    pd_json_doc *const mark = (pd_json_doc *)&untouched, *doc = mark;
    const pd_status status = pd_json_parse(&doc, "text", text, strlen(text), err);
    if (status == PD_OK)
        pd_json_close(doc);
    else
        PD_CHECK(doc == mark);
    return status;
}

static pd_status write_json(void *arg, pd_err *err)
{
    (void)arg;
    pd_arena *arena = pd_arena_new();
    pd_json_writer *w = pd_json_object();
    pd_json_put_string(w, "a", "text");
    pd_json_begin_array(w, "list");
    for (int i = 0; i < 3; i++) pd_json_put_double(w, NULL, i / 3.0);
    pd_json_begin_object(w, NULL);
    pd_json_put_null(w, "n");
    pd_json_put_bool(w, "b", true);
    pd_json_end(w);
    pd_json_end(w);
    char *text = &untouched;
    pd_status status = PD_ENOMEM;
    if (arena) {
        status = pd_json_finish(&text, w, true, arena, err);
        if (status != PD_OK) PD_CHECK(text == &untouched);
    } else {
        PD_FAIL(err, PD_ENOMEM, "out of memory");
        pd_json_free(w);
    }
    pd_arena_free(arena);
    return status;
}

static pd_status read_config(void *arg, pd_err *err)
{
    const char *set = arg;
    pd_arena *arena = pd_arena_new();
    if (!arena) return PD_FAIL(err, PD_ENOMEM, "out of memory");
    pd_schedule s, before;
    memset(&s, 0x5a, sizeof s);
    before = s;
    pd_config *c = NULL;
    char *text = &untouched;
    pd_status status = pd_config_load(&c, path, err);
    if (status == PD_OK) status = pd_config_set(c, set, err);
    if (status == PD_OK) {
        status = pd_config_read(&s, c, &pd_schedule_table, arena, err);
        PD_CHECK(status == PD_OK || !memcmp(&s, &before, sizeof s));
    }
    if (status == PD_OK) {
        status = pd_config_print(&text, &s, &pd_schedule_table, arena, err);
        PD_CHECK((status == PD_OK) == (text != &untouched));
    }
    pd_config_free(c);
    pd_arena_free(arena);
    return status;
}

static pd_status write_tensors(void *arg, pd_err *err)
{
    (void)arg;
    static const float values[6] = {1, 2, 3, 4, 5, 6};
    pd_st_writer *w = NULL;
    PD_TRY(pd_st_create(&w, path, PD_ST_SORTED, err));
    pd_status status = pd_st_add_meta(w, "format", "pt", err);
    for (int i = 0; i < 20 && status == PD_OK; i++) {
        char name[16];
        snprintf(name, sizeof name, "t%d", i);
        status = pd_st_add(w, name, PD_ST_F32, 2, (const int64_t[]){2, 3}, values, err);
    }
    if (status == PD_OK) return pd_st_commit(w, err);
    pd_st_cancel(w);
    return status;
}

/* Whether the file `path` is still mapped: what the leak sanitizer does not see. */
static bool still_mapped(void)
{
    char line[1024];
    bool found = false;
    FILE *f = fopen("/proc/self/maps", "r");
    while (f && fgets(line, sizeof line, f)) found = found || strstr(line, path);
    if (f) fclose(f);
    return found;
}

static pd_status read_tensors(void *arg, pd_err *err)
{
    (void)arg;
    pd_st *const mark = (pd_st *)&untouched, *st = mark;
    const pd_status status = pd_st_open(&st, path, err);
    if (status == PD_OK) {
        PD_CHECK(pd_st_count(st) == 20 && pd_st_find(st, "t7"));
        pd_st_close(st);
    } else {
        PD_CHECK(st == mark);
    }
    PD_CHECK(!still_mapped());
    return status;
}

static pd_status write_log(void *arg, pd_err *err)
{
    (void)arg;
    pd_log *log = NULL;
    PD_TRY(pd_log_open(&log, dir, 1, "val", 1700000000, err));
    pd_status status = PD_OK;
    for (int i = 2; i < 4 && status == PD_OK; i++)
        status = pd_log_write(log, "train", i, 1700000000, (const pd_log_value[]){{"loss", 1.5}, {"lr", 0.1}}, 2, err);
    const pd_status closed = pd_log_close(log, status == PD_OK ? err : NULL);
    return status != PD_OK ? status : closed;
}

static pd_status read_log(void *arg, pd_err *err)
{
    (void)arg;
    pd_arena *arena = pd_arena_new();
    if (!arena) return PD_FAIL(err, PD_ENOMEM, "out of memory");
    pd_log_series *series = NULL;
    size_t n = 77;
    const pd_status status = pd_log_read(&series, &n, path, arena, err);
    PD_CHECK(status == PD_OK ? n == 2 : n == 77 && !series);
    pd_arena_free(arena);
    return status;
}

/* Runs a sweep; at least `least` allocations must have been met, or the hooks do not hold. */
static void sweep(const char *name, pd_fault_work work, void *arg, bool may_ignore, long least)
{
    PD_ROW(name);
    const long n = pd_fault_sweep(name, work, arg, may_ignore);
    PD_CHECK_MSG(n >= least, "%ld allocations failed one by one, expected %ld or more", n, least);
}

int main(void)
{
    pd_err err = PD_ERR_INIT;
    if (!pd_test_dir(dir, "fault")) return 1;
    /* more keys than the duplicate search keeps on its stack */
    char text[2000] = "{\"list\": [1, true, null, \"s\"]";
    for (int i = 0; i < 40; i++) snprintf(text + strlen(text), sizeof text - strlen(text), ", \"key%d\": {}", i);
    strcat(text, "}");
    sweep("parse JSON", parse_json, text, false, 90);
    sweep("write JSON", write_json, NULL, false, 15);

    char base[300];
    snprintf(base, sizeof base, "%s/base.json", dir);
    snprintf(path, sizeof path, "%s/child.json", dir);
    static const char base_text[] = "{\"type\": \"multistep\", \"milestones\": [8, 11]}",
                      child_text[] = "{\"_base_\": \"base.json\", \"warmup_steps\": 500}";
    PD_CHECK_OK(pd_file_write(base, base_text, strlen(base_text), &err));
    PD_CHECK_OK(pd_file_write(path, child_text, strlen(child_text), &err));
    sweep("configuration", read_config, "gamma=0.5", false, 60);
    sweep("configuration, assigned word", read_config, "type=step", false, 60);
    unlink(base);
    unlink(path);

    snprintf(path, sizeof path, "%s/t.safetensors", dir);
    sweep("write tensors", write_tensors, NULL, true, 30); /* flushing the folder can do without memory */
    sweep("read tensors", read_tensors, NULL, false, 100);
    unlink(path);

    sweep("write log", write_log, NULL, false, 20);
    snprintf(path, sizeof path, "%s/log.jsonl", dir);
    sweep("read log", read_log, NULL, false, 10);
    PD_ROW("");
    char cmd[300];
    snprintf(cmd, sizeof cmd, "ls %s | grep -v -e ^log.jsonl$ -e ^events", dir);
    PD_CHECK(system(cmd) != 0); /* nothing else is left: no file half written */
    snprintf(cmd, sizeof cmd, "rm -r '%s'", dir);
    PD_CHECK(system(cmd) == 0);
    return pd_test_end();
}
