/* pd_coco_eval as a user meets it: what it prints and where, what it writes, how it ends. */
#include "engine/file.h"
#include "engine/json.h"
#include "tests/pd_test.h"

#include <sys/wait.h>

#define CASE(name) PD_GOLDEN "/coco-eval/" name "/gt.json " PD_GOLDEN "/coco-eval/" name "/dt.json "

static char folder[256], out[1 << 16], errors[1 << 16];

static void read_text(char *text, size_t room, const char *name)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *const f = fopen(path, "r");
    text[f ? fread(text, 1, room - 1, f) : 0] = '\0';
    if (f) fclose(f);
}

/* Runs the program; its standard output and error are then in out and errors. Returns its exit code. */
static int run(const char *arguments)
{
    char command[4096];
    snprintf(command, sizeof command, "cd '%s' && '%s/pd_coco_eval' %s >out 2>errors", folder, PD_BIN_DIR, arguments);
    const int status = system(command);
    read_text(out, sizeof out, "out");
    read_text(errors, sizeof errors, "errors");
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static size_t lines_of(const char *text)
{
    size_t n = 0;
    for (; *text; text++) n += *text == '\n';
    return n;
}

/* Standard output is pycocotools' summary and nothing else; --json holds the numbers bit for bit. */
static void test_summary(void)
{
    pd_err err = PD_ERR_INIT;
    pd_json_doc *expected = NULL, *json = NULL;
    char path[300];
    PD_CHECK_OK(pd_json_read(&expected, PD_GOLDEN "/coco-eval/limits_1_10_300/expected.json", 0, &err));
    PD_CHECK_INT(run(CASE("limits_1_10_300") "--max-dets 1,10,300 --json out.json --dump-arrays arrays"), 0);
    const char *at = out;
    for (const pd_json *line = pd_json_first(pd_json_member(pd_json_root(expected), "summary")); line;
         line = pd_json_next(line)) {
        const char *const text = pd_json_string(line);
        PD_CHECK(!strncmp(at, text, strlen(text)) && at[strlen(text)] == '\n');
        at += strlen(text) + 1;
    }
    PD_CHECK(*at == '\0');
    PD_CHECK(strstr(errors, "AP is looked up at 100 detections, which is not among the limits; at 300 it is 0.610"));
    snprintf(path, sizeof path, "%s/out.json", folder);
    PD_CHECK_OK(pd_json_read(&json, path, 0, &err));
    const pd_json *const root = pd_json_root(json), *v = pd_json_first(pd_json_member(root, "stats"));
    for (const pd_json *want = pd_json_first(pd_json_member(pd_json_root(expected), "stats")); want && v;
         want = pd_json_next(want)) {
        PD_CHECK(pd_json_number(v) == pd_json_number(want));
        v = pd_json_next(v);
    }
    PD_CHECK(pd_json_number(pd_json_member(root, "AP_max")) > 0.6);
    pd_json_close(json);
    pd_json_close(expected);
    snprintf(path, sizeof path, "%s/arrays", folder);
    pd_bytes arrays = {0};
    PD_CHECK_OK(pd_file_map(&arrays, path, &err));
    PD_CHECK_INT(arrays.size, 8 * (2 * 10 * 101 * 4 * 3 + 10 * 4 * 3));
    pd_file_unmap(&arrays);
}

static void test_tables(void)
{
    PD_CHECK_INT(run(CASE("rules") PD_GOLDEN "/coco-eval/rules/dt.json --quiet --markdown --classwise"), 0);
    PD_CHECK(strstr(out, "|     AP |   AP50 |   AP75 |    APs |    APm |    APl |\n|-"));
    PD_CHECK(strstr(out, "| kind13   |   0.005 |"));
    PD_CHECK_STR(errors, "");
    PD_CHECK_INT(
        run(CASE(
            "segm_mini") "--quiet --iou-type segm --curves --tide --confusion 0.2 --bootstrap 20 --html page.html"),
        0);
    PD_CHECK(strstr(out, "Best F1 at IoU 0.50") && strstr(out, "TIDE at IoU 0.50") &&
             strstr(out, "95 % intervals of 20"));
    static char page[1 << 20];
    read_text(page, sizeof page, "page.html");
    PD_CHECK(strstr(page, "<!doctype html>") && strstr(page, "</html>") && !strstr(page, "http"));
    PD_CHECK(strstr(page, "Mistaken most often") && strstr(page, "Where AP is lost"));
    PD_CHECK_INT(run(CASE("rules") PD_GOLDEN "/coco-eval/rules/dt.json --quiet --bootstrap 20 --html page.html"), 0);
    PD_CHECK(strstr(out, "on the same resamples"));
    read_text(page, sizeof page, "page.html");
    PD_CHECK(strstr(page, "against the first") && strstr(page, "+0.0000 to +0.0000, better in 50 %"));
}

static void test_failures(void)
{
    static const struct {
        const char *arguments;
        int code;
        const char *message;
    } rows[] = {
        {CASE("unknown_image"), 1, "1 of 2 records are of images that"},
        {CASE("object_without_area"), 1, "annotations[0] (id 1): has no area"},
        {"nowhere.json nothing.json", 1, "pd_coco_eval: nowhere.json: cannot open: No such file or directory"},
        {CASE("rules") "--cat-ids 77", 1, "category 77 is not in"},
        {CASE("rules") "--area-rng [1]", 2, "expected a list of pairs"},
        {CASE("rules") "--iou-type mask", 2, "expected bbox, segm or keypoints"},
        {CASE("rules") "--iou-thrs 0.5,75", 2, "--iou-thrs: 75 is not above 0 and at most 1"},
        {CASE("rules") "--sigmas 0.1,0.1", 2, "--sigmas goes with --iou-type keypoints"},
        {CASE("rules") "--boundary 0.02", 1, "boundaries are for masks"},
        {CASE("rules") "--curves --iou-thrs 0.6", 1, "curves at IoU 0.5, which is not among the thresholds"},
        {CASE("rules") "--max-dets 0", 2, "--max-dets: 0 is not a whole number of 1 or more"},
        {CASE("keypoints") "--iou-type keypoints --tide", 1, "masks"},
        {CASE("rules") "--html nowhere/x.html", 1, "nowhere/x.html: cannot create"},
        {PD_GOLDEN "/coco-eval/rules/gt.json", 2, "a results file is wanted"},
        {"--no-such-option", 2, "no-such-option"},
        {CASE("rules") "--images .", 2, "--images goes with --check"},
        {"--check " PD_GOLDEN "/coco-eval/rules/gt.json", 1, "2 errors"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        PD_ROW(rows[i].arguments);
        PD_CHECK_INT(run(rows[i].arguments), rows[i].code);
        PD_CHECK_MSG(strstr(errors, rows[i].message), "standard error is \"%s\", expected \"%s\"", errors,
                     rows[i].message);
        if (rows[i].code == 1) PD_CHECK_INT(lines_of(errors), 1);
        if (!strstr(rows[i].arguments, "--check")) PD_CHECK_STR(out, "");
    }
    PD_ROW("");
    PD_CHECK_INT(run(CASE("unknown_image") "--skip-unknown-images --quiet"), 0);
    PD_CHECK_INT(run(CASE("object_without_area") "--area-from-box --quiet"), 0);
    PD_CHECK_INT(run("--check " CASE("segm_mini")), 0);
    PD_CHECK_INT(run("--help"), 0);
    PD_CHECK(strstr(out, "Usage: pd_coco_eval"));
}

int main(void)
{
    if (!pd_file_exists(PD_BIN_DIR "/pd_coco_eval")) {
        PD_SKIP("pd_coco_eval has not been built");
        return pd_test_end();
    }
    PD_CHECK(pd_test_dir(folder, "coco_program"));
    test_summary();
    test_tables();
    test_failures();
    char command[400];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    PD_CHECK(system(command) == 0);
    return pd_test_end();
}
