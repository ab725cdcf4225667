#include "tools/cli.h"

#include "engine/config.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_VALUE 256 /* getopt's values of our options: above every letter */
#define HELP_COLUMN 30

/* ---- numbers ---- */

static bool bounded(double min, double max)
{
    return min != 0 || max != 0;
}

/* "from 1 to 9", "of 1 or more", "of at most 9": behind "a number"; "" without bounds. */
static const char *range_text(char out[80], double min, double max)
{
    const bool low = bounded(min, max) && min > -1e18, high = bounded(min, max) && max < 1e18;
    if (low && high)
        snprintf(out, 80, " from %.10g to %.10g", min, max);
    else if (low)
        snprintf(out, 80, " of %.10g or more", min);
    else if (high)
        snprintf(out, 80, " of at most %.10g", max);
    else
        out[0] = '\0';
    return out;
}

pd_status pd_cli_int(int64_t *out, const char *what, const char *text, int64_t min, int64_t max, pd_err *err)
{
    char *end, range[80];
    errno = 0;
    const long long v = strtoll(text, &end, 10);
    if (errno || end == text || *end || strchr(" \t\n+", *text) || v < min || v > max)
        return PD_FAIL(err, PD_EINVAL, "%s: \"%s\" is no whole number%s", what, text,
                       range_text(range, (double)min, (double)max));
    *out = v;
    return PD_OK;
}

pd_status pd_cli_double(double *out, const char *what, const char *text, double min, double max, pd_err *err)
{
    char *end, range[80];
    const double v = strtod(text, &end);
    if (end == text || *end || !isfinite(v) || strchr(" \t\n+", *text) || (bounded(min, max) && (v < min || v > max)))
        return PD_FAIL(err, PD_EINVAL, "%s: \"%s\" is no number%s", what, text, range_text(range, min, max));
    *out = v;
    return PD_OK;
}

pd_status pd_cli_numbers(pd_numbers *out, const char *what, const char *text, pd_err *err)
{
    size_t n = 1;
    for (const char *p = text; *p; p++) n += *p == ',';
    double *items = calloc(n, sizeof *items);
    char *copy = strdup(text);
    pd_status status = items && copy ? PD_OK : PD_FAIL(err, PD_ENOMEM, "out of memory");
    char *rest = copy;
    for (size_t i = 0; i < n && status == PD_OK; i++) {
        const char *item = strsep(&rest, ",");
        if (pd_cli_double(&items[i], what, item, 0, 0, NULL) != PD_OK)
            status = PD_FAIL(err, PD_EINVAL, "%s: \"%s\" in \"%s\" is no number (expected numbers with commas between)",
                             what, item, text);
    }
    free(copy);
    if (status == PD_OK)
        *out = (pd_numbers){items, n};
    else
        free(items);
    return status;
}

static pd_status parse_size(int out[2], const char *what, const char *text, const pd_opt *o, pd_err *err)
{
    const char *x = strchr(text, 'x');
    char first[32];
    int64_t a = 0, b = 0;
    snprintf(first, sizeof first, "%.*s", x ? (int)(x - text) : 31, text);
    if (pd_cli_int(&a, what, first, (int64_t)o->min, (int64_t)o->max, NULL) != PD_OK ||
        pd_cli_int(&b, what, x ? x + 1 : first, (int64_t)o->min, (int64_t)o->max, NULL) != PD_OK)
        return PD_FAIL(err, PD_EINVAL, "%s: \"%s\" is no size, as 224 or 1280x800", what, text);
    out[0] = (int)a;
    out[1] = (int)b;
    return PD_OK;
}

static pd_status push(pd_strings *list, const char *text, pd_err *err)
{
    PD_TRY(pd_grow((void *)&list->items, &list->room, list->count + 1, sizeof *list->items, err));
    list->items[list->count++] = text;
    return PD_OK;
}

/* ---- the table of all options ---- */

typedef struct table {
    pd_opt *all; /* the program's, then the common ones */
    size_t count, shown; /* the rest is taken and changes nothing */
    struct option *longs;
    char *letters;
    bool help, version;
} table;

static pd_status device_syntax(const char *text, pd_err *err)
{
    int64_t index;
    if (!strcmp(text, "auto") || !strcmp(text, "cpu") || !strcmp(text, "cuda")) return PD_OK;
    if (!strncmp(text, "cuda:", 5) && pd_cli_int(&index, "", text + 5, 0, 1023, NULL) == PD_OK) return PD_OK;
    return PD_FAIL(err, PD_EINVAL, "--device: \"%s\" is no device (expected cpu, cuda, cuda:N or auto)", text);
}

