/* pd_demo: calls the programs one after the other, stops where one fails, and makes table and report of what they left.
 * The programs are stand-ins here, beside a copy of pd_demo, and what they would leave is written beforehand. */
#include "engine/file.h"
#include "tests/pd_test.h"

#include <stdarg.h>
#include <sys/wait.h>

static pd_arena *arena;
static char dir[256];

__attribute__((format(printf, 1, 2))) static int shell(const char *format, ...)
{
    char command[4096];
    va_list args;
    va_start(args, format);
    vsnprintf(command, sizeof command, format, args);
    va_end(args);
    const int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static const char *text_of(const char *name)
{
    pd_err err = PD_ERR_INIT;
    char path[600];
    pd_bytes text = {(const unsigned char *)"", 0};
    snprintf(path, sizeof path, "%s/%s", dir, name);
    PD_CHECK_OK(pd_file_read(&text, path, 0, arena, &err));
    return (const char *)text.data;
}

static void write_file(const char *name, const char *text)
{
    pd_err err = PD_ERR_INIT;
    char path[600];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    PD_CHECK_OK(pd_file_write(path, text, strlen(text), &err));
}

/* Stand-ins write their name and arguments to "calls"; the one called `failing` exits with 1. */
static int run(const char *failing)
{
    PD_CHECK_INT(shell("cd '%s' && rm -f calls && for p in make_shapes cls_train det_train fold detect; do "
                       "printf '#!/bin/sh\necho pd_%%s \"$@\" >>calls\n[ %%s != %s ]\n' $p $p >bin/pd_$p && "
                       "chmod +x bin/pd_$p; done",
                       dir, failing),
                 0);
    return shell("cd '%s' && bin/pd_demo run --seed 7 --configs configs >out 2>err", dir);
}

static void prepare(void)
{
    static const char *const results =
        "[{\"image_id\": 3, \"category_id\": 5, \"bbox\": [10, 10, 40, 40], \"score\": 0.9}]";
    PD_CHECK_INT(shell("cd '%s' && mkdir -p bin configs run/cls run/det run/pictures run/shapes/coco/annotations && "
                       "cp '%s/pd_demo' bin/ && printf model >run/det/best.safetensors && "
                       "printf model >run/folded.safetensors",
                       dir, PD_BIN_DIR),
                 0);
    write_file(
        "run/shapes/coco/annotations/instances_val.json",
        "{\"images\": [{\"id\": 3, \"width\": 100, \"height\": 80, \"file_name\": \"a.png\"}], \"annotations\": ["
        "{\"id\": 1, \"image_id\": 3, \"category_id\": 5, \"bbox\": [10, 10, 40, 40], \"area\": 1600, \"iscrowd\": 0}"
        "], \"categories\": [{\"id\": 5, \"name\": \"star\"}]}");
    write_file("run/results.json", results);
    write_file("run/results_folded.json", results);
    write_file("run/cls/log.jsonl", "{\"kind\": \"train\", \"step\": 5, \"loss\": 1.5}\n"
                                    "{\"kind\": \"val\", \"step\": 5, \"top1\": 80}\n");
    write_file("run/det/log.jsonl", "{\"kind\": \"train\", \"step\": 5, \"loss_cls\": 1, \"loss_bbox\": 2}\n"
                                    "{\"kind\": \"val\", \"step\": 5, \"AP\": 0.25, \"AP50\": 0.5}\n");
}

static void test_order(void)
{
    PD_CHECK_INT(run("none"), 0);
    const char *at = text_of("calls");
    static const char *const calls[] = {
        "pd_make_shapes run/shapes --seed 7 ",
        "pd_cls_train configs/demo_cls_pd_a_r18.json -d run/shapes/imagenet ",
        "pd_det_train configs/demo_retina_pd_a_r18.json --backbone run/cls/best.safetensors ",
        "pd_fold run/det/best.safetensors -o run/folded.safetensors ",
        "pd_detect run/det/best.safetensors ",
        "pd_detect run/folded.safetensors "};
    for (size_t i = 0; i < sizeof calls / sizeof *calls && at; i++) {
        PD_ROW(calls[i]);
        PD_CHECK(!strncmp(at, calls[i], strlen(calls[i])));
        at = strchr(at, '\n');
        at = at ? at + 1 : NULL;
    }
    PD_ROW("");
    PD_CHECK(at && !*at);
}

/* One medium object, found exactly. */
static void test_table(void)
{
    const char *out = text_of("out");
    PD_CHECK(strstr(out, "the same, folded                1.000    1.000    1.000        -    1.000        -     0 MB\n"));
    PD_CHECK(strstr(out, "open run/report.html"));
    const char *page = text_of("run/report.html");
    PD_CHECK(strstr(page, "the same, folded") && strstr(page, "AP on the validation set"));
}

static void test_failures(void)
{
    PD_CHECK_INT(run("det_train"), 1);
    PD_CHECK(strstr(text_of("err"), "pd_det_train failed"));
    PD_CHECK(!strstr(text_of("calls"), "pd_fold"));
    PD_CHECK_INT(run("none"), 0);
    PD_CHECK_INT(shell("cd '%s' && rm bin/pd_fold && bin/pd_demo run --configs configs >out 2>err", dir), 1);
    PD_CHECK(strstr(text_of("err"), "pd_fold: cannot start"));
    PD_CHECK_INT(shell("cd '%s' && bin/pd_demo run --configs nowhere >out 2>err", dir), 1);
    PD_CHECK(strstr(text_of("err"), "nowhere: no configurations there"));
}

int main(void)
{
    if (!pd_file_exists(PD_BIN_DIR "/pd_demo")) {
        PD_SKIP("pd_demo is not built");
        return pd_test_end();
    }
    arena = pd_arena_new();
    pd_test_dir(dir, "demo");
    prepare();
    test_order();
    test_table();
    test_failures();
    PD_CHECK_INT(shell("rm -rf '%s'", dir), 0);
    pd_arena_free(arena);
    return pd_test_end();
}
