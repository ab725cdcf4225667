/* The run's page: complete, self-contained, its numbers readable; texts cannot break out of it. */
#include "engine/file.h"
#include "engine/json.h"
#include "engine/log.h"
#include "tests/pd_test.h"
#include "tools/report.h"

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

static char dir[256];

static const char *in_dir(char path[400], const char *name)
{
    snprintf(path, 400, "%s/%s", dir, name);
    return path;
}

static char *page(pd_arena *arena)
{
    pd_err err = PD_ERR_INIT;
    char path[400];
    pd_bytes b = {(const unsigned char *)"", 0};
    PD_CHECK_OK(pd_file_read(&b, in_dir(path, "report.html"), 0, arena, &err));
    return (char *)(uintptr_t)b.data;
}

static size_t count(const char *text, const char *part)
{
    size_t n = 0;
    for (; (text = strstr(text, part)); text++) n++;
    return n;
}

/* The numbers of chart number n, parsed. */
static pd_json_doc *chart(const char *text, int n)
{
    static const char open[] = "<script type='application/json'>";
    pd_err err = PD_ERR_INIT;
    pd_json_doc *doc = NULL;
    for (; text && n >= 0; n--) text = (text = strstr(text, open)) ? text + strlen(open) : NULL;
    const char *end = text ? strstr(text, "</script>") : NULL;
    PD_CHECK(end);
    if (end) PD_CHECK_OK(pd_json_parse(&doc, "chart", text, (size_t)(end - text), &err));
    return doc;
}

static void test_run(pd_arena *arena)
{
    pd_err err = PD_ERR_INIT;
    char path[400], path2[400];
    pd_log *log = NULL;
    PD_CHECK_OK(pd_log_open(&log, dir, -1, NULL, 1700000000, &err));
    for (int i = 1; i <= 3000; i++) {
        const pd_log_value v[] = {{"epoch", i / 1000.0}, {"loss", i == 7 ? NAN : 100.0 / i},
                                  {"lr", 0.1},           {"s0.loss_cls", 1},
                                  {"images_per_s", 50},  {"odd", 3}};
        PD_CHECK_OK(pd_log_write(log, "train", i, 1700000000, v, 6, &err));
    }
    const pd_log_value v[] = {{"epoch", 2}, {"loss", 0.5}, {"top1", 71.5}, {"AP", 0.25}};
    PD_CHECK_OK(pd_log_write(log, "val", 3000, 1700000000, v, 4, &err));
    PD_CHECK_OK(pd_log_close(log, &err));
    PD_CHECK_OK(pd_file_write(in_dir(path, "config.json"), "{\"a\": \"</pre><b>\"}", 18, &err));
    PD_CHECK_OK(pd_file_write(in_dir(path, "dot.png"), "\x89PNG\r\n\x1a\n1234ab", 14, &err));

    const pd_report_fact facts[] = {{"best \"top-1\"", "71.5 & more"}};
    const char *const columns[] = {"class", "AP"}, *const cells[] = {"</script>cat", "36.2", "dog", "-"};
    const pd_report_table table = {"Per class", columns, 2, cells, 2};
    const pd_report_image image = {path, "it's <one>"};
    const double x[] = {1, 2, 3}, y[] = {1, 10, 100}, bad[] = {NAN, NAN, NAN};
    const pd_report_curve curves[] = {{"</script><b>", x, y, 3, false}, {"gone", x, bad, 3, false}};
    const pd_report_chart charts[] = {{"Own", "x", curves, 2, true}, {"Nothing", "x", &curves[1], 1, false}};
    const pd_report report = {.title = "run <1>",
                              .facts = facts,
                              .n_facts = 1,
                              .tables = &table,
                              .n_tables = 1,
                              .images = &image,
                              .n_images = 1,
                              .charts = charts,
                              .n_charts = 2};
    PD_CHECK_OK(pd_report_run(dir, &report, &err));
    char *html = page(arena);
    PD_CHECK(strstr(html, "<title>run &lt;1&gt;</title>"));
    PD_CHECK(strstr(html, "<b>71.5 &amp; more</b><span>best &quot;top-1&quot;</span>"));
    PD_CHECK(strstr(html, "<th class='n'>AP</th>") &&
             strstr(html, "<td>&lt;/script&gt;cat</td><td class='n'>36.2</td>"));
    PD_CHECK(strstr(html, "src='data:image/png;base64,iVBORw0KGgoxMjM0YWI='") && strstr(html, "it&#39;s &lt;one&gt;"));
    PD_CHECK(strstr(html, "<pre>{&quot;a&quot;: &quot;&lt;/pre&gt;&lt;b&gt;&quot;}</pre>"));
    PD_CHECK(!strstr(html, "http") && !strstr(html, "Nothing") && !strstr(html, "nan") && !strstr(html, "inf"));
    static const char *const titles[] = {"Loss",          "Parts of the loss", "Accuracy", "Average precision",
                                         "Learning rate", "Images per second", "odd",      "Own"};
    PD_CHECK_INT(count(html, "<figure class='chart'>"), 8);
    const char *at = html;
    for (int i = 0; i < 8; i++) {
        char caption[64];
        snprintf(caption, sizeof caption, "<figcaption>%s</figcaption>", titles[i]);
        PD_ROW(titles[i]);
        at = at ? strstr(at, caption) : NULL; /* in this order */
        PD_CHECK(at);
        pd_json_close(chart(html, i));
    }
    PD_ROW("");
    PD_CHECK_INT(count(html, "<script"), 9);
    PD_CHECK_INT(count(html, "</script>"), 9);

    pd_json_doc *doc = chart(html, 0);
    const pd_json *list = NULL, *xs = NULL, *ys = NULL;
    PD_CHECK_OK(pd_json_get_array(&list, doc, pd_json_root(doc), "curves", &err));
    PD_CHECK_INT(pd_json_count(list), 2);
    PD_CHECK_OK(pd_json_get_array(&xs, doc, pd_json_first(list), "x", &err));
    PD_CHECK_OK(pd_json_get_array(&ys, doc, pd_json_first(list), "y", &err));
    PD_CHECK(pd_json_count(xs) == pd_json_count(ys) && pd_json_count(xs) <= 800 && pd_json_count(xs) > 300);
    PD_CHECK(pd_json_number(pd_json_first(ys)) == 100); /* the average begins where the curve begins */
    double before = 0, last = 0;
    for (const pd_json *p = pd_json_first(xs); p; p = pd_json_next(p)) {
        PD_CHECK(pd_json_number(p) > before);
        before = pd_json_number(p);
    }
    for (const pd_json *p = pd_json_first(ys); p; p = pd_json_next(p)) last = pd_json_number(p);
    PD_CHECK_NEAR(last, 100.0 / 3000, 2e-3); /* the moving average lags a little */
    PD_CHECK(last > 100.0 / 3000);
    pd_json_close(doc);

    /* an image that is none ends it, and the old page stays */
    PD_CHECK_OK(pd_file_write(in_dir(path2, "x.txt"), "hello hello", 11, &err));
    const pd_report_image wrong = {path2, NULL};
    const pd_report again = {.title = "new", .images = &wrong, .n_images = 1};
    PD_CHECK_FAILS(pd_report_run(dir, &again, &err), PD_EFORMAT, "x.txt: neither a JPEG nor a PNG file");
    PD_CHECK(strstr(page(arena), "run &lt;1&gt;"));
}

