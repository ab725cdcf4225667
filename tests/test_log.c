/* The record of a run: lines, going on after a stop, reading back; TensorBoard's bytes. */
#include "engine/file.h"
#include "engine/log.h"
#include "engine/tfevents.h"
#include "tests/pd_test.h"

#include <unistd.h>

static char dir[256];

static const char *in_dir(const char *name)
{
    static char path[400];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static void remove_all(pd_arena *arena)
{
    pd_err err = PD_ERR_INIT;
    char **names;
    size_t n = 0;
    PD_CHECK_OK(pd_list_dir(&names, &n, dir, 'f', arena, &err));
    for (size_t i = 0; i < n; i++) unlink(in_dir(names[i]));
}

static const char *content(const char *name, size_t *size, pd_arena *arena)
{
    pd_err err = PD_ERR_INIT;
    pd_bytes bytes = {(const unsigned char *)"", 0};
    PD_CHECK_OK(pd_file_read(&bytes, in_dir(name), 0, arena, &err));
    if (size) *size = bytes.size;
    return (const char *)bytes.data;
}

/* Made by tensorboard's RecordWriter from the same three events. */
static const char tensorboard_hex[] =
    "1800000000000000a37f4b220900001040fc54d9411a0d627261696e2e4576656e743a32338d2fe90f000000000000006d53"
    "2b090900001040fc54d94110293a0208013eb6350dbf0000000000000052fdbd340900006040fc54d94110ac022ab0010a11"
    "0a0a747261696e2f6c6f737315000010400a9a010a9201747261696e2f787878787878787878787878787878787878787878"
    "7878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878"
    "7878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878"
    "78787878787878787878787878787878787878150000c07f98721505";

static void test_tensorboard(pd_arena *arena)
{
    pd_err err = PD_ERR_INIT;
    PD_CHECK(pd_crc32c("123456789", 9) == 0xe3069283u);
    pd_tfevents *t = NULL;
    char long_name[141];
    memset(long_name, 'x', 140);
    long_name[140] = '\0';
    PD_CHECK_OK(pd_tfevents_open(&t, dir, 1700000000.25, 41, &err));
    const char *names[] = {"loss", long_name};
    const double values[] = {2.25, NAN};
    PD_CHECK_OK(pd_tfevents_scalars(t, 1700000001.5, 300, "train", names, values, 2, &err));
    PD_CHECK_OK(pd_tfevents_scalars(t, 1700000001.5, 300, "train", names, values, 0, &err));
    PD_CHECK_OK(pd_tfevents_close(t, &err));
    char **files;
    size_t n = 0, size = 0;
    PD_CHECK_OK(pd_list_dir(&files, &n, dir, 'f', arena, &err));
    PD_CHECK_INT(n, 1);
    PD_CHECK(!strncmp(files[0], "events.out.tfevents.1700000000.", 31));
    const unsigned char *bytes = (const unsigned char *)content(files[0], &size, arena);
    char *hex = NULL;
    PD_CHECK_OK(PD_ALLOC(&hex, arena, 2 * size + 1, &err));
    for (size_t i = 0; i < size; i++) snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
    PD_CHECK_STR(hex, tensorboard_hex);
    PD_CHECK_FAILS(pd_tfevents_open(&t, "/nonexistent", 1, 0, &err), PD_EIO,
                   "/nonexistent/events.out.tfevents.0000000001");
    PD_CHECK_OK(pd_tfevents_close(NULL, &err));
    remove_all(arena);
}

static pd_status write_step(pd_log *log, int64_t step, double loss, pd_err *err)
{
    return pd_log_write(log, "train", step, 1700000000,
                        (const pd_log_value[]){{"epoch", (double)(step / 2)}, {"loss", loss}}, 2, err);
}

static void test_lines(pd_arena *arena)
{
    pd_err err = PD_ERR_INIT;
    pd_log *log = NULL;
    PD_CHECK_OK(pd_log_open(&log, dir, -1, NULL, 1700000000, &err));
    PD_CHECK_OK(write_step(log, 1, 2.5, &err));
    PD_CHECK_STR(content("log.jsonl", NULL, arena),
                 "{\"kind\":\"train\",\"step\":1,\"epoch\":0,\"loss\":2.5}\n"); /* at once */
    PD_CHECK_OK(write_step(log, 2, 1.0 / 3, &err));
    PD_CHECK_OK(pd_log_write(log, "val", 2, 1700000000, (const pd_log_value[]){{"top1", 50}}, 1, &err));
    PD_CHECK_OK(write_step(log, 3, NAN, &err));
    PD_CHECK_OK(write_step(log, 4, 0.25, &err));
    PD_CHECK_OK(pd_log_close(log, &err));
    PD_CHECK_OK(pd_log_close(NULL, &err));
    const char two_steps[] = "{\"kind\":\"train\",\"step\":1,\"epoch\":0,\"loss\":2.5}\n"
                             "{\"kind\":\"train\",\"step\":2,\"epoch\":1,\"loss\":0.3333333333333333}\n"
                             "{\"kind\":\"val\",\"step\":2,\"top1\":50}\n";
    char *four_steps = NULL;
    PD_CHECK_OK(pd_format(&four_steps, arena, &err, "%s%s", two_steps,
                          "{\"kind\":\"train\",\"step\":3,\"epoch\":1,\"loss\":null}\n"
                          "{\"kind\":\"train\",\"step\":4,\"epoch\":2,\"loss\":0.25}\n"));
    PD_CHECK_STR(content("log.jsonl", NULL, arena), four_steps);

    /* what is there, the step that the run goes on from, what stays */
    char *cut = NULL, *zeros = NULL, *two_trained = NULL, *three_steps = NULL;
    PD_CHECK_OK(pd_strdup(&two_trained, arena, two_steps, &err));
    *strstr(two_trained, "{\"kind\":\"val\"") = '\0';
    PD_CHECK_OK(pd_strdup(&three_steps, arena, four_steps, &err));
    *strstr(three_steps, "{\"kind\":\"train\",\"step\":4") = '\0';
    PD_CHECK_OK(pd_format(&cut, arena, &err, "%s{\"kind\":\"train\",\"st", two_steps));
    PD_CHECK_OK(pd_format(&zeros, arena, &err, "%s###\n{\"step\":2}\n", two_steps));
    const struct {
        const char *name, *before;
        int64_t step;
        const char *after, *again;
    } rows[] = {
        {"everything", four_steps, 4, four_steps, NULL},
        {"later than all", four_steps, 9, four_steps, "val"},
        {"half", four_steps, 2, two_steps, NULL},
        {"half, without its validation", four_steps, 2, two_trained, "val"},
        {"a validation before", four_steps, 3, three_steps, "val"},
        {"nothing", four_steps, 0, "", NULL},
        {"a cut line", cut, 9, two_steps, NULL},
        {"damage", zeros, 9, two_steps, NULL},
        {"a new run", four_steps, -1, "", NULL},
        {"an empty file", "", 3, "", NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        PD_ROW(rows[i].name);
        PD_CHECK_OK(pd_file_write(in_dir("log.jsonl"), rows[i].before, strlen(rows[i].before), &err));
        PD_CHECK_OK(pd_log_open(&log, dir, rows[i].step, rows[i].again, 1700000000, &err));
        PD_CHECK_STR(content("log.jsonl", NULL, arena), rows[i].after);
        PD_CHECK_OK(write_step(log, 5, 1, &err));
        PD_CHECK_OK(pd_log_close(log, &err));
        const char *now = content("log.jsonl", NULL, arena);
        PD_CHECK_STR(now + strlen(rows[i].after), "{\"kind\":\"train\",\"step\":5,\"epoch\":2,\"loss\":1}\n");
    }
    PD_ROW("");
    log = NULL;
    PD_CHECK_FAILS(pd_log_open(&log, "/nonexistent", -1, NULL, 0, &err), PD_EIO, "/nonexistent/log.jsonl: cannot open");
    PD_CHECK(!log);
    remove_all(arena);
}

static void test_read(pd_arena *arena)
{
    pd_err err = PD_ERR_INIT;
    static const char text[] = "{\"kind\":\"train\",\"step\":10,\"epoch\":0,\"loss\":2.5,\"lr\":0.1}\n"
                               "{\"kind\":\"val\",\"step\":10,\"epoch\":0,\"loss\":3,\"note\":\"x\"}\n"
                               "{\"kind\":\"train\",\"step\":20,\"epoch\":1,\"loss\":null,\"lr\":0.01}\n"
                               "{\"kind\":\"train\",\"step\":30,\"epo";
    PD_CHECK_OK(pd_file_write(in_dir("log.jsonl"), text, strlen(text), &err));
    pd_log_series *series = NULL;
    size_t n = 0;
    PD_CHECK_OK(pd_log_read(&series, &n, in_dir("log.jsonl"), arena, &err));
    PD_CHECK_INT(n, 3);
    const pd_log_series *loss = pd_log_find(series, n, "train", "loss"), *val = pd_log_find(series, n, "val", "loss");
    PD_CHECK(loss == series && loss->count == 2 && loss->points[0].value == 2.5 && isnan(loss->points[1].value));
    PD_CHECK(loss->points[1].step == 20 && loss->points[1].epoch == 1);
    PD_CHECK(val && val->count == 1 && val->points[0].value == 3);
    PD_CHECK(pd_log_find(series, n, "train", "lr")->points[1].value == 0.01);
    PD_CHECK(!pd_log_find(series, n, "val", "note"));
    PD_CHECK_OK(pd_file_write(in_dir("bad.jsonl"), "{\"a\":1}\n[1]\n", 12, &err));
    PD_CHECK_FAILS(pd_log_read(&series, &n, in_dir("bad.jsonl"), arena, &err), PD_EFORMAT,
                   "bad.jsonl:2: expected one JSON object");
    PD_CHECK_OK(pd_file_write(in_dir("bad.jsonl"), "{\"a\":1}\n{\"a\":}\n", 15, &err));
    PD_CHECK_FAILS(pd_log_read(&series, &n, in_dir("bad.jsonl"), arena, &err), PD_EFORMAT, "bad.jsonl:2: ");
    PD_CHECK_INT(n, 3);
    remove_all(arena);
}

int main(void)
{
    pd_arena *arena = pd_arena_new();
    if (!pd_test_dir(dir, "log") || !arena) return 1;
    test_tensorboard(arena);
    test_lines(arena);
    test_read(arena);
    PD_CHECK(rmdir(dir) == 0);
    pd_arena_free(arena);
    return pd_test_end();
}
