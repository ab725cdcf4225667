/* Command lines: every kind of option, wrong usage and its messages, help, stopping; progress on a terminal and on a
 * pipe. */
#include "tests/pd_test.h"
#include "tests/programs.h"
#include "tools/cli.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

static char captured[16384];

/* Sends a standard stream into a file until release() reads it into `captured`. */
typedef struct {
    int stream, saved;
    FILE *file;
} capture;

static capture grab(int stream)
{
    fflush(stdout);
    fflush(stderr);
    capture c = {stream, dup(stream), tmpfile()};
    dup2(fileno(c.file), stream);
    return c;
}

static const char *release(capture c)
{
    fflush(stdout);
    fflush(stderr);
    dup2(c.saved, c.stream);
    close(c.saved);
    rewind(c.file);
    captured[fread(captured, 1, sizeof captured - 1, c.file)] = '\0';
    fclose(c.file);
    return captured;
}

typedef struct {
    bool json, batch_given;
    const char *output;
    pd_strings inits;
    int batch, epochs;
    int64_t seed;
    double thr;
    pd_numbers iou;
    int size[2];
    pd_cli_args args;
    int code;
    char text[16384];
} outcome;

/* Parses a command line given as one string; words are separated by one blank. */
static outcome parse(const char *line, int min_args, int max_args, int stream)
{
    static outcome o;
    static char words[1024];
    char *argv[32] = {"pd_x"};
    int argc = 1;
    snprintf(words, sizeof words, "%s", line);
    for (char *rest = words, *word; (word = strsep(&rest, " "));)
        if (*word) argv[argc++] = strcmp(word, "EMPTY") ? word : "";
    o = (outcome){.batch = 4, .epochs = -1, .thr = 0.5, .size = {7, 7}};
    const pd_opt opts[] = {
        PD_OPT_FLAG('j', "json", &o.json, "print JSON"),
        PD_OPT_STRING('o', "output", "FILE", &o.output, "where results go"),
        PD_OPT_STRINGS(0, "init", "FILE", &o.inits, "weights to start from"),
        {.letter = 'b',
         .name = "batch-size",
         .arg = "N",
         .type = PD_OPT_T_INT,
         .to = &o.batch,
         .min = 1,
         .max = 64,
         .given = &o.batch_given,
         .help = "images of a step"},
        PD_OPT_INT64(0, "seed", "N", &o.seed, 0, 0, "seed"),
        PD_OPT_DOUBLE(0, "score-thr", "X", &o.thr, 0, 1, "least score"),
        PD_OPT_NUMBERS(0, "iou-thrs", "LIST", &o.iou, "thresholds"),
        PD_OPT_INT(0, "epochs", "N", &o.epochs, 1, 99, "passes"),
        PD_OPT_SIZE(0, "input", "SIZE", &o.size, "size of the input"),
        PD_OPT_FLAG(0, "a-very-long-name-of-an-option", &o.json, "help on its own line"),
    };
    const pd_cli cli = {.program = "pd_x",
                        .usage = "MODEL IMAGE...",
                        .about = "Does a thing.",
                        .example = "pd_x m i",
                        .opts = opts,
                        .n_opts = sizeof opts / sizeof *opts,
                        .common = PD_CLI_SET | PD_CLI_DEVICE | PD_CLI_THREADS | PD_CLI_QUIET,
                        .min_args = min_args,
                        .max_args = max_args};
    const capture c = grab(stream);
    o.code = pd_cli_parse(&o.args, &cli, argc, argv);
    snprintf(o.text, sizeof o.text, "%s", release(c));
    if (o.code >= 0) return o;
    outcome copy = o; /* values stay, lists are freed: only their first elements are looked at before */
    copy.args.cli = NULL;
    PD_CHECK(o.args.cli == &cli);
    if (!strcmp(line, "-j a --init x -o out.json --init=y --iou-thrs 0.5,0.75,1e-3 b --set k=1 --set l=2 -- -c")) {
        PD_CHECK(o.inits.count == 2 && !strcmp(o.inits.items[0], "x") && !strcmp(o.inits.items[1], "y"));
        PD_CHECK(o.iou.count == 3 && o.iou.items[1] == 0.75 && o.iou.items[2] == 1e-3);
        PD_CHECK(o.args.set.count == 2 && !strcmp(o.args.set.items[1], "l=2"));
        PD_CHECK(o.args.n_args == 3 && !strcmp(o.args.args[0], "a") && !strcmp(o.args.args[2], "-c"));
    }
    pd_cli_free(&o.args);
    return copy;
}

