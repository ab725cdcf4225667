/* Any text as a configuration: a sentence that names the place, or values that print to a text with the same values. */
#include "engine/json.h"
#include "engine/schedule.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Every value has a line within the text and a path. */
static void visit(const pd_json_doc *doc, const pd_json *v, size_t lines, int *left)
{
    char path[64], what[80];
    if (--*left < 0) return;
    const size_t line = pd_json_line(doc, v);
    if (line < 1 || line > lines) abort();
    pd_json_path(path, sizeof path, doc, v);
    pd_json_describe(what, sizeof what, v);
    for (v = pd_json_first(v); v; v = pd_json_next(v)) visit(doc, v, lines, left);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pd_err err = PD_ERR_INIT;
    pd_json_doc *doc = NULL;
    pd_status status = pd_json_parse(&doc, "file", data, size, &err);
    if (status != PD_OK) {
        if (status != PD_EFORMAT || strncmp(err.text, "file:", 5) != 0 || doc) abort();
        return 0;
    }
    size_t lines = 1;
    int left = 200;
    for (size_t i = 0; i < size; i++) lines += data[i] == '\n';
    visit(doc, pd_json_root(doc), lines, &left);
    pd_json_close(doc);

    pd_arena *arena = pd_arena_new();
    pd_config *c = NULL, *again = NULL;
    pd_schedule s, t;
    char *text, *text2;
    if (!arena) abort();
    if (pd_config_parse(&c, "file", (const char *)data, size, &err) == PD_OK &&
        pd_config_read(&s, c, &pd_schedule_table, arena, &err) == PD_OK) {
        if (pd_config_print(&text, &s, &pd_schedule_table, arena, &err) != PD_OK) abort();
        if (pd_config_parse(&again, "again", text, strlen(text), &err) != PD_OK) abort();
        if (pd_config_read(&t, again, &pd_schedule_table, arena, &err) != PD_OK) abort();
        if (pd_config_print(&text2, &t, &pd_schedule_table, arena, &err) != PD_OK || strcmp(text, text2)) abort();
    }
    pd_config_free(c);
    pd_config_free(again);
    pd_arena_free(arena);
    return 0;
}