static bool make_table(table *t, pd_cli_args *args, const pd_cli *cli)
{
    const pd_opt common[] = {
        PD_OPT_STRINGS(0, "set", "KEY=VALUE", &args->set,
                       "override a key of the configuration (JSON value); repeatable"),
        PD_OPT_STRING(0, "device", "DEVICE", &args->device, "cpu, cuda, cuda:N or auto"),
        PD_OPT_STRING(0, "precision", "TYPE", &args->precision, "fp32, tf32, fp16 or bf16 (CPU: fp32; CUDA: bf16 unless given)"),
        PD_OPT_INT(0, "threads", "N", &args->threads, 0, 4096, "compute threads; 0: all processors"),
        PD_OPT_FLAG(0, "quiet", &args->quiet, "no progress, only results and errors"),
        PD_OPT_FLAG('h', "help", &t->help, "show this and leave"),
        PD_OPT_FLAG(0, "version", &t->version, "show the version and leave"),
    };
    static const unsigned needs[] = {PD_CLI_SET, PD_CLI_DEVICE, PD_CLI_DEVICE, PD_CLI_THREADS, PD_CLI_QUIET, 0, 0};
    const size_t room = cli->n_opts + sizeof common / sizeof *common;
    t->all = calloc(room, sizeof *t->all);
    t->longs = calloc(room + 1, sizeof *t->longs);
    t->letters = calloc(2 * room + 2, 1);
    if (!t->all || !t->longs || !t->letters) return false;
    if (cli->n_opts) memcpy(t->all, cli->opts, cli->n_opts * sizeof *t->all);
    t->count = cli->n_opts;
    for (size_t i = 0; i < sizeof common / sizeof *common; i++)
        if (!needs[i] || (cli->common & needs[i])) t->all[t->count++] = common[i];
    t->shown = t->count;
    for (size_t i = 1; i < sizeof common / sizeof *common; i++) /* not --set */
        if (needs[i] && !(cli->common & needs[i])) t->all[t->count++] = common[i];
    char *letter = t->letters;
    *letter++ = ':'; /* getopt tells a missing value from an unknown option */
    for (size_t i = 0; i < t->count; i++) {
        const pd_opt *o = &t->all[i];
        const bool value = o->type != PD_OPT_T_FLAG;
        t->longs[i] = (struct option){o->name, value ? required_argument : no_argument, NULL, FIRST_VALUE + (int)i};
        if (o->letter) *letter++ = (char)o->letter;
        if (o->letter && value) *letter++ = ':';
    }
    return true;
}

static void free_table(table *t)
{
    free(t->all);
    free(t->longs);
    free(t->letters);
}

/* ---- help ---- */

/* A default that the range excludes stands for "not given" and is not shown. */
static bool shown(const pd_opt *o, double value)
{
    return !bounded(o->min, o->max) || (value >= o->min && value <= o->max);
}

static void print_default(FILE *out, const pd_opt *o)
{
    if (o->type == PD_OPT_T_INT && *(const int *)o->to && shown(o, *(const int *)o->to))
        fprintf(out, " [%d]", *(const int *)o->to);
    if (o->type == PD_OPT_T_INT64 && *(const int64_t *)o->to && shown(o, (double)*(const int64_t *)o->to))
        fprintf(out, " [%lld]", (long long)*(const int64_t *)o->to);
    if (o->type == PD_OPT_T_DOUBLE && shown(o, *(const double *)o->to)) fprintf(out, " [%g]", *(const double *)o->to);
    if (o->type == PD_OPT_T_STRING && *(const char *const *)o->to) fprintf(out, " [%s]", *(const char *const *)o->to);
    if (o->type == PD_OPT_T_SIZE && *(const int *)o->to)
        fprintf(out, " [%dx%d]", ((const int *)o->to)[0], ((const int *)o->to)[1]);
}

static void print_option(FILE *out, const pd_opt *o)
{
    char left[128];
    const int used = o->letter ? snprintf(left, sizeof left, "  -%c, --%s", o->letter, o->name)
                               : snprintf(left, sizeof left, "      --%s", o->name);
    if (o->arg && used > 0 && (size_t)used < sizeof left)
        snprintf(left + used, sizeof left - (size_t)used, " %s", o->arg);
    const bool fits = strlen(left) + 2 <= HELP_COLUMN;
    fprintf(out, "%-*s%s", fits ? HELP_COLUMN : 0, left, fits ? "" : "\n");
    fprintf(out, "%*s%s", fits ? 0 : HELP_COLUMN, "", o->help);
    print_default(out, o);
    fputc('\n', out);
}