/* One point, equal values, negative ones, more curves than colours: no division by nothing. */
static void test_edges(pd_arena *arena)
{
    pd_err err = PD_ERR_INIT;
    char path[400];
    const double one[] = {5}, x[] = {0, 1, 2}, same[] = {2, 2, 2}, zero[] = {0, 0, 0}, minus[] = {-3, NAN, -1},
                 huge[] = {1e-30, 1e30, 1};
    pd_report_curve many[10];
    for (int i = 0; i < 10; i++) many[i] = (pd_report_curve){"c", x, same, 3, true};
    const pd_report_curve curves[] = {{"one", one, one, 1, true},
                                      {"same", x, same, 3, false},
                                      {"zero", x, zero, 3, false},
                                      {"minus", x, minus, 3, false},
                                      {"huge", x, huge, 3, false}};
    const pd_report_chart charts[] = {
        {"one", "x", &curves[0], 1, false},     {"same", "x", &curves[1], 1, false},
        {"zero", "x", &curves[2], 1, true},     {"minus", "x", &curves[3], 1, true},
        {"huge", "x", &curves[4], 1, false},    {"huge log", "x", &curves[4], 1, true},
        {"same log", "x", &curves[1], 1, true}, {"many", "x", many, 10, false},
        {"none", "x", NULL, 0, false},
    };
    const pd_report report = {.title = "edges", .charts = charts, .n_charts = sizeof charts / sizeof *charts};
    PD_CHECK_OK(pd_report_write(in_dir(path, "report.html"), &report, &err));
    const char *html = page(arena);
    PD_CHECK_INT(count(html, "<figure class='chart'>"), 8);
    PD_CHECK(!strstr(html, "nan") && !strstr(html, "inf") && strstr(html, "dash"));
    PD_CHECK(count(html, "<path class='grid'") >= 2 * 8);
}

/* A disk that is full, as far as a program can play it: the page fails and nothing stays. */
static void test_full_disk(void)
{
    pd_err err = PD_ERR_INIT;
    char path[400];
    struct rlimit before, small;
    PD_CHECK(getrlimit(RLIMIT_FSIZE, &before) == 0);
    small = before;
    signal(SIGXFSZ, SIG_IGN);
    for (rlim_t limit = 1000; limit < 20000; limit += 4099) {
        small.rlim_cur = limit;
        PD_CHECK(setrlimit(RLIMIT_FSIZE, &small) == 0);
        char text[20001];
        memset(text, 'x', sizeof text - 1);
        text[sizeof text - 1] = '\0';
        const pd_report report = {.title = "full", .config = text};
        const pd_status status = pd_report_write(in_dir(path, "full.html"), &report, &err);
        PD_CHECK(setrlimit(RLIMIT_FSIZE, &before) == 0);
        PD_CHECK_MSG(status == PD_EIO && strstr(err.text, "full.html: cannot write"), "got \"%s\"", err.text);
        PD_CHECK(!pd_file_exists(path));
    }
}

int main(void)
{
    pd_arena *arena = pd_arena_new();
    char cmd[300];
    if (!arena || !pd_test_dir(dir, "report")) return 1;
    test_run(arena);
    test_edges(arena);
    test_full_disk();
    snprintf(cmd, sizeof cmd, "rm -r '%s'", dir);
    PD_CHECK(system(cmd) == 0);
    pd_arena_free(arena);
    return pd_test_end();
}