static void test_values(void)
{
    outcome o =
        parse("-j a --init x -o out.json --init=y --iou-thrs 0.5,0.75,1e-3 b --set k=1 --set l=2 -- -c", 1, -1, 2);
    PD_CHECK(o.code == -1 && o.json && o.batch == 4 && !o.batch_given && o.thr == 0.5 && o.size[0] == 7);
    PD_CHECK_STR(o.text, "");
    o = parse("m -b16 --seed -9007199254740993 --score 1 --input 1280x800 --device cuda:1 --threads 3 --quiet", 1, 1,
              2);
    PD_CHECK(o.code == -1 && o.batch == 16 && o.batch_given && o.seed == -9007199254740993 && o.thr == 1);
    PD_CHECK(o.size[0] == 1280 && o.size[1] == 800 && o.args.threads == 3 && o.args.quiet);
    PD_CHECK_STR(o.args.device, "cuda:1");
    o = parse("m --input 224", 1, 1, 2);
    PD_CHECK(o.code == -1 && o.size[0] == 224 && o.size[1] == 224 && !o.args.quiet && o.args.threads == 0);
    PD_CHECK_STR(o.args.device, "auto");
    o = parse("", 0, 0, 2);
    PD_CHECK(o.code == -1 && o.args.n_args == 0);
}

static const struct {
    const char *line, *message;
} wrong[] = {
    {"m --nope", "pd_x: unknown option --nope\nTry 'pd_x --help'.\n"},
    {"m --bath-size 3", "pd_x: unknown option --bath-size (did you mean --batch-size?)\n"},
    {"m --bath-size=3", "unknown option --bath-size (did you mean --batch-size?)\n"},
    {"m -jz", "pd_x: unknown option -z\n"},
    {"m --s 3", "pd_x: --s is ambiguous\n"},
    {"m --json=3", "pd_x: --json takes no value\n"},
    {"m -o", "pd_x: -o needs a value\n"},
    {"m --output", "pd_x: --output needs a value (FILE)\n"},
    {"m -b 0", "pd_x: --batch-size: \"0\" is no whole number from 1 to 64\n"},
    {"m -b 65", "\"65\" is no whole number from 1 to 64\n"},
    {"m -b 4x", "\"4x\" is no whole number"},
    {"m -b EMPTY", "\"\" is no whole number"},
    {"m -b 99999999999999999999", "is no whole number from 1 to 64"},
    {"m --score-thr 1.01", "pd_x: --score-thr: \"1.01\" is no number from 0 to 1\n"},
    {"m --score-thr nan", "\"nan\" is no number from 0 to 1\n"},
    {"m --score-thr 0.5,", "\"0.5,\" is no number"},
    {"m --iou-thrs 0.5,,1", "--iou-thrs: \"\" in \"0.5,,1\" is no number (expected numbers with commas between)\n"},
    {"m --iou-thrs 0.5,inf", "\"inf\" in \"0.5,inf\" is no number"},
    {"m --iou-thrs 1 --iou-thrs x", "\"x\" in \"x\""},
    {"m --input 12x", "--input: \"12x\" is no size, as 224 or 1280x800\n"},
    {"m --input 0", "\"0\" is no size"},
    {"m --device gpu", "--device: \"gpu\" is no device (expected cpu, cuda, cuda:N or auto)\n"},
    {"m --device cuda:", "\"cuda:\" is no device"},
    {"m --threads -1", "--threads: \"-1\" is no whole number from 0 to 4096\n"},
    {"", "pd_x: too few arguments: expected MODEL IMAGE...\n"},
    {"m two three", "pd_x: unexpected argument \"three\": expected MODEL IMAGE...\n"},
    {"--set a=1 --init x --nope m", "unknown option --nope"},
};