static void print_help(FILE *out, const pd_cli *cli, const table *t)
{
    fprintf(out, "Usage: %s [options]%s%s\n%s\n\nOptions:\n", cli->program, *cli->usage ? " " : "", cli->usage,
            cli->about);
    for (size_t i = 0; i < t->shown; i++) print_option(out, &t->all[i]);
    fprintf(out, "\nExample:\n  %s\n", cli->example);
}

void pd_cli_help(FILE *out, const pd_cli *cli)
{
    pd_cli_args args = {.device = "auto"};
    table t = {0};
    if (make_table(&t, &args, cli)) print_help(out, cli, &t);
    free_table(&t);
}

/* ---- messages ---- */

static void hint(const pd_cli *cli)
{
    fprintf(stderr, "Try '%s --help'.\n", cli->program);
}

int pd_cli_wrong(const pd_cli *cli, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fprintf(stderr, "%s: ", cli->program);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
    hint(cli);
    return 2;
}

int pd_cli_fail(const pd_cli *cli, const pd_err *err)
{
    fprintf(stderr, "%s: %s\n", cli->program, *err->text ? err->text : pd_status_text(err->code));
    return err->code == PD_ESTOP ? 130 : 1;
}

int pd_cli_close_stdout(const pd_cli *cli, int code)
{
    errno = 0;
    const bool bad = ferror(stdout) != 0;
    if (fclose(stdout) == 0 && !bad) return code;
    fprintf(stderr, "%s: cannot write to standard output%s%s\n", cli->program, errno ? ": " : "",
            errno ? strerror(errno) : "");
    return 1;
}

/* What getopt did not know or found ambiguous; argv[optind - 1] is it, unless it was a letter among others. */
static int unknown_option(const pd_cli *cli, const table *t, char **argv)
{
    if (optopt >= FIRST_VALUE) return pd_cli_wrong(cli, "--%s takes no value", t->longs[optopt - FIRST_VALUE].name);
    if (optopt) return pd_cli_wrong(cli, "unknown option -%c", optopt);
    char name[64];
    snprintf(name, sizeof name, "%s", argv[optind - 1] + 2);
    name[strcspn(name, "=")] = '\0';
    const char *like[64] = {NULL};
    size_t n = 0, same = 0;
    for (size_t i = 0; i < t->count && n < 63; i++) {
        like[n++] = t->longs[i].name;
        same += !strncmp(t->longs[i].name, name, strlen(name));
    }
    if (same > 1 && *name) return pd_cli_wrong(cli, "--%s is ambiguous", name);
    const char *near = pd_nearest_word(name, like);
    return near ? pd_cli_wrong(cli, "unknown option --%s (did you mean --%s?)", name, near)
                : pd_cli_wrong(cli, "unknown option --%s", name);
}

/* ---- parsing ---- */

static pd_status store(const pd_opt *o, const char *text, pd_err *err)
{
    char what[96];
    int64_t whole = 0;
    snprintf(what, sizeof what, "--%s", o->name);
    const bool open = !bounded(o->min, o->max);
    switch (o->type) {
    case PD_OPT_T_FLAG: *(bool *)o->to = true; break;
    case PD_OPT_T_STRING:
        if (!strcmp(o->name, "device")) PD_TRY(device_syntax(text, err));
        *(const char **)o->to = text;
        break;
    case PD_OPT_T_STRINGS: return push(o->to, text, err);
    case PD_OPT_T_INT:
        PD_TRY(pd_cli_int(&whole, what, text, open ? INT32_MIN : (int64_t)fmax(o->min, INT32_MIN),
                          open ? INT32_MAX : (int64_t)fmin(o->max, INT32_MAX), err));
        *(int *)o->to = (int)whole;
        break;
    case PD_OPT_T_INT64:
        PD_TRY(pd_cli_int(&whole, what, text, open ? INT64_MIN : (int64_t)fmax(o->min, -0x1p62),
                          open ? INT64_MAX : (int64_t)fmin(o->max, 0x1p62), err));
        *(int64_t *)o->to = whole;
        break;
    case PD_OPT_T_DOUBLE: PD_TRY(pd_cli_double(o->to, what, text, o->min, o->max, err)); break;
    case PD_OPT_T_NUMBERS: {
        pd_numbers list;
        PD_TRY(pd_cli_numbers(&list, what, text, err));
        free(((pd_numbers *)o->to)->items);
        *(pd_numbers *)o->to = list;
        break;
    }
    case PD_OPT_T_SIZE: PD_TRY(parse_size(o->to, what, text, o, err)); break;
    }
    if (o->given) *o->given = true;
    return PD_OK;
}

