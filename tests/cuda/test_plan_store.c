/* The file of chosen plans: kept between runs and shared by processes, whatever state it is found in. */
#include "kernels/cuda/plan_store.h"
#include "tests/pd_test.h"

#include <sys/stat.h>
#include <sys/wait.h>

static pd_err err = PD_ERR_INIT;
static char folder[] = "/tmp/pd_plan_store.XXXXXX", file[128];

static void expect(const pd_plan_store *s, const char *key, const char *plan, double ms)
{
    double got = -1;
    const char *found = pd_plan_store_find(s, key, &got);
    PD_ROW(key);
    if (!plan)
        PD_CHECK(!found);
    else if (found) {
        PD_CHECK_STR(found, plan);
        PD_CHECK_NEAR(got, ms, 1e-6);
    } else
        PD_CHECK_MSG(false, "no plan, expected %s", plan);
    PD_ROW("");
}

static void write_text(const char *text)
{
    FILE *f = fopen(file, "w");
    fputs(text, f);
    fclose(f);
}

static pd_plan_store *open_store(void)
{
    pd_plan_store *s = NULL;
    PD_CHECK_OK(pd_plan_store_open(&s, "a device/1", &err));
    return s;
}

static void test_kept(void)
{
    pd_plan_store *s = open_store();
    expect(s, "fwd", NULL, 0);
    PD_CHECK_OK(pd_plan_store_add(s, "fwd", 0.25, "{\"a\":\t1,\n\"b\": 2}", &err));
    expect(s, "fwd", "{\"a\": 1, \"b\": 2}", 0.25);
    PD_CHECK_OK(pd_plan_store_add(s, "fwd", 0.125, "later", &err));
    expect(s, "fwd", "{\"a\": 1, \"b\": 2}", 0.25);
    pd_plan_store *other = open_store(); /* while the first one is still open */
    expect(other, "fwd", "{\"a\": 1, \"b\": 2}", 0.25);
    PD_CHECK_OK(pd_plan_store_add(other, "dgrad", 1, "of the other", &err));
    PD_CHECK_OK(pd_plan_store_add(s, "dgrad", 2, "too late", &err));
    expect(s, "dgrad", "of the other", 1);
    pd_plan_store_close(s);
    pd_plan_store_close(other);
}

/* Lines that nobody finished, or that are none. */
static void test_found_broken(void)
{
    write_text("no tabs\n\nkey\t0.5\tplan\nhalf\t0.5\tpl");
    pd_plan_store *s = open_store();
    expect(s, "key", "plan", 0.5);
    expect(s, "half", NULL, 0);
    PD_CHECK_OK(pd_plan_store_add(s, "new", 3, "whole", &err));
    expect(s, "new", "whole", 3);
    expect(s, "half", NULL, 0);
    pd_plan_store_close(s);
    s = open_store();
    expect(s, "key", "plan", 0.5);
    expect(s, "new", "whole", 3);
    expect(s, "half", NULL, 0);
    PD_CHECK_OK(pd_plan_store_add(s, "half", 1, "repaired", &err));
    expect(s, "half", "repaired", 1);
    pd_plan_store_close(s);
}

/* Processes that add the same keys at the same time use the same plans, and leave whole lines. */
static void test_shared(void)
{
    enum { PROCESSES = 4, KEYS = 200 };
    remove(file);
    for (int p = 0; p < PROCESSES; p++)
        if (fork() == 0) {
            pd_plan_store *s = open_store();
            char key[16], plan[1200], seen[128];
            snprintf(seen, sizeof seen, "%s/seen%d", folder, p);
            FILE *f = fopen(seen, "w");
            for (int k = 0; k < KEYS; k++) {
                double ms;
                snprintf(key, sizeof key, "key%d", k);
                memset(plan, 'a' + p, sizeof plan - 1);
                plan[sizeof plan - 1] = '\0';
                if (pd_plan_store_add(s, key, p, plan, &err) != PD_OK) _exit(1);
                fputs(pd_plan_store_find(s, key, &ms), f);
            }
            fclose(f);
            pd_plan_store_close(s);
            _exit(0);
        }
    for (int p = 0; p < PROCESSES; p++) {
        int status;
        PD_CHECK(wait(&status) > 0 && status == 0);
    }
    static char first[KEYS * 1200], other[KEYS * 1200];
    for (int p = 0; p < PROCESSES; p++) {
        char seen[128];
        snprintf(seen, sizeof seen, "%s/seen%d", folder, p);
        FILE *f = fopen(seen, "r");
        const size_t n = fread(p ? other : first, 1, sizeof first, f);
        fclose(f);
        remove(seen);
        PD_CHECK_INT((long)n, KEYS * 1199);
        if (p) PD_CHECK_MSG(!memcmp(first, other, n), "process %d chose other plans than process 0", p);
    }
}

static void test_nowhere_to_write(void)
{
    setenv("XDG_CACHE_HOME", "/proc/no such folder", 1);
    pd_plan_store *s = open_store();
    PD_CHECK_OK(pd_plan_store_add(s, "fwd", 0.5, "plan", &err));
    expect(s, "fwd", "plan", 0.5);
    pd_plan_store_close(s);
}

int main(void)
{
    if (!mkdtemp(folder)) return 1;
    setenv("XDG_CACHE_HOME", folder, 1);
    snprintf(file, sizeof file, "%s/paradise/a-device-1", folder);
    test_kept();
    PD_CHECK(access(file, R_OK) == 0);
    test_found_broken();
    test_shared();
    remove(file);
    test_nowhere_to_write();
    char below[128];
    snprintf(below, sizeof below, "%s/paradise", folder);
    rmdir(below);
    rmdir(folder);
    return pd_test_end();
}