static void test_wrong(void)
{
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        PD_ROW(wrong[i].line);
        const outcome o = parse(wrong[i].line, 1, 2, 2);
        PD_CHECK_INT(o.code, 2);
        PD_CHECK_MSG(strstr(o.text, wrong[i].message), "got \"%s\"", o.text);
        PD_CHECK(strstr(o.text, "Try 'pd_x --help'.\n"));
    }
    PD_ROW("");
}

static void test_help(void)
{
    outcome o = parse("--help --nope", 1, 1, 1);
    PD_CHECK_INT(o.code, 0);
    PD_CHECK_STR(o.text, "Usage: pd_x [options] MODEL IMAGE...\n"
                         "Does a thing.\n\n"
                         "Options:\n"
                         "  -j, --json                  print JSON\n"
                         "  -o, --output FILE           where results go\n"
                         "      --init FILE             weights to start from\n"
                         "  -b, --batch-size N          images of a step [4]\n"
                         "      --seed N                seed\n"
                         "      --score-thr X           least score [0.5]\n"
                         "      --iou-thrs LIST         thresholds\n"
                         "      --epochs N              passes\n"
                         "      --input SIZE            size of the input [7x7]\n"
                         "      --a-very-long-name-of-an-option\n"
                         "                              help on its own line\n"
                         "      --set KEY=VALUE         override a key of the configuration (JSON value); repeatable\n"
                         "      --device DEVICE         cpu, cuda, cuda:N or auto [auto]\n"
                         "      --precision TYPE        fp32, tf32, fp16 or bf16 (CPU: fp32; CUDA: bf16 unless given)\n"
                         "      --threads N             compute threads; 0: all processors\n"
                         "      --quiet                 no progress, only results and errors\n"
                         "  -h, --help                  show this and leave\n"
                         "      --version               show the version and leave\n\n"
                         "Example:\n"
                         "  pd_x m i\n");
    o = parse("-h", 1, 1, 1);
    PD_CHECK_INT(o.code, 0);
    o = parse("--version", 1, 1, 1);
    PD_CHECK_INT(o.code, 0);
    PD_CHECK_STR(o.text, "pd_x (ParaDise) " PD_VERSION "\n");
}

static void test_failures(void)
{
    const pd_cli cli = {.program = "pd_x"};
    pd_err err = PD_ERR_INIT;
    PD_FAIL(&err, PD_EIO, "%s", "a.json: cannot open");
    capture c = grab(2);
    int code = pd_cli_fail(&cli, &err);
    PD_CHECK_STR(release(c), "pd_x: a.json: cannot open\n");
    PD_CHECK_INT(code, 1);
    err = (pd_err){PD_ESTOP, ""};
    c = grab(2);
    code = pd_cli_fail(&cli, &err);
    PD_CHECK_STR(release(c), "pd_x: stopped\n");
    PD_CHECK_INT(code, 130);
}

static void test_stop(void)
{
    PD_CHECK(!pd_cli_stop_asked());
    pd_cli_catch_stop();
    PD_CHECK(!pd_cli_stop_asked());
    raise(SIGTERM);
    PD_CHECK(pd_cli_stop_asked());
    struct sigaction now;
    PD_CHECK(sigaction(SIGTERM, NULL, &now) == 0 && now.sa_handler == SIG_DFL);
    signal(SIGINT, SIG_DFL);
}

static void progress(bool quiet, int64_t total)
{
    pd_progress p;
    pd_progress_begin(&p, "train", "images", total, quiet);
    for (int i = 1; i <= 3; i++) {
        p.next = 0; /* as if time had passed */
        p.start -= 1;
        pd_progress_update(&p, i * 10, "loss 1.5");
    }
    pd_progress_line(&p, "epoch %d done", 1);
    pd_progress_update(&p, 40, NULL);
    pd_progress_end(&p, 40);
}