static int parse_options(const pd_cli *cli, const table *t, int argc, char **argv)
{
    optind = 0; /* glibc: begin anew, whatever was parsed before */
    opterr = 0;
    for (int c; (c = getopt_long(argc, argv, t->letters, t->longs, NULL)) != -1;) {
        size_t i = (size_t)(c - FIRST_VALUE);
        if (c == '?') return unknown_option(cli, t, argv);
        if (c == ':' && optopt >= FIRST_VALUE)
            return pd_cli_wrong(cli, "--%s needs a value (%s)", t->longs[optopt - FIRST_VALUE].name,
                                t->all[optopt - FIRST_VALUE].arg);
        if (c == ':') return pd_cli_wrong(cli, "-%c needs a value", optopt);
        if (c < FIRST_VALUE)
            for (i = 0; t->all[i].letter != c;) i++;
        pd_err err = PD_ERR_INIT;
        if (store(&t->all[i], optarg, &err) != PD_OK) return pd_cli_wrong(cli, "%s", err.text);
        if (t->help || t->version) return 0;
    }
    return -1;
}

static int check_count(const pd_cli *cli, size_t n, const char *extra)
{
    if (n < (size_t)cli->min_args) return pd_cli_wrong(cli, "too few arguments: expected %s", cli->usage);
    if (cli->max_args >= 0 && n > (size_t)cli->max_args)
        return pd_cli_wrong(cli, "unexpected argument \"%s\"%s%s", extra, *cli->usage ? ": expected " : "", cli->usage);
    return -1;
}

static void free_lists(pd_cli_args *args)
{
    free((void *)args->set.items);
    for (size_t i = 0; i < args->cli->n_opts; i++) {
        const pd_opt *o = &args->cli->opts[i];
        if (o->type == PD_OPT_T_STRINGS) {
            free((void *)((pd_strings *)o->to)->items);
            *(pd_strings *)o->to = (pd_strings){0};
        } else if (o->type == PD_OPT_T_NUMBERS) {
            free(((pd_numbers *)o->to)->items);
            *(pd_numbers *)o->to = (pd_numbers){0};
        }
    }
}

int pd_cli_parse(pd_cli_args *out, const pd_cli *cli, int argc, char **argv)
{
    pd_cli_args args = {.device = "auto", .cli = cli};
    table t = {0};
    int code = -1;
    (void)signal(SIGXFSZ, SIG_IGN); /* a write over the file size limit fails with a message instead */
    if (!make_table(&t, &args, cli)) {
        fprintf(stderr, "%s: out of memory\n", cli->program);
        code = 1;
    }
    if (code < 0) code = parse_options(cli, &t, argc, argv);
    if (code == 0 && t.help) print_help(stdout, cli, &t);
    if (code == 0 && t.version) printf("%s (ParaDise) %s\n", cli->program, PD_VERSION);
    if (code == 0 && fflush(stdout) != 0) code = 1;
    const size_t n = (size_t)(argc - optind);
    if (code < 0) {
        args.args = (const char **)argv + optind;
        args.n_args = n;
        const size_t over = cli->max_args >= 0 && n > (size_t)cli->max_args ? (size_t)cli->max_args : 0;
        code = check_count(cli, n, n ? args.args[over] : "");
        if (code < 0 && !(cli->common & PD_CLI_DEVICE) && !strncmp(args.device, "cuda", 4))
            code = pd_cli_wrong(cli, "--device %s: this program works on the CPU", args.device);
    }
    free_table(&t);
    if (code < 0)
        *out = args;
    else
        free_lists(&args);
    return code;
}

void pd_cli_free(pd_cli_args *args)
{
    free_lists(args);
    args->set = (pd_strings){0};
}

/* ---- stopping ---- */

/* A signal handler can reach nothing but globals. */
static volatile sig_atomic_t stop_asked;

static void on_stop(int signal_number)
{
    stop_asked = 1;
    (void)signal(signal_number, SIG_DFL); /* the second one kills */
}

void pd_cli_catch_stop(void)
{
    struct sigaction action = {.sa_handler = on_stop, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool pd_cli_stop_asked(void)
{
    return stop_asked != 0;
}