static void test_progress(void)
{
    capture c = grab(2);
    progress(false, 100);
    const char *text = release(c);
    PD_CHECK(!strchr(text, '\r') && !strchr(text, '\033'));
    PD_CHECK_MSG(strstr(text, "train: 10/100 images  10%  10 images/s  9 s left  loss 1.5\n"), "%s", text);
    PD_CHECK(strstr(
        text, "train: 30/100 images  30%  10 images/s  7 s left  loss 1.5\nepoch 1 done\ntrain: 40 images in 3 s"));
    c = grab(2);
    progress(false, 0);
    PD_CHECK(strstr(release(c), "train: 10 images  10 images/s  loss 1.5\n"));
    c = grab(2);
    progress(true, 100);
    PD_CHECK_STR(release(c), "");

    const int terminal = posix_openpt(O_RDWR | O_NOCTTY);
    const char *name = terminal >= 0 && grantpt(terminal) == 0 && unlockpt(terminal) == 0 ? ptsname(terminal) : NULL;
    const int other = name ? open(name, O_RDWR | O_NOCTTY) : -1;
    if (other < 0) {
        PD_SKIP("no pseudo-terminals here");
        return;
    }
    setenv("TERM", "xterm", 1);
    fflush(stderr);
    const int saved = dup(2);
    dup2(other, 2);
    progress(false, 100);
    fflush(stderr);
    dup2(saved, 2);
    close(saved);
    size_t length = 0;
    fcntl(terminal, F_SETFL, O_NONBLOCK);
    for (ssize_t n; (n = read(terminal, captured + length, sizeof captured - 1 - length)) > 0;) length += (size_t)n;
    captured[length] = '\0';
    PD_CHECK(strstr(captured, "\rtrain [##----------------------] 10/100 images  10%  10 images/s"));
    PD_CHECK(strstr(captured, "\r\033[Kepoch 1 done\r\n\rtrain [#########---------------] 40/100"));
    PD_CHECK(strstr(captured, "\r\033[Ktrain: 40 images in 3 s"));
    for (char *line = strtok(captured, "\r\n"); line; line = strtok(NULL, "\r\n")) PD_CHECK(strlen(line) <= 80 + 3);
    close(other);
    close(terminal);

    char d[32];
    static const struct {
        double seconds;
        const char *text;
    } rows[] = {{0.2, "0 s"}, {59.6, "1:00"}, {187, "3:07"}, {8100, "2:15:00"}, {356400, "4 d 03 h"}, {NAN, "0 s"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pd_duration_text(d, rows[i].seconds);
        PD_CHECK_STR(d, rows[i].text);
    }
}

/* What a program finds wrong before it opens anything: 2, on standard error, with a hint at --help. */
static void test_programs(void)
{
    static const struct {
        const char *line, *message;
    } rows[] = {
        {"pd_detect no.safetensors", "pd_detect: no image is given\n"},
        {"pd_detect no.safetensors gt.json", "pd_detect: gt.json: --images DIR must say where its images are\n"},
        {"pd_detect no.safetensors gt.json a.jpg --images x", "pd_detect: gt.json: a COCO file must be the only input\n"},
        {"pd_detect no.safetensors a.jpg --raw y", "pd_detect: --input and --raw go together\n"},
        {"pd_detect no.safetensors --input x --raw y -o z", "pd_detect: -o and --draw go with images"},
    };
    pd_child c = {0};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        PD_ROW(rows[i].line);
        pd_child_run(&c, NULL, PD_BIN_DIR, "%s", rows[i].line);
        PD_CHECK_INT(c.code, 2);
        PD_CHECK_STR(c.out, "");
        PD_CHECK_MSG(strstr(c.err, rows[i].message) && strstr(c.err, "--help"), "%s", c.err);
    }
    pd_child_free(&c);
    PD_ROW("");
}

int main(void)
{
    test_values();
    test_wrong();
    test_help();
    test_failures();
    test_stop();
    test_progress();
    test_programs();
    return pd_test_end();
}
